"""Dotted settings over a recipe: the values of a pair, `--set`, and what they changed."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from kdcli.data import TABLE
from kdcli.errors import KdcliError, unknown
from kdcli.recipe import Recipe, folder
from kdcli.recipe_values import KINDS, NUMBER, from_dict

TABLES = ("pairs", "datasets")  # of a recipe: what it would be elsewhere, so no setting


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys; tables in a list are counted from 1, as phases are in the log.

    >>> flatten({"losses": {"kd": {"temperature": 4}}, "pretrain": [{"epochs": 30}], "lr": 0.1})
    {'losses.kd.temperature': 4, 'pretrain.1.epochs': 30, 'lr': 0.1}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            value = {str(number): table for number, table in enumerate(value, 1)}
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{path}.")
        else:
            flat[path] = value
    return flat


def for_pair(recipe: Recipe, teacher: str, student: str) -> Recipe:
    """The recipe with the values published for this pair, if there are any."""
    values = recipe.pairs.get(f"{teacher}->{student}", {})
    return override(recipe, flatten(values)) if values else recipe


@cache
def protocol(dataset: str) -> dict[str, Any]:
    """The schedule that is usual on a dataset, by recipe key; empty where it is CIFAR-100's."""
    path = folder() / "protocols" / f"{dataset}.toml"
    if dataset not in TABLE or not path.is_file():  # folder:PATH would lead elsewhere
        return {}
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in values.items() if key != "source"}


def for_dataset(recipe: Recipe, dataset: str) -> Recipe:
    """The recipe on the schedule of this dataset, with what its paper changes there."""
    values = flatten(protocol(dataset)) | flatten(recipe.datasets.get(dataset, {}))
    return override(recipe, values) if values else recipe


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """`key.path=value` pairs; a value is TOML, and what is not TOML is a string.

    >>> parse_settings(["lr=0.1", "teacher=vgg13", "minimize.ce=0"])
    {'lr': 0.1, 'teacher': 'vgg13', 'minimize.ce': 0}
    """
    values = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise KdcliError(
                f"--set {setting!r} must be key.path=value, e.g. losses.kd.temperature=2."
            )
        try:
            values[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key.strip()] = text.strip()
    return values


def variants(settings: Iterable[str]) -> list[tuple[list[str], str]]:
    """The grid that settings with several values span: plain settings and a label for each cell.

    Values are parted by commas outside brackets; a list of numbers is written in brackets.

    >>> variants(["lr=0.1,0.2", "milestones=[1, 2]"])
    [(['lr=0.1', 'milestones=[1, 2]'], 'lr0.1'), (['lr=0.2', 'milestones=[1, 2]'], 'lr0.2')]
    >>> [label for _, label in variants(["milestones=[1, 2],[12]"])]
    ['milestones1x2', 'milestones12']
    """
    choices = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        values = re.split(r",(?![^\[]*\])", text) if equals else [text]
        short = key.rpartition(".")[2]
        bare = [f"{short}{value}".replace(",", "x") for value in values]  # [1, 2] is not [12]
        label = [re.sub(r"[^A-Za-z0-9.+-]", "", value) for value in bare]
        many = len(values) > 1
        choices.append(
            [
                (f"{key}{equals}{value}", name if many else "")
                for value, name in zip(values, label, strict=True)
            ]
        )
    return [
        ([setting for setting, _ in cell], "-".join(name for _, name in cell if name))
        for cell in itertools.product(*choices)
    ]


def override(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with dotted keys replaced; an unknown key or another type is an error."""
    tree = recipe.to_dict()
    known = [key for key in flatten(tree) if not key.startswith(("name", *TABLES))]
    for key, value in values.items():
        head, _, rest = key.partition(".")
        opens = {"minimize": 1, "warmup": 1, "losses": 2, "data": 1, "optimizer": 1}
        new = rest and head in opens and len(rest.split(".")) == opens[head]
        if key not in known and not new and not (not rest and head in KINDS and head not in TABLES):
            raise unknown("setting", key, known)
        before = flatten(tree).get(key)
        if isinstance(before, NUMBER) and not isinstance(before, bool):
            right = isinstance(value, NUMBER) and not isinstance(value, bool)
        else:
            right = before is None or isinstance(value, type(before)) or isinstance(before, Mapping)
            right = right or (isinstance(before, tuple) and isinstance(value, list))
        if not right:
            raise KdcliError(
                f"setting {key}={value!r}: expected a {_kind(before)}, like {before!r}."
            )
        _put(tree, key.split("."), value)
    return from_dict(tree)


def _kind(value: object) -> str:
    number = isinstance(value, NUMBER) and not isinstance(value, bool)
    return (
        "number"
        if number
        else {"bool": "true or false", "str": "text", "tuple": "list"}.get(
            type(value).__name__, type(value).__name__
        )
    )


def _put(tree: dict[str, Any], path: list[str], value: object) -> None:
    for key in path[:-1]:
        tree = tree[int(key) - 1] if isinstance(tree, list | tuple) else tree.setdefault(key, {})
    tree[path[-1]] = value


def differences(recipe: Recipe, base: Recipe) -> list[tuple[str, Any, Any]]:
    """Dotted keys in which `recipe` differs from `base`, as (key, base's value, recipe's value)."""
    now, then = (flatten({**r.to_dict(), **dict.fromkeys(TABLES)}) for r in (recipe, base))
    keys = dict.fromkeys([*then, *now])
    return [(key, then.get(key), now.get(key)) for key in keys if then.get(key) != now.get(key)]
