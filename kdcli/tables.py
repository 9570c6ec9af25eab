"""What the published tables in `recipes/tables` print of one recipe, pair and dataset."""

from __future__ import annotations

import math
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

METRIC = "top-1 accuracy, %"  # of the tables that are looked into


class Printed(NamedTuple):
    """One number of a paper."""

    value: float  # top-1 accuracy, percent
    table: str  # its file's name in recipes/tables, without .toml
    source: str


def own_mark(paper: str) -> list[str]:
    """The arXiv number by which a table's source is known as that of the recipe's own paper."""
    return re.findall(r"arXiv:\d{4}\.\d{4,5}", paper)[:1]


def every() -> tuple[tuple[str, dict[str, Any]], ...]:
    """Every table with its file's name, in their natural order."""
    from kdcli.recipe import folder

    return _read(folder() / "tables")


@cache
def _read(place: Path) -> tuple[tuple[str, dict[str, Any]], ...]:
    paths = sorted(place.glob("*.toml"), key=lambda path: _natural(path.stem))
    return tuple((path.stem, tomllib.loads(path.read_text(encoding="utf-8"))) for path in paths)


def _natural(stem: str) -> list[str]:
    """mcld-2 before mcld-10."""
    return [part.zfill(3) if part.isdigit() else part for part in stem.split("-")]


def find(
    row: str,
    dataset: str,
    *,
    teacher: str = "",
    student: str = "",
    probed: str = "",
    paper: str = "",
) -> Printed | None:
    """The number of `row`, a recipe, `teacher` or `student`, for a pair trained on `dataset`.

    `probed`: that of a linear probe on this dataset instead. An empty name stands for any network.
    The table of the recipe's own paper goes first, then the first one by name; None without any.
    """
    own = own_mark(paper)
    found = []
    for stem, table in every():
        values = table["rows"].get(row, [])
        if table["metric"] != METRIC or not _is_about(table, dataset, probed):
            continue
        pairs = table.get("pairs") or [table.get("pair", "")] * len(table["columns"])
        columns = table.get("columns") or [""] * len(pairs)
        for pair, column, value in zip(pairs, columns, values, strict=False):
            fits = _fits(pair, teacher, student) and plain(column) == plain(probed)
            if fits and not math.isnan(value):
                found.append(Printed(value, stem, table["source"]))
    found.sort(key=lambda printed: not any(mark in printed.source for mark in own))
    return found[0] if found else None


def plain(dataset: str) -> str:
    """A dataset's name as both the tables and `kdcli datasets` write it.

    >>> plain("tiny-imagenet")
    'tinyimagenet'
    """
    return dataset.replace("-", "")


def _is_about(table: dict[str, Any], dataset: str, probed: str) -> bool:
    told = f"{dataset} to the column's" if probed else dataset
    return plain(table["dataset"]) == plain(told)


def _fits(pair: str, teacher: str, student: str) -> bool:
    known = pair.split("->")
    return len(known) == 2 and teacher in ("", known[0]) and student in ("", known[1])
