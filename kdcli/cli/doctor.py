"""`kdcli doctor`: whether this machine has what kdcli needs, and what to do where it has not."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdcli.cli import options as o
from kdcli.errors import ENVIRONMENT, KdcliError

if TYPE_CHECKING:
    from kdcli.cli.work.machine import Check

COLOURS = {"ok": "green", "warning": "yellow", "wrong": "bold red"}
LARGE = 200  # megabytes of a dataset that is read only when asked
LITTLE, NOTHING = 5.0, 0.5  # GB of free disk: one large dataset; one run of a large network


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel=o.LOOK)(doctor)


def doctor(
    full: Annotated[
        bool, typer.Option("--full", help="Read the large datasets too, which takes minutes.")
    ] = False,
    data_dir: o.DataDir = Path("data"),
    run_dir: o.RunDir = Path("runs"),
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Check this machine: packages, threads, devices, folders, datasets, recipes.

    Leaves with exit code 6 if something needed is broken.

    Example: kdcli doctor
    """
    from kdcli.cli.show import screen

    screen.quieten(quiet)
    checks = []
    for check in examine(data_dir, run_dir, full):
        checks.append(check)
        if not json:
            _show(check)
    wrong = sum(check.state == "wrong" for check in checks)
    warned = sum(check.state == "warning" for check in checks)
    if json:
        screen.emit({"ok": not wrong, "checks": [check._asdict() for check in checks]})
    else:
        screen.console.print(f"{len(checks)} checks: {wrong} wrong, {warned} with a warning.")
    if wrong:
        raise typer.Exit(ENVIRONMENT)


def examine(data_dir: Path, run_dir: Path, full: bool = False) -> Iterator[Check]:
    """Every check, each as soon as it is done; one that breaks down is wrong and ends no other."""
    from kdcli.cli.work import machine
    from kdcli.cli.work.machine import Check, first_line

    groups: dict[str, Callable[[], Iterator[Check]]] = {
        "kdcli": machine.own,
        "packages": machine.packages,
        "threads": machine.threads,
        "devices": machine.devices,
        "onnx session": machine.runtime,
        "folders": lambda: folders({"--data-dir": data_dir, "--run-dir": run_dir}),
        "datasets": lambda: datasets(data_dir, full),
        "recipes": shipped,
    }
    for name, group in groups.items():
        try:
            yield from group()
        except Exception as error:  # whatever it is, it is a finding
            yield Check(name, "wrong", f"{type(error).__name__}: {first_line(error)}")


def folders(places: dict[str, Path]) -> Iterator[Check]:
    """Whether files can be written where data and runs go, and how many gigabytes are free."""
    from kdcli.cli.work.machine import OK, WARNING, WRONG, Check

    for option, path in places.items():
        path = path.expanduser().absolute()
        there = next(place for place in (path, *path.parents) if place.exists())
        try:
            with tempfile.TemporaryFile(dir=there):
                free = shutil.disk_usage(there).free / 1e9
        except OSError as error:
            found = f"{path} cannot be written: {error.strerror}"
            yield Check(option, WRONG, found, f"choose another folder with {option}")
            continue
        state = OK if free >= LITTLE else WARNING if free >= NOTHING else WRONG
        advice = "" if state == OK else f"free some, or choose another disk with {option}"
        made = "" if there == path else " (made when first used)"
        yield Check(option, state, f"{path}{made}, {free:,.1f} GB free", advice)


def datasets(data_dir: Path, full: bool) -> Iterator[Check]:
    """Which datasets are there; what is there is read, the large ones when asked."""
    from kdcli import data
    from kdcli.cli.work.machine import OK, WARNING, WRONG, Check

    for name, entry in data.TABLE.items():
        status = data.inspect(name, data_dir)
        if not status.ready:
            yield Check(name, WRONG if status.state == "broken" else OK, status.detail)
        elif entry.megabytes > LARGE and not full:
            yield Check(name, OK, f"{status.place}, not read; --full reads it")
        else:
            try:
                read = data.load(name, data_dir, download=False)
            except KdcliError as error:
                yield Check(name, WRONG, str(error))
                continue
            counts = f"{len(read.train.labels):,} + {len(read.test.labels):,} images"
            state = WARNING if read.notes else OK
            yield Check(name, state, f"{counts}, whole; {read.source}", " ".join(read.notes))


def shipped() -> Iterator[Check]:
    """Whether every shipped recipe can be read."""
    from kdcli import recipes
    from kdcli.cli.work.machine import OK, WRONG, Check

    faults = []
    for name in recipes.names():
        try:
            recipes.load(name)
        except KdcliError as error:
            faults.append(str(error))
    found = f"{len(recipes.names())} in {recipes.folder()}"
    if faults or not recipes.names():
        yield Check("recipes", WRONG, f"{found}; {' '.join(faults)}", "install kdcli again")
    else:
        yield Check("recipes", OK, found)


def _show(check: Check) -> None:
    from rich.markup import escape
    from rich.table import Table

    from kdcli.cli.show.screen import out

    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(width=7)
    row.add_column(width=13)
    row.add_column(overflow="fold")
    advice = f"\n[{COLOURS[check.state]}]{escape(check.advice)}[/]" if check.advice else ""
    state = f"[{COLOURS[check.state]}]{check.state}[/]"
    row.add_row(state, check.name, escape(check.found) + advice)
    out.print(row)
