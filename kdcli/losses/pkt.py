"""Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer. ECCV 2018,
arXiv:1803.10837.

    S_ij = (1 + cos(f_i, f_j)) / 2,    P_ij = S_ij / sum_k S_ik
    L    = mean over i, j of P_ij^t log( (P_ij^t + eps) / (P_ij^s + eps) )

f [B, D] are the penultimate features, eps = 1e-7. The diagonal is kept. The paper sums over i and
j: `reduction = "sum"`, larger by B²; the code behind the published numbers takes the mean, and its
weight is 30000 for that. Across several processes each compares its own rows.
"""

from __future__ import annotations

from torch import Tensor

from kdcli.contracts import Batch, Features
from kdcli.errors import unknown
from kdcli.losses import Context, Loss
from kdcli.losses.kd import wide

EPSILON = 1e-7
REDUCTIONS = ("mean", "sum")


def affinities(rows: Tensor) -> Tensor:
    """How probable each row is from each; rows of sum 1; [B, D] -> [B, B].

    >>> import torch
    >>> affinities(torch.tensor([[2.0, 0.0], [0.0, 5.0]]))
    tensor([[0.6667, 0.3333],
            [0.3333, 0.6667]])
    """
    unit = rows / (rows.norm(dim=1, keepdim=True) + EPSILON)
    similarity = (unit @ unit.T + 1) / 2
    return similarity / similarity.sum(1, keepdim=True)


def transfer_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """P^t log(P^t / P^s) of every two rows; [B, D_s], [B, D_t] -> [B, B]."""
    student, teacher = affinities(student), affinities(teacher)
    return teacher * ((teacher + EPSILON) / (student + EPSILON)).log()


class PKT(Loss):
    """Which images of a batch a network takes for neighbours, as probabilities."""

    reads = frozenset({"pooled"})

    def __init__(self, ctx: Context, reduction: str = "mean"):
        super().__init__(ctx)
        if reduction not in REDUCTIONS:
            raise unknown("reduction of loss 'pkt'", reduction, REDUCTIONS)
        self.reduction = reduction

    def forward(self, student: Features, teacher: Features, batch: Batch) -> Tensor:
        divergence = transfer_loss(wide(student.pooled), wide(teacher.pooled.detach()))
        return divergence.mean() if self.reduction == "mean" else divergence.sum()
