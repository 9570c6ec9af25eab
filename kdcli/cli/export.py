"""`kdcli export onnx|safetensors`: a trained network as files to deploy, verified first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kdcli.cli import options as o
from kdcli.errors import KdcliError, unknown

FORMATS = ("onnx", "safetensors")
NAMES = {
    "input_kind": "input",
    "images": "test images compared",
    "max_difference": "largest difference of a logit",
    "tolerance": "allowed",
    "agreement": "same top-1, %",
    "top1_file": "top-1 of the file on them, %",
    "top1_torch": "top-1 of torch on them, %",
    "sha_weights": "SHA-256 of the weights",
}


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel=o.DEPLOY)(export)


def export(
    format: Annotated[
        str,
        typer.Argument(
            help="onnx: one verified file. safetensors: weights, config.json and a model card.",
            autocompletion=lambda incomplete: [f for f in FORMATS if f.startswith(incomplete)],
        ),
    ],
    run: o.RunName = "",
    model: Annotated[
        str, typer.Option(help="The architecture of a checkpoint that does not say it.")
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File or folder; beside the run if absent."),
    ] = None,
    input: Annotated[
        str, typer.Option(help="What the ONNX file takes: uint8 pixels, or float in [0, 1].")
    ] = "uint8",
    images: Annotated[
        int, typer.Option(min=1, help="Test images on which the ONNX file must answer as torch.")
    ] = 1000,
    opset: Annotated[int | None, typer.Option(help="ONNX opset; 18 if absent.")] = None,
    dataset: Annotated[
        str, typer.Option(autocompletion=o.complete_dataset, help="Images to verify with.")
    ] = "",
    data_dir: o.DataDir = Path("data"),
    run_dir: o.RunDir = Path("runs"),
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write a network for deployment and compare it with torch before it counts.

    Example: kdcli export onnx   or: kdcli export safetensors --run mcld-... -o student
    """
    from kdcli import data
    from kdcli.cli import pick, screen

    screen.quieten(quiet)
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    picked = pick.pick(run, run_dir)
    network, told = pick.read(picked, model)
    name = picked.run.name if picked.run else picked.path.stem
    default = picked.path.parent / (f"{name}.onnx" if format == "onnx" else f"{name}-safetensors")
    target = output or default
    screen.resolved(
        "",
        {
            "network": (picked.path, picked.origin),
            "output": (target, "--output" if output else "beside the network"),
        },
    )
    if format == "safetensors":
        result = _safetensors(network, target, told)
    else:
        loaded = data.load(pick.dataset_of(picked, told, dataset), data_dir)
        test = [tensor[:images] for tensor in loaded.test]
        result = _onnx(network, target, told, loaded, test, input, opset)
    _show(result, json)


def _onnx(
    network: Any,
    target: Path,
    told: dict[str, Any],
    loaded: Any,
    test: list[Any],
    kind: str,
    opset: int | None,
) -> dict[str, Any]:
    from dataclasses import asdict

    from kdcli.cli import screen
    from kdcli.export.onnx import export_onnx

    mean, std = told.get("mean") or loaded.mean, told.get("std") or loaded.std
    told = {"dataset": loaded.name, "class_names": list(loaded.classes), **told}
    with screen.console.status("exporting, then comparing with torch on real images"):
        report = export_onnx(
            network,
            target,
            dataset_images=test[0],
            labels=test[1],
            mean=mean,
            std=std,
            info=told,
            input_kind=kind,
            opset=opset,
        )
    return {**asdict(report), "path": str(report.path)}


def _safetensors(network: Any, target: Path, told: dict[str, Any]) -> dict[str, Any]:
    from dataclasses import asdict

    from kdcli.export.safetensors import export_safetensors

    if not all(told.get(key) for key in ("mean", "std", "size")):
        raise KdcliError(
            "this checkpoint does not say its normalisation; only a run of kdcli is exported so."
        )
    mean, std, size = told["mean"], told["std"], told["size"]
    report = export_safetensors(network, target, mean=mean, std=std, size=size, info=told)
    return {**asdict(report), "path": str(report.path)}


def _show(result: dict[str, Any], as_json: bool) -> None:
    from kdcli.cli import screen

    if as_json:
        screen.emit(result)
        return
    rows = [[NAMES.get(key, key), _text(value)] for key, value in result.items()]
    screen.out.print(screen.table("", ["exported", ""], rows))
    if result["path"].endswith(".onnx"):
        screen.console.print(f"Next: [bold]kdcli eval {result['path']}[/bold]")


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
