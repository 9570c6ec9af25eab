"""CRD as its equations read, with every vector gathered: what the public implementations do.

The formula is that of `kdcli.losses.crd`; here x[b, k] is computed from gathered rows, [B, 1 + n,
128] for each of the two memories, and the negatives are drawn by numpy for one image at a time.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from kdcli.losses.crd import CRD, EPSILON, unit


class Negatives:
    """Draws images of other classes, one row of the contrast at a time."""

    def __init__(self, labels: np.ndarray, count: int):
        """`labels` [N] of the training images, `count` negatives a row."""
        self.labels, self.count = labels, count
        self.others = [np.flatnonzero(labels != kind) for kind in range(labels.max() + 1)]

    def __call__(self, index: int) -> np.ndarray:
        """The image itself, then its negatives: [1 + n] int64."""
        others = self.others[self.labels[index]]
        replace = len(others) < self.count
        # The published code's call; a Generator's choice draws the same law three times as fast.
        drawn = np.random.choice(others, self.count, replace=replace)  # noqa: NPY002
        return np.concatenate([[index], drawn])


class LiteralCRD(nn.Module):
    """The loss of a `CRD`, whose embeddings it shares and whose memories it copies."""

    def __init__(self, crd: CRD):
        super().__init__()
        self.embed_student, self.embed_teacher = crd.embed_student, crd.embed_teacher
        self.temperature, self.momentum, self.images = crd.temperature, crd.momentum, crd.images
        self.negatives = crd.negatives
        self.register_buffer("memory_student", crd.memory_student.clone())
        self.register_buffer("memory_teacher", crd.memory_teacher.clone())
        self.register_buffer("z", torch.full((2,), -1.0))  # of student and teacher; -1: not set

    def forward(self, student: Tensor, teacher: Tensor, index: Tensor, contrast: Tensor) -> Tensor:
        """[B, D_s], [B, D_t] penultimate, [B] own rows, [B, 1 + n] -> a scalar; memories move."""
        rows_s = unit(self.embed_student(student))
        rows_t = unit(self.embed_teacher(teacher))
        out_s = self._scores(rows_s, self.memory_teacher, contrast)
        out_t = self._scores(rows_t, self.memory_student, contrast)
        loss = self._loss(self._over_z(out_s, 0)) + self._loss(self._over_z(out_t, 1))
        self._remember(self.memory_student, rows_s.detach(), index)
        self._remember(self.memory_teacher, rows_t.detach(), index)
        return loss

    def _scores(self, rows: Tensor, memory: Tensor, contrast: Tensor) -> Tensor:
        """[B, D], [N, D], [B, 1 + n] -> [B, 1 + n], through [B, 1 + n, D]."""
        batch, width = contrast.shape
        gathered = memory.index_select(0, contrast.view(-1)).view(batch, width, -1)
        products = torch.bmm(gathered, rows.unsqueeze(2)).squeeze(2)
        return (products / self.temperature).exp()

    def _over_z(self, scores: Tensor, side: int) -> Tensor:
        """Divided by the constant of the first batch, which the host reads at every step."""
        if self.z[side].item() < 0:
            self.z[side] = scores.detach().mean() * self.images
        return scores / self.z[side].item()

    def _loss(self, ratios: Tensor) -> Tensor:
        share = (ratios.shape[1] - 1) / self.images
        positive, negatives = ratios[:, 0], ratios[:, 1:]
        log_positive = (positive / (positive + share + EPSILON)).log()
        log_negative = (share / (negatives + share + EPSILON)).log()
        return -(log_positive.sum() + log_negative.sum()) / len(ratios)

    @torch.no_grad()
    def _remember(self, memory: Tensor, rows: Tensor, index: Tensor) -> None:
        moved = memory.index_select(0, index) * self.momentum + rows * (1 - self.momentum)
        memory.index_copy_(0, index, unit(moved))
