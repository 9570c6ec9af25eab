"""`kdcli report RUN...`: one HTML file about finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcli.cli import options as o
from kdcli.cli.analyse import Runs, find, study_of
from kdcli.errors import KdcliError


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel=o.JUDGE)(report)


def report(
    runs: Runs = None,
    output: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=o.PLACES,
            help="The file; the run's own report.html or, of several runs, ./report.html.",
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
    """Write one HTML file: results, figures, settings, confusions, examples, provenance.

    It loads nothing from anywhere, so it can be sent as it is; it is readable on
    a phone, on paper and in the dark. It holds test images of the dataset, whose
    licence says who may see them.

    Example: kdcli report   or: kdcli report my-kd my-crd --output comparison.html
    """
    from rich.markup import escape

    from kdcli import files
    from kdcli.analysis import draw
    from kdcli.cli.show import comparison, screen
    from kdcli.cli.work import training

    screen.quieten(quiet)
    draw.check_installed()
    from kdcli.analysis.report import report as compose  # imports torch

    training.limit_threads(threads)
    picked = find(runs, run_dir)
    place = output or (picked[0].path if len(picked) == 1 else Path()) / "report.html"
    if place.is_dir():
        raise KdcliError(f"{place} is a folder; name the file to write.")
    with files.environment_errors(str(place)):  # before anything long begins
        place.parent.mkdir(parents=True, exist_ok=True)
    with comparison.progress() as tell:
        study = study_of(picked, data_dir, device, tell)
        text = compose(study, tell)
    with files.environment_errors(str(place)):
        files.write_text(place, text)
    if json:
        screen.emit({"file": str(place), "bytes": place.stat().st_size})
    else:
        screen.out.print(escape(f"{place}: {place.stat().st_size:,} bytes"), soft_wrap=True)
