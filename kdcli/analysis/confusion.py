"""Which classes are taken for which, and images on which teacher and student disagree."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kdcli.analysis.answers import Answers


class Confusion(NamedTuple):
    """Images of one class that were answered with another."""

    label: int
    answer: int
    images: int
    share: float  # percent of the class's images


class Disagreement(NamedTuple):
    """A test image that one of two networks gets right."""

    image: int  # row of the test set
    label: int
    teacher: int  # its answer
    student: int
    sureness: tuple[float, float]  # percent: the teacher's, the student's probability of its answer


def confusions(answers: Answers, most: int) -> list[Confusion]:
    """The `most` frequent ones, the most frequent first; equal ones in the order of classes."""
    classes = answers.logits.shape[1]
    pairs = answers.labels * classes + answers.logits.argmax(1)
    counts = torch.bincount(pairs, minlength=classes**2).view(classes, classes)
    sizes = counts.sum(1)
    ranked = counts.clone().fill_diagonal_(0).flatten().sort(descending=True, stable=True)
    found = []
    for count, place in zip(ranked.values[:most].tolist(), ranked.indices.tolist(), strict=False):
        label, answer = divmod(place, classes)
        if count:
            found.append(Confusion(label, answer, count, 100 * count / int(sizes[label])))
    return found


def disagreements(teacher: Answers, student: Answers, each: int) -> list[Disagreement]:
    """At most `each` images that only the teacher gets right, then that only the student does.

    First those on which both are surest: by the probability that the right one gives to the label
    plus that which the wrong one gives to its answer.
    """
    best = [side.logits.double().softmax(1).max(1) for side in (teacher, student)]
    sure, said = zip(*best, strict=True)
    rights = [teacher.right, student.right]
    found = []
    for only in (rights[0] & ~rights[1], rights[1] & ~rights[0]):
        rank = torch.where(only, sure[0] + sure[1], -1.0).sort(descending=True, stable=True)
        rows = rank.indices[: min(each, int(only.sum()))]
        found += [_of(int(row), teacher.labels, said, sure) for row in rows]
    return found


def _of(
    row: int, labels: Tensor, said: tuple[Tensor, ...], sure: tuple[Tensor, ...]
) -> Disagreement:
    answers = (int(side[row]) for side in said)
    return Disagreement(
        row, int(labels[row]), *answers, tuple(100 * side[row].item() for side in sure)
    )
