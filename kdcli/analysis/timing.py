"""Test accuracy against the time that training took, an epoch a point, for every run.

(Multi-perspective Contrastive Logit Distillation, Fig. 5, compares methods so.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from kdcli.analysis import draw
from kdcli.analysis.draw import Piece
from kdcli.analysis.naming import listed
from kdcli.analysis.study import Study
from kdcli.errors import KdcliError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = (":", (0, (4, 2)), (0, (6, 2, 1, 2)), (0, (1, 4)))  # dashes of teachers
UNITS = ((7200.0, "hours", 3600.0), (180.0, "minutes", 60.0), (0.0, "seconds", 1.0))


class Course(NamedTuple):
    """A run by its epochs, from 1."""

    seconds: list[float]  # of training so far, evaluation excluded
    top1: list[float]  # percent of the test images


def course(log: Sequence[Mapping[str, Any]]) -> Course:
    """What a log says of its epochs.

    >>> course([{"seconds": 2.0, "test": {"top1": 9}}, {"seconds": 3.0, "test": {"top1": 12}}])
    Course(seconds=[2.0, 5.0], top1=[9, 12])
    """
    seconds = accumulate(record["seconds"] for record in log)
    return Course(list(seconds), [record["test"]["top1"] for record in log])


def pieces(study: Study) -> Iterator[Piece]:
    """One figure of all runs; their teachers' accuracies are levels in it."""
    found = {subject.name: course(subject.run.log()) for subject in study.subjects}
    found = {name: each for name, each in found.items() if each.seconds}
    if not found:
        raise KdcliError("no run has a log of its epochs.")
    levels = {t.name: 100 * t.answers.right.double().mean().item() for t in study.teachers}
    rows = (
        [name, epoch, *point]
        for name, each in found.items()
        for epoch, point in enumerate(zip(*each, strict=True), 1)
    )
    yield Piece(
        "time",
        f"Test accuracy against training time, {study.place}: {listed(found)}",
        f"A point an epoch; training only, evaluation and the teacher's own training excluded. "
        f"{_machines(study)}",
        {
            "runs": {
                name: {"seconds": each.seconds[-1], "top1": each.top1[-1]}
                for name, each in found.items()
            }
        },
        ["run", "epoch", "training seconds", "test top-1 (%)"],
        rows,
        lambda: _draw(found, levels),
    )


def _machines(study: Study) -> str:
    """On what the runs were trained, and whether their times can be compared at all."""
    told = {subject.name: subject.run.result.get("machine", {}) for subject in study.subjects}
    facts = {
        name: f"{m.get('device_name')} ({m.get('device')}, {m.get('threads')} CPU threads)"
        for name, m in told.items()
    }
    if len(set(facts.values())) == 1:
        return f"All on {next(iter(facts.values()))}."
    each = "; ".join(f"{name} on {fact}" for name, fact in facts.items())
    return f"The machines differ, and so the times do not compare: {each}."


def _draw(found: Mapping[str, Course], levels: Mapping[str, float]) -> Figure:
    longest = max(each.seconds[-1] for each in found.values())
    unit, length = next((name, size) for least, name, size in UNITS if longest >= least)
    figure, ((axes,),) = draw.canvas(1, 1, 6.4, 3.8)
    for number, (name, each) in enumerate(found.items()):
        last = f"{name}: {each.top1[-1]:.2f} %"
        points = [seconds / length for seconds in each.seconds]
        marks = {"marker": draw.MARKERS[number % len(draw.MARKERS)], "markersize": 4}
        marks |= {"markevery": max(1, len(points) // 12)}
        axes.plot(points, each.top1, label=last, **draw.line(number), **marks)
    for number, (name, top1) in enumerate(levels.items()):
        dashes = LEVELS[number % len(LEVELS)]
        told = f"{name} (teacher): {top1:.2f} %"
        axes.axhline(top1, color=draw.INK, linewidth=1, linestyle=dashes, label=told)
    axes.set_xlabel(f"training time ({unit})")
    axes.set_ylabel("test top-1 (%)")
    axes.set_xlim(left=0)
    draw.grid(axes)
    draw.legend_outside(figure, axes)
    return figure
