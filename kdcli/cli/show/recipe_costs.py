"""What recipes cost, for the list and the page: read where it is written down, else counted."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from kdcli.errors import KdcliError
from kdcli.recipe import Recipe, folder


def written() -> dict[str, Any]:
    """`recipes/costs.json`: the pair, and the cost of each shipped recipe by its name.

    `kdcli.analysis.recipe_cost.RecipeCost` says what the numbers are.
    """
    path = folder() / "costs.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {"recipes": {}}


def of(recipe: Recipe, shipped: bool) -> dict[str, Any] | None:
    """The cost of one recipe; None where nothing is distilled, or the pair does not fit.

    One that did not ship is counted now, which imports torch and takes some seconds.
    """
    if shipped:
        return written()["recipes"].get(recipe.name)
    from kdcli.analysis.recipe_cost import weigh

    try:
        return json.loads(json.dumps(asdict(weigh(recipe))))
    except KdcliError:
        return None


def size(number: int, unit: str = "") -> str:
    """A count in at most five characters before its unit; `-` is nothing.

    >>> [size(0), size(-100), size(65792), size(258496), size(52001608, "B")]
    ['-', '-100', '65.8k', '258k', '52.0MB']
    """
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= scale:
            digits = 1 if abs(number) < 100 * scale else 0
            return f"{number / scale:.{digits}f}{letter}{unit}"
    return f"{number}{unit}" if number else "-"


def sentence(cost: dict[str, Any]) -> str:
    """A recipe's cost in words, on one line."""
    pair = written()
    parts = [("student", "student_flops"), ("teacher", "teacher_flops"), ("losses", "loss_flops")]
    memory = size(cost["memory_bytes"], "B") if cost["memory_bytes"] else "no bytes"
    flops = ", ".join(f"{name} {cost[key] / 1e9:.2f}" for name, key in parts)
    return (
        f"{cost['parameters']:,} parameters trained beside the student's, {memory} of memory, "
        f"{cost['work']:.2f} times the work of labels alone (GFLOP an image: {flops}; "
        f"{pair['teacher']} to {pair['student']}, {pair['images']:,} images of {pair['classes']} "
        "classes)"
    )
