"""`kdcli predict [FILE.onnx|RUN] IMAGE...`: what images show, by a trained network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdcli.cli import complete
from kdcli.cli import options as o
from kdcli.cli.work.pick import FILES
from kdcli.errors import DATA, KdcliError

if TYPE_CHECKING:
    from kdcli.export.classify import Answered, Classifier


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel=o.DEPLOY)(predict)


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="[FILE.onnx|RUN] IMAGE",
            autocompletion=complete.run,
            help="A network, the newest student if absent; then images, or folders of them.",
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="Classes shown of each image.")] = 5,
    csv: Annotated[
        bool,
        typer.Option(
            "--csv", rich_help_panel=o.OUTPUT, help="Print file,rank,class,index,probability."
        ),
    ] = False,
    threads: o.Threads = None,
    run_dir: o.RunDir = Path("runs"),
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Name what images show, with probabilities; folders are searched through.

    An .onnx file needs onnxruntime alone. Of a run, its RUN.onnx answers if it is
    there, torch otherwise. Images are turned upright and resized as in training.
    What is no readable image is told and passed over; the exit code is then 3.

    Example: kdcli predict a.onnx cat.jpg photos/   or: kdcli predict cat.jpg
    """
    from kdcli.cli.show import screen

    screen.quieten(quiet)
    if json and csv:
        raise KdcliError("--json and --csv exclude each other; choose one.")
    network, places = _parted(sources, run_dir)
    classifier, told = _classifier(network, run_dir, threads)
    from kdcli.export import classify

    files = classify.find(places)
    size = f"{classifier.size}x{classifier.size}"
    fit = {"stretch": "whole image, stretched", "crop": "centre crop"}[classifier.fit]
    screen.resolved(
        "",
        {
            "network": told,
            "runtime": (classifier.runtime, f"{len(classifier.names):,} classes"),
            "images": (f"{len(files):,}", f"{size}, {fit}"),
        },
    )
    failed: list[Answered] = []
    grows = not json and screen.out.is_terminal  # lines that come as they are found need no bar
    answered = _told(classify.classify(classifier, files, top), failed)
    answered = answered if grows else _counted(answered, len(files))
    if json:
        _json(answered, failed)
    elif csv:
        _csv(answered)
    else:
        _lines(answered, files, classifier.names)
    if failed:
        some = ", ".join(str(one.file) for one in failed[:3]) + (", ..." if failed[3:] else "")
        raise KdcliError(
            f"{len(failed):,} of {len(files):,} images could not be read: {some}.", DATA
        )


def _parted(sources: list[str], run_dir: Path) -> tuple[str, list[str]]:
    """The network that was named, "" if none was, and the images."""
    first = Path(sources[0])
    marks = ("config.json", "model.safetensors")
    known = any((folder / mark).is_file() for folder in (first, run_dir / first) for mark in marks)
    network = known or first.suffix.lower() in FILES or not (first.exists() or first.suffix)
    if network and len(sources) == 1:
        raise KdcliError(
            f"no image was named: kdcli predict {sources[0]} IMAGE..., an image or a folder."
        )
    return (sources[0], sources[1:]) if network else ("", sources)


def _classifier(
    asked: str, run_dir: Path, threads: int | None
) -> tuple[Classifier, tuple[Path, str]]:
    """What answers, and its file with what chose it."""
    from kdcli.cli.work import pick
    from kdcli.export import classify

    if asked.lower().endswith(".pt2"):
        raise KdcliError(f"{asked} is for torch.export.load; name an .onnx file or a run.")
    if asked.lower().endswith(".onnx"):
        return classify.of_onnx(Path(asked), threads or 0), (Path(asked), "argument, a file")
    picked = pick.pick(asked, run_dir)
    if picked.run:
        beside = picked.path.with_name(f"{picked.run.name}.onnx")
        if beside.is_file() and beside.stat().st_mtime >= picked.path.stat().st_mtime:
            return classify.of_onnx(beside, threads or 0), (beside, picked.origin)
    from kdcli.cli.work import training

    training.limit_threads(threads)
    network, told = pick.read(picked, "")
    return classify.of_network(network, told, picked.path), (picked.path, picked.origin)


def _told(answered: Iterable[Answered], failed: list[Answered]) -> Iterator[Answered]:
    """Those that could be read; of the others the reason is told and the list kept."""
    from kdcli.cli.show import screen

    for one in answered:
        if one.error:
            screen.note(one.error)
            failed.append(one)
        else:
            yield one


def _counted(answered: Iterable[Answered], total: int) -> Iterator[Answered]:
    from kdcli.cli.show.bar import counting

    with counting("classifying") as report:
        for number, one in enumerate(answered, 1):
            report(number, total, "classifying")
            yield one


def _json(answered: Iterable[Answered], failed: list[Answered]) -> None:
    from kdcli.cli.show import screen

    images = []
    for one in answered:
        guesses = [
            {"class": guess.name, "index": guess.index, "probability": guess.probability}
            for guess in one.guesses
        ]
        images.append({"file": str(one.file), "predictions": guesses})
    errors = [{"file": str(one.file), "error": one.error} for one in failed]
    screen.emit({"images": images, "failed": errors})


def _csv(answered: Iterable[Answered]) -> None:
    import csv
    import sys

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["file", "rank", "class", "index", "probability"])
    for one in answered:
        for rank, guess in enumerate(one.guesses, 1):
            row = [one.file, rank, guess.name, guess.index, f"{guess.probability:.6g}"]
            writer.writerow(row)


def _lines(answered: Iterable[Answered], files: list[Path], names: tuple[str, ...]) -> None:
    """A table that grows as images are answered; its widths are known beforehand."""
    from rich.cells import cell_len

    from kdcli.cli.show.screen import out

    widths = [max(map(cell_len, column)) for column in (["image", *map(str, files)], names)]

    def row(style: str, file: str, name: str, chance: str) -> None:
        cells = [
            text + " " * (w - cell_len(text)) for text, w in zip((file, name), widths, strict=True)
        ]
        out.print("  ".join([*cells, chance]), markup=False, style=style, soft_wrap=True)

    row("bold", "image", "class", "probability")
    for one in answered:
        for rank, guess in enumerate(one.guesses):
            file = "" if rank else str(one.file)
            row("", file, guess.name, f"{100 * guess.probability:9.2f} %")
