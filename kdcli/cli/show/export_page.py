"""What `kdcli export` says of the file it wrote."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

NAMES = {
    "input_kind": "input",
    "images": "test images compared",
    "calibration_images": "training images calibrated on",
    "max_difference": "largest difference of a logit",
    "tolerance": "allowed",
    "agreement": "same top-1 as torch fp32, %",
    "top1_torch": "top-1 before, torch fp32, %",
    "top1_file": "top-1 after, the file, %",
    "sha_weights": "SHA-256 of the weights",
}


def show(result: dict[str, Any]) -> None:
    """What was written, how it compares with torch, how fast it is, and what to do next."""
    from kdcli.cli.show import screen

    lines = result.pop("latency", [])
    rows = [
        [NAMES.get(key, key), _text(value)] for key, value in result.items() if value is not None
    ]
    screen.out.print(screen.table("", ["exported", ""], rows))
    if lines:
        threads = f"{result['threads']} thread" + ("s" if result["threads"] > 1 else "")
        rows = [[line["runtime"], line["batch"], line["milliseconds"]] for line in lines]
        columns = [f"latency, {threads}", "images", "ms a batch, median"]
        screen.out.print()
        screen.out.print(screen.table("", columns, rows))
    if result["path"].endswith(".onnx"):
        path = escape(result["path"])
        screen.console.print(
            f"Next: [bold]kdcli eval {path}[/bold], [bold]kdcli predict {path} IMAGE[/bold]"
        )


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else escape(str(value))
