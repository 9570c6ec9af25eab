"""A short name for each of several runs, for a figure's labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdcli.ensembles import label, members
from kdcli.runs import Run


def names(runs: Sequence[Run]) -> list[str]:
    """Each run's recipe, and beside it only what tells the runs apart; else the run's own name."""
    facts = [_facts(run.config) for run in runs]
    several = len({fact["student"] for fact in facts}) > 1
    shown = [
        [fact["recipe"], fact["student"] if several or not fact["recipe"] else ""] for fact in facts
    ]
    for key in ("teacher", "epochs", "seed"):
        longer = [[*parts, fact[key]] for parts, fact in zip(shown, facts, strict=True)]
        if len(set(map(_joined, longer))) > len(set(map(_joined, shown))):
            shown = longer
    short = [_joined(parts) for parts in shown]
    return short if len(set(short)) == len(short) else [run.name for run in runs]


def listed(items: Iterable[str], most: int = 4) -> str:
    """Names for a title, the first `most` of them.

    >>> listed(["kd", "crd", "ce"], most=2)
    'kd, crd and 1 more'
    """
    items = list(items)
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest


def _facts(config: Mapping[str, Any]) -> dict[str, str]:
    teachers, epochs = members(config), config["recipe"]["epochs"]
    return {
        "recipe": "" if config["kind"] == "teach" else config["recipe"]["name"],
        "student": config["student"],
        "teacher": f"under {label(teachers)}" if teachers else "",
        "epochs": f"{epochs} epoch{'s' * (epochs > 1)}",
        "seed": f"seed {config['seed']}",
    }


def _joined(parts: Sequence[str]) -> str:
    return " ".join(filter(None, parts))
