"""Lee, Kim, Song: Self-Supervised Knowledge Distillation Using Singular Value Decomposition.
ECCV 2018, arXiv:1807.06819.

    R_j = exp( -( v_j[p] - v_{j-1}[q] )² / 8 )          v_j: leading right singular vectors of F_j
    L   = sum_j (1/B) sum over p, q of ( R_j^s - R_j^t )²

F_j are the stages behind the stem, each image of them a matrix. The teacher gives k vectors, times
its singular values, which are normalised over the k; the student gives k + 3, of which each
teacher's vector takes the one nearest in direction, with its sign. Sum over both vectors' entries
and k.

`matrix`: "channels" [H W, C] has vectors of C entries, so the networks need equal widths; "rows"
[C H, W], as a later code has it, vectors of W, so they need equal sides.

Two things are decided here that the public codes leave to chance. A singular vector's sign is
arbitrary, yet the loss depends on the teacher's signs from stage to stage: here a teacher's vector
has the sign that makes its sum positive. And the gradient of a decomposition is infinite where two
singular values coincide, as those of two dead channels do: such a pair is given none. The
decomposition waits for the device, so that a step with this loss is not captured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from kdcli.contracts import Batch, Features
from kdcli.errors import KdcliError, unknown
from kdcli.losses import Context, Loss
from kdcli.losses.at import described, stage_sizes
from kdcli.losses.kd import wide

MATRICES = {"channels": ("widths", 0), "rows": ("sides", 2)}  # what must agree, where in a size
SPARE = 3  # vectors of the student beyond those of the teacher, to choose from


class Leading(torch.autograd.Function):
    """Singular values and right singular vectors, the largest first; the values have no gradient.

    With A = X^T X, A v_j = s_j² v_j gives dv_j = (s_j² - A)⁺ dA v_j.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, matrices: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """[B, M, N] -> [B, k], [B, N, k] with k = min(count, M, N)."""
        left, values, right = torch.linalg.svd(matrices, full_matrices=False)
        ctx.save_for_backward(left, values, right)
        kept = values[:, :count].clone()
        ctx.mark_non_differentiable(kept)
        return kept, right[:, :count].mT.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, _: Tensor, gradient: Tensor) -> tuple[Tensor, None]:
        left, values, right = ctx.saved_tensors
        count = gradient.shape[2]
        squares = values.square()
        floor = torch.finfo(values.dtype).eps * max(left.shape[1], right.shape[2]) * squares[:, :1]
        gap = squares[:, None, :count] - squares[:, :, None]  # [B, rank, k]
        inside = right @ gradient
        known = gap.abs() > floor[:, None]
        spread = torch.where(known, inside / torch.where(known, gap, 1), 0)
        moved = right.mT @ spread
        if right.shape[1] < right.shape[2]:  # directions that A sends to 0
            wanted = squares[:, :count] > floor
            weight = torch.where(wanted, 1 / torch.where(wanted, squares[:, :count], 1), 0)
            moved = moved + (gradient - right.mT @ inside) * weight[:, None]
        scaled = left * values[:, None]  # X v_i, all i
        found = scaled[:, :, :count] @ moved.mT + scaled @ spread @ right[:, :count]
        return found, None


def matrices(maps: Tensor, matrix: str) -> Tensor:
    """Each image as a matrix; [B, C, H, W] -> [B, H W, C] or [B, C H, W]."""
    return maps.flatten(2).mT if matrix == "channels" else maps.flatten(1, 2)


def aligned(vectors: Tensor, targets: Tensor) -> Tensor:
    """The nearest vector of each target, turned to its side; [B, N, n], [B, N, k] -> [B, N, k]."""
    cosines = vectors.mT @ targets
    nearest = cosines.abs().argmax(1, keepdim=True)
    chosen = vectors.gather(2, nearest.expand(-1, vectors.shape[1], -1))
    return chosen * cosines.gather(1, nearest).sign()


def correlation(lower: Tensor, upper: Tensor) -> Tensor:
    """Gaussian of every two entries; [B, N, k], [B, N', k] -> [B, N', N, k]."""
    return (-(upper[:, :, None] - lower[:, None]).square() / 8).exp()


def correlation_losses(
    student: Sequence[Tensor], teacher: Sequence[tuple[Tensor, Tensor]]
) -> list[Tensor]:
    """From the student's vectors and the teacher's (values, vectors) of each stage; scalars."""
    losses: list[Tensor] = []
    before: tuple[Tensor, Tensor] | None = None
    for ours, (values, theirs) in zip(student, teacher, strict=True):
        weights = F.normalize(values, dim=1)[:, None]
        here = aligned(ours, theirs) * weights, theirs * weights
        if before:
            found, wanted = (correlation(*pair) for pair in zip(before, here, strict=True))
            losses.append((found - wanted).square().sum() / len(found))
        before = here
    return losses


class KDSVD(Loss):
    """Correlation of the leading singular vectors of neighbouring stages."""

    capturable = False
    limits = (("k", 1, math.inf),)

    def __init__(self, ctx: Context, k: int = 1, matrix: str = "channels"):
        super().__init__(ctx)
        if matrix not in MATRICES:
            raise unknown("matrix of loss 'kdsvd'", matrix, MATRICES)
        what, position = MATRICES[matrix]
        student, teacher = (sizes[1:] for sizes in stage_sizes(ctx, "kdsvd", least=3, as_many=True))
        if [size[position] for size in student] != [size[position] for size in teacher]:
            raise KdcliError(
                f"loss 'kdsvd' on \"{matrix}\" needs networks of equal {what}; behind the stem the "
                f"student shows {described(student)} and the teacher {described(teacher)}."
            )
        shapes = [matrices(x, matrix).shape[1:] for x in ctx.teacher.stages[1:]]
        if k > min(map(min, shapes)):
            raise KdcliError(
                f"loss 'kdsvd' has k = {k}, but a map of the teacher's, behind the stem "
                f"{described(teacher)}, has {min(map(min, shapes))} singular vectors."
            )
        self.k, self.matrix = k, matrix

    def forward(self, student: Features, teacher: Features, batch: Batch) -> Tensor:
        ours = [self._leading(x, self.k + SPARE)[1] for x in student.stages[1:]]
        theirs = [self._leading(x.detach(), self.k) for x in teacher.stages[1:]]
        theirs = [
            (values, vectors * torch.where(vectors.sum(1, keepdim=True) < 0, -1, 1))
            for values, vectors in theirs
        ]
        return torch.stack(correlation_losses(ours, theirs)).sum()

    def _leading(self, maps: Tensor, count: int) -> tuple[Tensor, Tensor]:
        return Leading.apply(matrices(wide(maps), self.matrix), count)
