"""Small inputs by formula, for which values are known: float64, 4 samples, 6 classes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdcli.contracts import Batch, Features
from kdcli.losses import Context, Loss, build

POSITION = torch.arange(24, dtype=torch.float64).reshape(4, 6)
STUDENT = 2 * torch.sin(0.7 * POSITION + 0.3)  # logits
TEACHER = 3 * torch.cos(0.5 * POSITION - 0.2)
LABELS = torch.tensor([0, 2, 5, 2])


def hashed(shape: Sequence[int], stream: int) -> Tensor:
    """Numbers in [-1, 1) by position and stream, the same everywhere."""
    n = torch.arange(torch.Size(shape).numel())
    mixed = (7919 * n + 31 * (n % 101) * (n % 103) + 104729 * stream) % 10007
    return (mixed.double() / 10007 * 2 - 1).reshape(shape)


def features(logits: Tensor, pooled: Tensor | None = None) -> Features:
    """Features of a network without maps; logits stand in for the penultimate layer."""
    return Features(logits, logits if pooled is None else pooled)


def batch(labels: Tensor, index: Tensor | None = None, epoch: int = 0) -> Batch:
    """A batch of rows 0, 1, ... unless `index` says which."""
    zeros = torch.zeros(len(labels), dtype=torch.int64)
    index = torch.arange(len(labels)) if index is None else index
    return Batch(torch.zeros(len(labels), 3, 8, 8), labels, index, zeros, torch.tensor(epoch))


def loss(
    name: str,
    student: Features,
    teacher: Features | None,
    labels: Tensor = LABELS,  # of the training set
    **arguments: object,
) -> Loss:
    """The loss `name` built for these features, in their precision."""
    ctx = Context(student, teacher, None, student.logits.shape[1], labels, 240)
    return build(name, ctx, **arguments).to(student.pooled.dtype)


def value(name: str, **arguments: object) -> float:
    """The loss `name` of the standard logits."""
    student, teacher = features(STUDENT), features(TEACHER)
    return loss(name, student, teacher, **arguments)(student, teacher, batch(LABELS)).item()
