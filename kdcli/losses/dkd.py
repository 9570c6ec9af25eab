"""Zhao, Cui, Song, Qiu, Liang: Decoupled Knowledge Distillation. CVPR 2022, arXiv:2203.08679.

    L    = alpha · TCKD + beta · NCKD                                                   (Eq. 7)
    TCKD = T² (1/B) sum_i KL( (b_i^t, 1 - b_i^t) || (b_i^s, 1 - b_i^s) )
    NCKD = T² (1/B) sum_i KL( p̂_i^t || p̂_i^s )

b = softmax(z / T) at the label; p̂ the softmax over the other K - 1 classes; z [B, K] logits.
Sum over classes, mean over the batch. KD's own divergence is TCKD + (1 - b^t) NCKD, sample by
sample. The authors raise the weight of L over the first 20 epochs: `warmup` in the recipe.

The authors' code masks the label by subtracting 1000 from its logit. Here it is left out of the
sums instead: the same numbers, also in single precision, and a gradient without 0 · log 0 for
whatever learns through T or through the teacher's logits.
"""

import torch
from torch import Tensor

from kdcli.contracts import Batch, Features
from kdcli.losses import Context, Loss
from kdcli.losses.kd import standardize, wide


def decoupled(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    """TCKD and NCKD, each times T², batch mean; [B, K], [B, K], [B] -> two scalars.

    With two classes there is nothing to say about the one that is not the label:

    >>> logits = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 3.0]]).log1p()
    >>> decoupled(*logits, torch.tensor([0]), 1.0)
    (tensor(0.1927), tensor(0.))
    """
    student, teacher = wide(student) / temperature, wide(teacher) / temperature
    label = labels[:, None]
    target = label == torch.arange(student.shape[1], device=labels.device)
    rest_s, rest_t = (z.masked_fill(target, -torch.inf) for z in (student, teacher))
    every_s, every_t = student.logsumexp(1), teacher.logsumexp(1)
    others_s, others_t = rest_s.logsumexp(1), rest_t.logsumexp(1)
    hit_s, hit_t = (z.gather(1, label).squeeze(1) for z in (student, teacher))

    hit_t, hit_s = hit_t - every_t, hit_s - every_s  # log b
    miss_t, miss_s = others_t - every_t, others_s - every_s  # log(1 - b)
    tckd = hit_t.exp() * (hit_t - hit_s) + miss_t.exp() * (miss_t - miss_s)
    # finite at the label too, where softmax(rest_t) is exactly 0
    surplus = (teacher - others_t[:, None]) - (student - others_s[:, None])
    nckd = (rest_t.softmax(1) * surplus).sum(1)
    return temperature**2 * tckd.mean(), temperature**2 * nckd.mean()


class DKD(Loss):
    """Target-class and non-target-class divergence, weighted apart."""

    reads = frozenset({"logits"})

    def __init__(
        self,
        ctx: Context,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        standardize: bool = False,
    ):
        super().__init__(ctx)
        self.alpha, self.beta, self.temperature = alpha, beta, temperature
        self.standardize = standardize  # see kdcli.losses.kd

    def forward(self, student: Features, teacher: Features, batch: Batch) -> Tensor:
        logits = student.logits, teacher.logits.detach()
        if self.standardize:
            logits = tuple(map(standardize, logits))
        tckd, nckd = decoupled(*logits, batch.labels, self.temperature)
        return self.alpha * tckd + self.beta * nckd
