"""What the recipe of a run says, and what the one of its name says that kdcli ships."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdcli import recipes
from kdcli.ensembles import members
from kdcli.recipe import Recipe, scaled
from kdcli.recipe_values import from_dict
from kdcli.settings import differences, for_dataset, for_pair

EMPTY = ({}, [], ())


def shipped(config: Mapping[str, Any]) -> Recipe:
    """As `kdcli distill` would take it for the dataset, teacher and student of `config`.

    KdcliError for a recipe of somebody's own.
    """
    base = for_dataset(recipes.load(config["recipe"]["name"]), config["dataset"])
    taught = {told["model"] for told in members(config)}
    return for_pair(base, taught.pop() if len(taught) == 1 else "", config["student"])


def changes(config: Mapping[str, Any], base: Recipe) -> list[tuple[str, Any]]:
    """Dotted keys in which the recipe of `config` is not `base` at its length, with its values.

    A table that was empty says nothing: what is in it now is named key by key.
    """
    recipe = from_dict(config["recipe"])
    found = differences(recipe, scaled(base, recipe.epochs))
    return [(key, now) for key, then, now in found if now is not None or then not in EMPTY]


def image_size(config: Mapping[str, Any]) -> int | None:
    """Pixels that images were resized to; None: as their dataset has them."""
    return config["recipe"].get("data", {}).get("size")


def labels_alone(config: Mapping[str, Any]) -> bool:
    """Whether a run learnt from labels and nothing else."""
    recipe = config["recipe"]
    return (
        not config.get("teacher")
        and list(recipe["minimize"]) == ["ce"]
        and not recipe.get("pretrain")
    )
