"""How the classes' logits vary together over the test images, in teacher and student.

A student that has learned what its teacher knows of the classes' likeness has the same matrix
(Tian, Krishnan, Isola: Contrastive Representation Distillation. ICLR 2020, arXiv:1910.10699,
Fig. 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from kdcli.analysis import draw
from kdcli.analysis.draw import Piece
from kdcli.analysis.naming import listed
from kdcli.analysis.study import Study, Subject
from kdcli.errors import KdcliError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS = 4  # students in one figure
NAMED = 12  # classes whose names fit beside the matrix


class Compared(NamedTuple):
    """Correlations of a student's logits beside its teacher's."""

    teacher: Tensor  # [K, K] float64
    student: Tensor  # [K, K] float64
    difference: Tensor  # [K, K] student - teacher
    mean: float  # of |difference| off the diagonal, which is 0 by construction
    largest: float  # |difference|


def correlation(logits: Tensor) -> Tensor:
    """Pearson correlation of the classes' logits; [N, K] -> [K, K] float64.

    A logit that never varies correlates with no other: 0.

    >>> correlation(torch.tensor([[0.0, 0.0, 5.0], [2.0, -2.0, 5.0]])).round(decimals=6)[0]
    tensor([ 1., -1.,  0.], dtype=torch.float64)
    """
    centred = logits.double() - logits.double().mean(0)
    length = centred.norm(dim=0)
    scaled = centred / torch.where(length > 0, length, 1.0)
    return (scaled.T @ scaled).fill_diagonal_(1.0)


def compare(teacher: Tensor, student: Tensor) -> Compared:
    """Logits [N, K] of both on the same images."""
    one, other = correlation(teacher), correlation(student)
    difference = other - one
    apart = ~torch.eye(len(one), dtype=torch.bool)
    size = difference.abs()
    return Compared(one, other, difference, size[apart].mean().item(), size.max().item())


def pieces(study: Study) -> Iterator[Piece]:
    """A figure for each teacher with its students, at most four of them side by side."""
    if not study.distilled:
        raise KdcliError(" ".join(subject.why_not for subject in study.subjects))
    number = 0
    for teacher in study.teachers:
        students = [s for s in study.distilled if s.teacher is teacher]
        for start in range(0, len(students), ACROSS):
            number += 1
            name = "correlation" if number == 1 else f"correlation-{number}"
            yield _piece(name, study, students[start : start + ACROSS])


def _piece(name: str, study: Study, students: list[Subject]) -> Piece:
    teacher, classes = students[0].teacher, study.dataset.classes
    found = {s.name: compare(teacher.answers.logits, s.answers.logits) for s in students}
    rows = (
        [student, classes[row], classes[column], *values]
        for student, each in found.items()
        for row, lines in enumerate(zip(each.teacher, each.student, strict=True))
        for column, values in enumerate(zip(*(line.tolist() for line in lines), strict=True))
        if column > row  # the matrices are symmetric
    )
    told = {name: {"mean": each.mean, "largest": each.largest} for name, each in found.items()}
    return Piece(
        name,
        f"Correlation of the {len(classes)} classes' logits, {study.place}: teacher "
        f"{teacher.name} and {listed(found)}",
        f"Pearson correlation over the {len(teacher.answers.labels):,} test images, classes in the "
        "dataset's order. The difference is student minus teacher: 0 everywhere would be a student "
        "whose classes are as alike as its teacher's. Mean and largest absolute difference off "
        "the diagonal.",
        {"difference": told, "teacher": teacher.name},
        ["student", "class", "other class", "correlation in teacher", "correlation in student"],
        rows,
        lambda: _draw(teacher.name, found, classes),
    )


def _draw(teacher: str, found: dict[str, Compared], classes: tuple[str, ...]) -> Figure:
    """Matrices on one scale, differences on another: two rows, or one for a single student."""
    one_row = len(found) == 1
    names = 0.08 * max(map(len, _shown(classes)), default=0)  # inches
    shape = (1, 3) if one_row else (2, 1 + len(found))
    figure, axes = draw.canvas(*shape, 3.0 + names, 2.9 + names)
    above = axes[0, :2] if one_row else axes[0]
    below = axes[0, 2:] if one_row else axes[1, 1:]
    if not one_row:
        axes[1, 0].axis("off")
    limit = max(each.largest for each in found.values()) or 1.0
    everyone = {f"{teacher} (teacher)": next(iter(found.values())).teacher}
    everyone |= {name: each.student for name, each in found.items()}
    for place, (name, values) in zip(above, everyone.items(), strict=True):
        shown = _heat(place, values, 1.0, draw.wrapped(name), classes)
    figure.colorbar(shown, ax=above, label="correlation", shrink=0.8)
    for place, (name, each) in zip(below, found.items(), strict=True):
        text = draw.wrapped(f"{name} − teacher")
        text += f"\nmean |Δ| {each.mean:.3f}, max {each.largest:.2f}"
        shown = _heat(place, each.difference, limit, text, classes)
    figure.colorbar(shown, ax=below, label="student − teacher", shrink=0.8)
    return figure


def _shown(classes: tuple[str, ...]) -> list[str]:
    """The names beside a matrix; none where they are too many."""
    return [draw.clipped(name, 16) for name in classes] if len(classes) <= NAMED else []


def _heat(axes: Any, values: Tensor, limit: float, title: str, classes: tuple[str, ...]) -> Any:
    image = axes.imshow(values.numpy(), cmap=draw.SIGNED, vmin=-limit, vmax=limit)
    axes.set_title(title)
    if shown := _shown(classes):
        axes.set_xticks(range(len(shown)), shown, rotation=90)
        axes.set_yticks(range(len(shown)), shown)
    else:
        axes.set_xlabel("class")
        axes.locator_params(nbins=5, integer=True)
    return image
