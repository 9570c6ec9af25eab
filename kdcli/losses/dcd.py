"""Giakoumoglou, Stathaki: Discriminative and Consistent Representation Distillation.

2024, arXiv:2407.11802.

    S    = scale · u v^T + b         u, v: unit embeddings of student and teacher, [B, 128]
    P[i] = softmax over teachers j of S[i, j]
    Q[i] = softmax over students j of S[j, i]
    L    = -(1/B) sum_i log P[i, i]  +  alpha (1/B) sum_i KL( Q[i] || P[i] )

Rows of S are the batch's students, columns its teachers: the B - 1 other samples are the negatives,
nothing is remembered. scale = min(exp(tau), 10). Both embeddings (linear, on the penultimate
features), tau and b are trained by the student's optimizer, as in the authors' last release that
could be launched. The gradient flows through P and Q.

Of `scale`: "learned" is the published method; "frozen" keeps exp(tau) as it starts and b at 0;
"multiply" is the code's own ablation, which multiplies by the temperature 0.07 where the paper's
text divides by it; "divide" is that text. b is added to every entry of S and so cancels in both
softmaxes: it is kept because checkpoints and optimizers of the reference have it.
Across several processes each contrasts its own rows, as the reference does. Its loader left out the
last, incomplete batch of an epoch from July 2024 on; here that batch is trained on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdcli.contracts import Batch, Features
from kdcli.errors import KdcliError, unknown
from kdcli.losses import Context, Loss
from kdcli.losses.kd import wide

SCALES = ("learned", "frozen", "multiply", "divide")
TEMPERATURE = 0.07  # the text's


def contrast(similarity: Tensor) -> Tensor:
    """Cross-entropy of each row with its diagonal, batch mean; [B, B] -> scalar.

    >>> contrast(torch.zeros(4, 4))  # log 4
    tensor(1.3863)
    """
    return F.cross_entropy(similarity, torch.arange(len(similarity), device=similarity.device))


def consistency(similarity: Tensor) -> Tensor:
    """KL(column softmax, transposed || row softmax), batch mean; [B, B] -> scalar.

    >>> consistency(torch.eye(3)).abs() < 1e-6  # a symmetric matrix sees the same both ways
    tensor(True)
    """
    rows, columns = similarity.log_softmax(1), similarity.log_softmax(0).T
    return F.kl_div(rows, columns, reduction="batchmean", log_target=True)


class DCD(Loss):
    """Discriminative and consistent embeddings inside the batch."""

    reads = frozenset({"pooled"})

    def __init__(
        self,
        ctx: Context,
        alpha: float = 0.5,
        dim: int = 128,
        scale: str = "learned",
        tau: float = 1.0,  # the scale starts at exp(tau)
        bias: float = 0.0,
        max_scale: float = 10.0,
        temperature: float | None = None,  # of "multiply" and "divide" alone: 0.07
    ):
        super().__init__(ctx)
        if scale not in SCALES:
            raise unknown("scale of loss 'dcd'", scale, SCALES)
        if temperature is not None and scale in ("learned", "frozen"):
            raise KdcliError(
                f"temperature of loss 'dcd' does nothing where scale is \"{scale}\"; set scale to "
                '"divide" (the text) or "multiply" (the code), or tau, where exp(tau) starts.'
            )
        self.alpha, self.mode, self.max_scale = alpha, scale, max_scale
        self.temperature = TEMPERATURE if temperature is None else temperature
        self.embed_student = nn.Linear(ctx.student.pooled.shape[1], dim)
        self.embed_teacher = nn.Linear(ctx.teacher.pooled.shape[1], dim)
        if scale == "learned":
            self.tau = nn.Parameter(torch.tensor(float(tau)))
            self.bias = nn.Parameter(torch.tensor(float(bias)))
        elif scale == "frozen":
            self.register_buffer("tau", torch.tensor(float(tau)))

    def similarity(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scaled cosines of every student with every teacher; [B, D_s], [B, D_t] -> [B, B]."""
        student = F.normalize(self.embed_student(wide(student)), dim=1)
        teacher = F.normalize(self.embed_teacher(wide(teacher.detach())), dim=1)
        cosines = student @ teacher.T
        if self.mode == "divide":
            return cosines / self.temperature
        if self.mode == "multiply":
            return cosines * self.temperature
        cosines = cosines * self.tau.exp().clamp(max=self.max_scale)
        return cosines + self.bias if self.mode == "learned" else cosines

    def forward(self, student: Features, teacher: Features, batch: Batch) -> Tensor:
        similarity = self.similarity(student.pooled, teacher.pooled)
        return contrast(similarity) + self.alpha * consistency(similarity)
