"""Zhou, Song, Chen, Zhou, Wang, Yuan, Zhang: Rethinking Soft Labels for Knowledge Distillation:

A Bias-Variance Tradeoff Perspective. ICLR 2021, arXiv:2102.00650.

    L   = T² (1/B) sum_i w_i H( softmax(z_i^t / T), softmax(z_i^s / T) )
    w_i = 1 - exp( -H_i^s / H_i^t )

H(p, q) = -sum p log q; H_i^s and H_i^t are the cross-entropies of student and teacher with the
label, at temperature 1; z [B, K] logits. Sum over classes, mean over the batch. An image that the
student already knows better than its teacher does adds variance reduction at the price of bias:
its soft label counts less. No gradient passes through w.

As the authors' code: 1e-7 is added to H^t, so that w is 1 where the teacher alone is certain and 0
where both are, and the soft term is the cross-entropy, w T² H(p^t) above the divergence with the
same gradient. Their objective is CE + alpha L.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdcli.contracts import Batch, Features
from kdcli.losses import Context, Loss
from kdcli.losses.kd import wide

EPSILON = 1e-7


@torch.no_grad()
def sample_weights(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """w in [0, 1], larger where the student is behind; [B, K], [B, K], [B] -> [B].

    >>> logits = torch.tensor([[0.0, 0.0]])
    >>> sample_weights(logits, logits, torch.tensor([0]))  # 1 - 1/e
    tensor([0.6321])
    """
    hard_s, hard_t = (
        F.cross_entropy(wide(logits), labels, reduction="none") for logits in (student, teacher)
    )
    return -torch.expm1(-(hard_s / (hard_t + EPSILON)).clamp(min=0))


class WSLD(Loss):
    """Cross-entropy with softened labels, weighted image by image."""

    reads = frozenset({"logits"})

    def __init__(self, ctx: Context, temperature: float = 4.0):
        super().__init__(ctx)
        self.temperature = temperature

    def forward(self, student: Features, teacher: Features, batch: Batch) -> Tensor:
        answer, target = student.logits, teacher.logits.detach()
        weights = sample_weights(answer, target, batch.labels)
        soft = F.cross_entropy(
            wide(answer) / self.temperature,
            (wide(target) / self.temperature).softmax(1),
            reduction="none",
        )
        return self.temperature**2 * (weights * soft).mean()
