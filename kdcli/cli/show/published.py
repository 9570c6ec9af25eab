"""What papers print of a recipe: its rows in `recipes/tables/*.toml`, and how they are shown."""

from __future__ import annotations

import math
from typing import Any

from kdcli import tables

REFERENCES = ("teacher", "student")  # rows shown beside a recipe's: both without distillation


def published(name: str, paper: str) -> list[dict[str, Any]]:
    """The tables with a row of this recipe, cut down to it; those of its own paper first.

    `rows` holds a value a column; one that the source does not have is None.
    """
    own = tables.own_mark(paper)
    found = []
    for stem, table in tables.every():
        rows = _rows(table, name)
        if rows:
            told = {key: table.get(key, "") for key in ("title", "source", "dataset", "metric")}
            columns = table.get("pairs") or table["columns"]
            found.append(
                {"table": stem, **told, "pair": table.get("pair", ""), "columns": columns}
                | {"rows": rows, "notes": table.get("notes", [])}
            )
    return sorted(found, key=lambda table: not any(mark in table["source"] for mark in own))


def _rows(table: dict[str, Any], name: str) -> dict[str, list[float | None]]:
    """The recipe's rows, variants such as `simkd, factor 4` too, behind those they improve on."""
    rows = table["rows"]
    mine = [row for row in rows if row == name or row.startswith(f"{name}, ")]
    if not mine:
        return {}
    found = {row: rows[row] for row in (*REFERENCES, *mine) if row in rows}
    for section, values in table.items():  # e.g. [top5], beside the top-1 of [rows]
        if section != "rows" and isinstance(values, dict) and name in values:
            found[f"{name}, {section}"] = values[name]
    plain = {row: values for row, values in found.items() if not isinstance(values[0], list)}
    return {row: [None if math.isnan(v) else v for v in values] for row, values in plain.items()}


def show(found: list[dict[str, Any]]) -> None:
    """Each table with its source and conditions, a line a pair."""
    from rich.markup import escape

    from kdcli.cli.show import screen

    for printed in found:
        screen.out.print(f"\n[bold]{escape(printed['title'])}[/]  [dim]{printed['table']}[/]")
        parts = [printed["source"], f"{printed['dataset']}; {printed['metric']}"]
        parts += [printed["pair"]] if printed["pair"] else []
        screen.out.print(f"[dim]{escape('; '.join(parts))}[/]")
        lines = zip(printed["columns"], *printed["rows"].values(), strict=True)
        digits = max(_decimals(v) for values in printed["rows"].values() for v in values)
        cells = [
            [escape(head), *("-" if v is None else f"{v:.{digits}f}" for v in values)]
            for head, *values in lines
        ]
        columns = ["", *map(escape, printed["rows"])]
        made = screen.table("", columns, cells, box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in made.columns[1:]:
            column.justify = "right"
        screen.out.print(made)
        for note in printed["notes"]:
            screen.out.print(f"[dim]- {escape(note)}[/]")


def _decimals(value: float | None) -> int:
    """Digits behind the point, so that a table shows as many as its source prints."""
    return 0 if value is None else len(repr(value).partition(".")[2])
