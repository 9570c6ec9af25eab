"""Compare this program with recorded numbers: `python -m tests.conformance FOLDER [--every]`.

`--device cuda` computes losses and networks there, without TF32; steps of an optimizer stay on the
CPU, since a GPU's take the learning rate in single precision.

FOLDER holds any of `losses/`, `models/`, `models_mdistiller/`, `optim/`, `schedules.json` and
`trajectory/`; sizes, constants and hyper-parameters are read from its files. The table has a line
a file, with the number that is nearest to its tolerance, and a line for each number that misses;
`--every` prints all. Exit code 1 if a number misses, 2 if there is none.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from kdcli.engine.speed import set_numerics
from tests import golden_case, golden_losses, golden_models, golden_training
from tests.conformance_row import Row

CHECKERS = (golden_losses, golden_models, golden_training)
NOT_THERE = ("no such loss", "no such model", "no such optimizer")


def check(directory: Path, device: str = "cpu") -> Iterator[Row]:
    """One row a number or array, of everything in `directory`, computed on `device`."""
    set_numerics(torch.device(device), "fp32", deterministic=False)
    for checker in CHECKERS:
        try:
            with torch.device("cpu" if checker is golden_training else device):
                yield from checker.check(directory)
        except Exception as error:  # a file that cannot be read must not hide the other kinds
            note = f"{type(error).__name__}: {error}"
            yield Row(checker.__name__, math.inf, 0.0, False, note)


def relative(row: Row) -> tuple[float, float]:
    """(error, tolerance), both relative; the rows of losses hold absolute ones and their dtype."""
    allowed = golden_case.RELATIVE.get(row.note)
    if allowed is None or row.tolerance == 0:
        return row.error, row.tolerance
    return row.error / row.tolerance * allowed, allowed


def title(row: Row) -> str:
    """The file of a row."""
    return row.name.partition(":")[0]


def nearness(row: Row) -> float:
    """How much of its tolerance a row that agrees has used."""
    return row.error / row.tolerance if row.tolerance else 0.0


def render(rows: list[Row], every: bool) -> Table:
    """A line for the worst number of a file that agrees, and one for each that misses; or all."""
    table = Table("name", "max relative error", "tolerance", "verdict")
    for file, group in itertools.groupby(rows, title):
        numbers = list(group)
        agreeing = [row for row in numbers if row.ok]
        shown = numbers if every else [row for row in numbers if not row.ok]
        if agreeing and not every:
            name = f"{file} ({len(agreeing)} of {len(numbers)} numbers)"
            shown.insert(0, max(agreeing, key=nearness)._replace(name=name))
        for row in shown:
            error, tolerance = (
                f"{number:.1e}" if row.tolerance else "" for number in relative(row)
            )
            verdict = "[green]agrees[/]" if row.ok else "[red]misses[/]"
            note = "" if row.tolerance else row.note
            table.add_row(row.name, error, tolerance, f"{verdict} {note}".rstrip())
    return table


def main(arguments: list[str]) -> int:
    """Check a folder, print the table; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", action="store_true", help="one line a number")
    parser.add_argument("--device", default="cpu", help="where to compute")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    rows = list(check(options.folder, options.device))
    if not rows:
        console.print(f"There are no recorded numbers in {options.folder}.")
        return 2
    console.print(render(rows, options.every))
    agree = sum(row.ok for row in rows)
    missing = sum(row.note in NOT_THERE for row in rows)
    rest = f"; {missing} files of what is not there yet" if missing else ""
    console.print(f"{agree} of {len(rows)} numbers agree{rest}.")
    return 0 if agree == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
