"""`kdcli analyse RUN...`: figures of finished runs, and the numbers that they show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdcli.cli import complete
from kdcli.cli import options as o
from kdcli.errors import KdcliError

if TYPE_CHECKING:
    from kdcli.analysis.study import Study
    from kdcli.runs import Run

Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN]...",
        autocompletion=complete.run,
        help="Names or folders of finished runs on one dataset; the newest student if absent.",
    ),
]
Only = Annotated[
    str,
    typer.Option(
        metavar="NAME,...",
        help="Some of time, curves, agreement, correlation, cka, tsne, classes, calibration.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel=o.JUDGE)(analyse)


def analyse(
    runs: Runs = None,
    only: Only = "",
    output: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=o.PLACES,
            help="Folder of the files; the run's own analysis/ or, of several runs, ./analysis.",
        ),
    ] = None,
    device: o.Device = "auto",
    threads: o.Threads = None,
    data_dir: o.DataDir = Path("data"),
    run_dir: o.RunDir = Path("runs"),
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Draw figures of finished runs: PNG and SVG, with their numbers as CSV and JSON.

    time: accuracy against training time. curves: every loss term by epoch.
    agreement: with the teacher. correlation: of the logits, teacher and student.
    cka: stages of both. tsne: of the penultimate features.
    classes: gains and losses by class. calibration: ECE, reliability.

    Example: kdcli analyse   or: kdcli analyse my-kd my-crd --only tsne,cka
    """
    from kdcli.analysis import draw, figures
    from kdcli.cli.show import comparison, screen
    from kdcli.cli.work import training
    from kdcli.files import environment_errors

    screen.quieten(quiet)
    kinds = figures.chosen(only)
    draw.check_installed()
    training.limit_threads(threads)
    picked = find(runs, run_dir)
    folder = output or (picked[0].path / "analysis" if len(picked) == 1 else Path("analysis"))
    made, skipped = [], {}
    with environment_errors(str(folder)):  # before anything long begins
        folder.mkdir(parents=True, exist_ok=True)
    with comparison.progress() as tell:
        study = study_of(picked, data_dir, device, tell)
        for kind, piece in figures.pieces(study, kinds, tell):
            if isinstance(piece, KdcliError):
                skipped[kind] = str(piece)
                continue
            files = [str(path) for path in draw.write(piece, folder)]
            made.append({"kind": kind, "title": piece.title, "files": files, **piece.summary})
    _show(made, skipped, json)
    if not made:
        raise KdcliError("no figure could be drawn of these runs.")


def find(asked: list[str] | None, run_dir: Path) -> list[Run]:
    """The runs that were asked for, each once; the newest student if there is none."""
    from kdcli import runs
    from kdcli.cli.work import pick

    if not asked:
        return [pick.pick("", run_dir).run]
    found = [runs.find(run_dir, name) for name in asked]
    return list({run.path.resolve(): run for run in found}.values())


def study_of(runs: list[Run], data_dir: Path, device: str, tell: Callable[[str], None]) -> Study:
    """The runs with their answers, and on the screen what there is to know of them."""
    from kdcli.analysis.study import study
    from kdcli.cli.show import screen
    from kdcli.engine.device import device_of

    made = study(runs, data_dir, device_of(device), tell)
    for note in made.dataset.notes:
        screen.note(note)
    rows = {s.name: (s.run.path, f"teacher {s.teacher.name}" if s.teacher else s.why_not)
            for s in made.subjects}  # fmt: skip
    screen.resolved("", rows)
    return made


def _show(made: list[dict[str, Any]], skipped: dict[str, str], as_json: bool) -> None:
    from rich.markup import escape

    from kdcli.cli.show import screen

    if as_json:
        screen.emit({"figures": made, "skipped": skipped})
        return
    rows = [[each["kind"], escape(each["files"][0])] for each in made]
    if rows:
        columns = ["figure", "file, with .svg, .csv and .json beside"]
        screen.out.print(screen.table("", columns, rows))
    for kind, reason in skipped.items():
        screen.note(f"{kind} is not drawn: {reason}")
    if made:
        screen.console.print("Next: [bold]kdcli report[/bold]")
