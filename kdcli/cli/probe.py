"""`kdcli probe DATASET`: what the frozen penultimate features are worth on other images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kdcli.cli import options as o


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel=o.JUDGE)(probe)


def probe(
    dataset: Annotated[
        str,
        typer.Argument(
            autocompletion=o.complete_dataset,
            help="stl10, tinyimagenet, ... (kdcli datasets) or folder:PATH.",
        ),
    ],
    run: o.RunName = "",
    model: Annotated[
        str, typer.Option(help="The architecture of a checkpoint that does not say it.")
    ] = "",
    epochs: o.Epochs = None,
    batch_size: o.BatchSize = None,
    lr: o.Rate = None,
    settings: o.Settings = None,
    seed: o.Seed = 0,
    size: Annotated[int, typer.Option(help="Images are resized to this; published: 32.")] = 32,
    device: o.Device = "auto",
    threads: o.Threads = None,
    data_dir: o.DataDir = Path("data"),
    run_dir: o.RunDir = Path("runs"),
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Train a linear classifier on the frozen features of the newest student.

    Example: kdcli probe stl10   or: kdcli probe tinyimagenet --run teach-resnet32x4-cifar100-s0
    """
    from kdcli import data, recipes
    from kdcli.cli import pick, screen, training

    screen.quieten(quiet)
    training.limit_threads(threads)
    base = recipes.load("probe")
    recipe = training.adjusted(base, epochs, batch_size, lr, settings)
    picked = pick.pick(run, run_dir)
    network, told = pick.read(picked, model)
    origins = {"network": (picked.path, picked.origin), "dataset": (dataset, "argument")}
    training.show(base, recipe, training.Order(data_dir, run_dir, origins=origins))
    loaded = data.load(dataset, data_dir, size=size)
    for note in loaded.notes:
        screen.console.print(f"[yellow]{note}[/yellow]")
    result = {
        "network": str(picked.path),
        "model": network.architecture["name"],
        "trained_on": told.get("dataset"),
        "dataset": loaded.name,
        "seed": seed,
        **_probed(network, loaded, recipe, seed, device),
    }
    _show(result, json)


def _probed(network: Any, loaded: Any, recipe: Any, seed: int, device: str) -> dict[str, Any]:
    """The probe's scores as plain values, its progress on the screen meanwhile."""
    from dataclasses import asdict

    from rich.progress import Progress

    from kdcli.cli import screen
    from kdcli.engine.session import device_of
    from kdcli.transfer.probe import probe as train_classifier

    live = screen.console.is_terminal and not screen.console.quiet
    with Progress(console=screen.console, disable=not live, transient=True) as bars:
        task = bars.add_task("probe")
        result = train_classifier(
            network,
            loaded,
            epochs=recipe.epochs,
            lr=recipe.lr,
            milestones=recipe.milestones,
            batch=recipe.batch,
            momentum=recipe.optimizer["momentum"],
            weight_decay=recipe.optimizer["weight_decay"],
            seed=seed,
            device=device_of(device),
            report=lambda done, total, text: bars.update(
                task, completed=done, total=total, description=text
            ),
        )
    return asdict(result)


def _show(result: dict[str, Any], as_json: bool) -> None:
    from kdcli.cli import screen

    if as_json:
        screen.emit(result)
        return
    rows = [
        [key.replace("_", " "), f"{value:.2f}" if isinstance(value, float) else value]
        for key, value in result.items()
    ]
    screen.out.print(screen.table("", ["probe", ""], rows))
    screen.console.print("Next: [bold]kdcli eval[/bold], [bold]kdcli export onnx[/bold]")
