"""Learning curves: accuracy, and each term of the objective, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kdcli.analysis import draw
from kdcli.analysis.draw import Piece
from kdcli.analysis.naming import listed
from kdcli.analysis.study import Study
from kdcli.errors import KdcliError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = dict[int, float]  # by epoch, from 1; a term of another phase has no value there
ACROSS = 3  # panels in a row
WIDE = 20.0  # largest over smallest loss from which its axis is logarithmic
TEST_ONLY = {"top1": "top-1 (%)", "top5": "top-5 (%)", "loss": "cross-entropy"}


def curves(log: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Curve]:
    """Every number of a log by (split, name); a train term is as weighted in the objective.

    >>> curves([{"epoch": 1, "train": {"ce": 2.0}, "test": {"top1": 9.0}}])
    {('train', 'ce'): {1: 2.0}, ('test', 'top1'): {1: 9.0}}
    """
    found: dict[tuple[str, str], Curve] = {}
    for record in log:
        for split in ("train", "test"):
            for name, value in record[split].items():
                found.setdefault((split, name), {})[record["epoch"]] = value
    return found


def pieces(study: Study) -> Iterator[Piece]:
    """One figure: a panel a number, a line a run."""
    logs = {subject.name: subject.run.log() for subject in study.subjects}
    found = {name: curves(log) for name, log in logs.items() if log}
    if not found:
        raise KdcliError("no run has a log of its epochs.")
    rows = (
        [run, split, name, epoch, value]
        for run, each in found.items()
        for (split, name), curve in each.items()
        for epoch, value in curve.items()
    )
    terms = list(dict.fromkeys(name for each in found.values() for split, name in each
                               if split == "train" and name not in TEST_ONLY))  # fmt: skip
    yield Piece(
        "curves",
        f"Learning curves, {study.place}: {listed(found)}",
        "Training values are means over an epoch, while the weights move and with augmentation; "
        "each term as weighted in its run's objective, so terms of other runs may have another "
        "scale. The test loss is plain cross-entropy.",
        {"terms": terms, "epochs": {name: len(logs[name]) for name in found}},
        ["run", "split", "name", "epoch", "value"],
        rows,
        lambda: _draw(found, terms),
    )


def _draw(found: Mapping[str, Mapping], terms: Sequence[str]) -> Figure:
    panels = [("test", "top1"), ("train", "top1"), ("test", "loss")]
    panels += [("train", term) for term in terms]
    rows = -(-len(panels) // ACROSS)
    figure, axes = draw.canvas(rows, ACROSS, 2.9, 2.4)
    for place, (split, name) in zip(axes.flat, panels, strict=False):
        for number, (run, each) in enumerate(found.items()):
            curve = each.get((split, name), {})
            # a run that lacks the term has an empty line: the legend is the same everywhere
            mark = "o" if len(curve) == 1 else None  # a single epoch is no line
            x, y = list(curve), list(curve.values())
            place.plot(x, y, label=run, marker=mark, **draw.line(number))
        place.set_title(f"{split}: {TEST_ONLY.get(name, f'{name}, weighted')}")
        draw.grid(place)
        values = [y for each in found.values() for y in each.get((split, name), {}).values()]
        if name != "top1" and min(values) > 0 and max(values) > WIDE * min(values):
            place.set_yscale("log")
            place.yaxis.set_major_formatter("{x:g}")  # matplotlib's own is mathematics
            place.yaxis.set_minor_formatter("")
        place.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    for place in axes.flat[len(panels) :]:
        place.axis("off")
    for place in axes.flat[max(0, len(panels) - ACROSS) : len(panels)]:
        place.set_xlabel("epoch")
    draw.legend_outside(figure, axes[0, 0])
    return figure
