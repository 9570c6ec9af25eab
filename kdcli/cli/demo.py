"""`kdcli demo`: the whole way once, on the embedded dataset, in about two minutes."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from kdcli.cli import options as o

TEACHER, STUDENT, DATASET = "tiny16", "tiny8", "shapes"
TEACH = ["--dataset", DATASET, "--epochs", "10"]
# A student with 30 labels a class: it is the teacher who has seen the rest. Recipe and learning
# rates (alone 0.05 to 0.4, distilled 0.05 to 0.2) served best on seeds that the demo does not use.
LEARN = ["--dataset", DATASET, "--train-per-class", "30", "--epochs", "150"]
RECIPE, ALONE, UNDER = "pkt+kd", "0.2", "0.2"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel=o.TRAIN)(demo)


def demo(
    seed: o.Seed = 0,
    device: o.Device = "auto",
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads; the networks are too small for more.")
    ] = 1,
    run_dir: o.RunDir = Path("runs"),
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Teach, distill, probe, evaluate and export on the embedded dataset: no download.

    Example: kdcli demo
    """
    from kdcli import runs
    from kdcli.cli.show import screen

    screen.quieten(quiet)
    began = time.monotonic()
    common = ["--run-dir", str(run_dir), "--device", device, "--seed", str(seed)]
    common += ["--threads", str(threads)]
    common += ["--quiet"] if quiet else []
    resume = ["--resume"]  # a demo that was stopped goes on
    student = ["--student", STUDENT, *LEARN]
    call("teach", TEACHER, *TEACH, *common, *resume)
    call("distill", "--recipe", "ce", *student, "--lr", ALONE, *common, *resume)
    call(
        "distill",
        "--recipe",
        RECIPE,
        "--teacher",
        TEACHER,
        *student,
        "--lr",
        UNDER,
        *common,
        *resume,
    )
    names = {
        "teacher": runs.default_name("teach", "teach", "", TEACHER, DATASET, seed),
        "student alone": runs.default_name("distill", "ce", "", STUDENT, DATASET, seed),
        "student distilled": runs.default_name("distill", RECIPE, TEACHER, STUDENT, DATASET, seed),
    }
    distilled, place = names["student distilled"], ["--run-dir", str(run_dir)]
    call("probe", DATASET, "--run", distilled, *place, *(["--quiet"] if quiet else []))
    call("eval", distilled, *place, *(["--quiet"] if quiet else []))
    call("export", "onnx", "--run", distilled, *place, *(["--quiet"] if quiet else []))
    told = {role: _told(runs.find(run_dir, name)) for role, name in names.items()}
    exported = run_dir / distilled / f"{distilled}.onnx"
    gain = told["student distilled"]["top1"] - told["student alone"]["top1"]
    result = {
        **told,
        "gain": gain,
        "exported": {"path": str(exported), "bytes": exported.stat().st_size},
        "seconds": round(time.monotonic() - began, 1),
    }
    if json:
        screen.emit(result)
        return
    _show(result)


def call(command: str, *arguments: str) -> None:
    """Say a command, then run it as if it had been typed; its table stays off standard output."""
    import contextlib
    import io
    import sys

    from kdcli.cli.main import app
    from kdcli.cli.show import screen

    screen.say(f"\n$ kdcli {shlex.join([command, *arguments])}", "bold green")
    with contextlib.redirect_stdout(io.StringIO() if screen.console.quiet else sys.stderr):
        app([command, *arguments], standalone_mode=False)


def _told(run: Any) -> dict[str, Any]:
    """A run's accuracy and size."""
    from kdcli.models import weights

    network, _ = weights.read(run.model)
    return {
        "run": run.name,
        "model": run.config["student"],
        "parameters": sum(p.numel() for p in network.parameters()),
        "bytes": run.model.stat().st_size,
        "top1": run.result["top1"],
    }


def _show(result: dict[str, Any]) -> None:
    from kdcli.cli.show import screen

    roles = ("teacher", "student alone", "student distilled")
    rows = [
        [role, told["model"], told["parameters"], told["bytes"], told["top1"]]
        for role, told in ((role, result[role]) for role in roles)
    ]
    columns = ["", "model", "parameters", "bytes", "top-1"]
    screen.out.print(screen.table("", columns, rows))
    exported = result["exported"]
    screen.out.print(
        f"Distillation gained {result['gain']:+.2f} points. "
        f"{exported['path']}: {exported['bytes']:,} bytes, verified against torch. "
        f"{screen.duration(result['seconds'])} in all."
    )
    screen.console.print(
        "Next: [bold]kdcli teach resnet32x4[/bold], then "
        "[bold]kdcli distill --recipe mcld --student resnet8x4[/bold]"
    )
