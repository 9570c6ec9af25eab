"""Cross-entropy with the labels: the task's own loss, and the baseline without a teacher.

    L = -(1/B) sum_i log softmax(z_i)[y_i]

z [B, K] student logits, y [B] labels. Mean over the batch, no label smoothing by default.
"""

from torch import Tensor
from torch.nn import functional as F

from kdcli.contracts import Batch, Features
from kdcli.losses import Context, Loss
from kdcli.losses.kd import wide


class CE(Loss):
    """Cross-entropy of the student's logits with the batch's labels; reads no teacher."""

    reads = frozenset()

    def __init__(self, ctx: Context, smoothing: float = 0.0):
        super().__init__(ctx)
        self.smoothing = smoothing

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        return F.cross_entropy(wide(student.logits), batch.labels, label_smoothing=self.smoothing)
