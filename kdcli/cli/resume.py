"""`kdcli resume [RUN]`: go on where a run stopped."""

from pathlib import Path
from typing import Annotated

import typer

from kdcli.cli import complete
from kdcli.cli import options as o
from kdcli.errors import KdcliError


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel=o.TRAIN)(resume)


def resume(
    run: Annotated[
        str,
        typer.Argument(autocompletion=complete.run, help="The newest unfinished one if absent."),
    ] = "",
    device: o.Device = "auto",
    threads: o.Threads = None,
    workers: o.Workers = None,
    data_dir: o.DataDir = Path("data"),
    run_dir: o.RunDir = Path("runs"),
    log: o.Log = "",
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Go on where a run stopped, to the same bits as if it had not.

    Example: kdcli resume teach-resnet32x4-cifar100-s0
    """
    from kdcli import logs, runs
    from kdcli.cli.show import screen
    from kdcli.cli.work import grid, training

    screen.quieten(quiet)
    if run:
        found = runs.find(run_dir, run)
    else:
        unfinished = [r for r in runs.all_runs(run_dir) if r.state == "unfinished"]
        if not unfinished:
            raise KdcliError(f"no run in {run_dir} is unfinished.")
        found = unfinished[-1]
    count = threads or found.config["machine"]["threads"]
    training.limit_threads(count)
    config = {key: value for key, value in found.config.items() if key != "format"}
    config = grid.record_machine(config, count)
    order = training.Order(
        data_dir, found.path.parent, device, threads, found.name, resume=True, json=json,
        log=logs.chosen(log),
    )  # fmt: skip
    order.origins = {"run": (found.path, "argument" if run else "the newest unfinished run")}
    screen.resolved("", order.origins)
    result = training.train(training.Cell(config), order)
    grid.tell([result], "kdcli eval, kdcli export onnx", json)
