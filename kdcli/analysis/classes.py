"""Which classes a student gains and loses, against its teacher and its undistilled self."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from kdcli.analysis import draw
from kdcli.analysis.draw import Piece
from kdcli.analysis.study import Study, Subject
from kdcli.errors import KdcliError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 40  # classes in a figure; of more, the most gained and the most lost


class Gains(NamedTuple):
    """One network minus another, class by class, on the same images; in percent points."""

    ours: Tensor  # [K] float64, accuracy of the one in percent
    theirs: Tensor  # [K] float64, of the other
    error: Tensor  # [K] float64, standard error of the difference over the class's images

    @property
    def difference(self) -> Tensor:
        """[K] ours - theirs."""
        return self.ours - self.theirs


def gains(ours: Tensor, theirs: Tensor, labels: Tensor, classes: int) -> Gains:
    """From [N] bool, right or wrong, of both, and labels [N]; NaN for a class without images.

    The difference is paired: an image on which both are right or wrong moves nothing.
    """
    count = torch.bincount(labels, minlength=classes)
    paired = ours.double() - theirs.double()

    def mean(values: Tensor) -> Tensor:
        return torch.bincount(labels, weights=values.double(), minlength=classes) / count

    spread = (mean(paired**2) - mean(paired) ** 2).clamp(min=0)
    return Gains(100 * mean(ours), 100 * mean(theirs), 100 * (spread / count).sqrt())


def pieces(study: Study) -> Iterator[Piece]:
    """A figure a student: a panel against its teacher, one against its undistilled self."""
    found = [subject for subject in study.subjects if subject.teacher or subject.alone]
    if not found:
        raise KdcliError(" ".join(subject.why_not for subject in study.subjects))
    for number, subject in enumerate(found, 1):
        yield _piece("classes" if number == 1 else f"classes-{number}", study, subject)


def _piece(name: str, study: Study, subject: Subject) -> Piece:
    others = {"undistilled": subject.alone} if subject.alone else {}
    if subject.teacher:
        others = {f"{subject.teacher.name} (teacher)": subject.teacher.answers, **others}
    classes, labels = study.dataset.classes, study.dataset.test.labels
    found = {
        other: gains(subject.answers.right, answers.right, labels, len(classes))
        for other, answers in others.items()
    }
    told = {}
    for other, each in found.items():
        change = each.difference
        told[other] = {
            "classes_gained": int((change > 0).sum()),
            "classes_lost": int((change < 0).sum()),
            "beyond_two_standard_errors": int((change.abs() > 2 * each.error).sum()),
        }
    return Piece(
        name,
        f"Accuracy by class, {study.place}: {subject.name} against {' and '.join(found)}",
        f"Percent points on the test images, {_shown(len(classes))}; whiskers are one standard "
        "error over a class's images. By chance alone about one class in twenty lies beyond two.",
        told,
        ["against", "class", "student (%)", "other (%)", "difference", "standard error"],
        (
            [other, classes[row], *values, values[0] - values[1], error]
            for other, each in found.items()
            for row, (*values, error) in enumerate(
                zip(*(part.tolist() for part in each), strict=True)
            )
        ),
        lambda: _draw(found, classes),
    )


def _shown(classes: int) -> str:
    half = SHOWN // 2
    every = "all classes"
    return every if classes <= SHOWN else f"the {half} most gained and {half} most lost classes"


def _draw(found: Mapping[str, Gains], classes: Sequence[str]) -> Figure:
    rows = min(len(classes), SHOWN)
    figure, axes = draw.canvas(1, len(found), 3.6, 1.0 + 0.155 * rows, sharex=True)
    for place, (other, each) in zip(axes[0], found.items(), strict=True):
        _panel(place, each, classes)
        place.set_title(f"against {other}")
    return figure


def _panel(axes: Axes, each: Gains, classes: Sequence[str]) -> None:
    order = each.difference.nan_to_num().sort(descending=True, stable=True).indices.tolist()
    if len(order) > SHOWN:
        order = order[: SHOWN // 2] + order[-SHOWN // 2 :]
        axes.axhline(SHOWN / 2 - 0.5, color=draw.INK, linewidth=0.7, linestyle=":")
    change = each.difference[order].tolist()
    colours = [draw.COLOURS[0] if value >= 0 else draw.COLOURS[1] for value in change]
    places = range(len(order))
    axes.barh(places, change, color=colours, height=0.75)
    axes.errorbar(
        change, places, xerr=each.error[order].tolist(), fmt="none", ecolor=draw.INK,
        elinewidth=0.6,
    )  # fmt: skip
    axes.axvline(0, color=draw.INK, linewidth=0.7)
    axes.set_yticks(
        places, [draw.clipped(classes[row].replace("_", " ")) for row in order], fontsize=7
    )
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlabel("student − other (points)")
    draw.grid(axes, "x")
