"""How far a student answers as its teacher does, on images both or only one of them get right.

(Fidelity: Stanton, Izmailov, Kirichenko, Alemi, Wilson: Does Knowledge Distillation Really Work?
NeurIPS 2021, arXiv:2106.05945, Eq. 5-6: top-1 agreement, and the divergence of the predictions.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from kdcli.analysis import draw
from kdcli.analysis.draw import Piece
from kdcli.analysis.naming import listed
from kdcli.analysis.study import Study
from kdcli.errors import KdcliError
from kdcli.losses.kd import kl_divergence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = {
    "both right": draw.COLOURS[2],
    "only the student right": draw.COLOURS[5],
    "only the teacher right": draw.COLOURS[4],
    "both wrong, same answer": draw.COLOURS[3],
    "both wrong, other answers": draw.COLOURS[6],
}


class Fidelity(NamedTuple):
    """A student's answers beside its teacher's."""

    agreement: float  # percent of the images with the same top-1 answer
    divergence: float  # KL(teacher || student), nats, mean over the images, temperature 1
    parts: dict[str, float]  # percent of the images, by the keys of PARTS


def fidelity(teacher: Tensor, student: Tensor, labels: Tensor) -> Fidelity:
    """Of logits [N, K] each on the same images; labels [N]."""
    theirs, ours = teacher.argmax(1), student.argmax(1)
    known, mine, same = theirs == labels, ours == labels, theirs == ours
    masks = (known & mine, mine & ~known, known & ~mine, ~known & same, ~known & ~mine & ~same)
    shares = [100 * mask.double().mean().item() for mask in masks]
    return Fidelity(
        100 * same.double().mean().item(),
        kl_divergence(student.double(), teacher.double(), 1.0).item(),
        dict(zip(PARTS, shares, strict=True)),
    )


def pieces(study: Study) -> Iterator[Piece]:
    """One figure, a bar a student."""
    found = {}
    for subject in study.distilled:
        theirs = subject.teacher.answers
        told = fidelity(theirs.logits, subject.answers.logits, theirs.labels)
        found[f"{subject.name} / {subject.teacher.name}"] = told
    if not found:
        raise KdcliError(" ".join(subject.why_not for subject in study.subjects))
    yield Piece(
        "agreement",
        f"Agreement with the teacher, {study.place}: {listed(found)}",
        f"Student / teacher, over {len(study.dataset.test.labels):,} test images. Agreement: the "
        "same top-1 answer, right or wrong. KL: from the teacher's predictions to the student's, "
        "temperature 1, mean in nats.",
        {name: {"agreement": f.agreement, "kl": f.divergence} for name, f in found.items()},
        ["student / teacher", "agreement (%)", "KL (nats)", *(f"{part} (%)" for part in PARTS)],
        [[name, f.agreement, f.divergence, *f.parts.values()] for name, f in found.items()],
        lambda: _draw(found),
    )


def _draw(found: Mapping[str, Fidelity]) -> Figure:
    figure, ((axes,),) = draw.canvas(1, 1, 7.0, 1.1 + 0.45 * len(found))
    left = [0.0] * len(found)
    places = range(len(found))
    for part, colour in PARTS.items():
        widths = [each.parts[part] for each in found.values()]
        axes.barh(places, widths, left=left, height=0.7, color=colour, label=part)
        for place, (width, start) in enumerate(zip(widths, left, strict=True)):
            if width >= 6:  # narrower than its number
                text = f"{width:.0f}"
                axes.text(start + width / 2, place, text, ha="center", va="center", color="#000000")
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, each in zip(places, found.values(), strict=True):
        text = f"agree {each.agreement:.1f} %\nKL {each.divergence:.2f}"
        axes.text(101, place, text, va="center", fontsize=8)
    axes.set_yticks(places, [draw.wrapped(name) for name in found])
    axes.set(xlim=(0, 100), xlabel="test images (%)")
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    draw.legend_outside(figure, axes, "lower center", ncols=3)
    return figure
