"""Several runs of one command: seeds, and the cells of a grid of settings."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdcli.cli import screen
from kdcli.cli.screen import console, duration
from kdcli.cli.training import Cell, Order, record_machine, train
from kdcli.errors import STOPPED, KdcliError
from kdcli.recipes import Recipe


def parse_seeds(text: str, seed: int) -> list[int]:
    """`0,1,2` as numbers; the one `seed` when there is no list."""
    if not text:
        return [seed]
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise KdcliError(
            f"--seeds {text!r} must be whole numbers with commas, e.g. 0,1,2."
        ) from None
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise KdcliError(f"--seeds {text!r}: each seed once, none below 0.")
    return seeds


def cells(
    config: Mapping[str, Any], plans: list[tuple[Recipe, Any, str]], seeds: list[int], named: bool
) -> list[Cell]:
    """A cell for each seed and plan (recipe, teacher, label); a given name needs the seed too."""
    several = named and len(seeds) > 1
    return [
        Cell(
            record_machine(
                {**config, "teacher": teacher, "recipe": recipe.to_dict(), "seed": seed}
            ),
            "-".join(filter(None, [label, f"s{seed}" if several else ""])),
        )
        for seed in seeds
        for recipe, teacher, label in plans
    ]


def train_all(cells: list[Cell], order: Order) -> list[dict[str, Any]]:
    """Train every cell; one that fails is told and passed over, the last error is raised."""
    results, failed = [], None
    for cell in cells:
        try:
            results.append(train(cell, order))
        except KdcliError as error:
            if len(cells) == 1 or error.code == STOPPED:
                raise
            console.print(f"[red]{cell.label or cell.config['recipe']['name']}: {error}[/red]")
            failed = error
    if failed and not results:
        raise failed
    return results


def tell(results: list[dict[str, Any]], next_command: str, as_json: bool) -> None:
    """The end of a command: a row a run, mean and deviation of several, what to do next."""
    if as_json:
        screen.emit(results[0] if len(results) == 1 else results)
        return
    rows = []
    for r in results:
        best = f"{r['best']['top1']:.2f} (epoch {r['best']['epoch']})"
        rows.append([Path(r["run"]).name, r["top1"], r["top5"], best, duration(r["train_seconds"])])
    columns = ["run", "top-1, last", "top-5", "best on test", "time"]
    screen.out.print(screen.table("", columns, rows))
    if len(results) > 1:
        values = [r["top1"] for r in results]
        screen.out.print(
            f"top-1 of {len(values)} runs: "
            f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
        )
    console.print(f"Next: [bold]{next_command}[/bold]")
