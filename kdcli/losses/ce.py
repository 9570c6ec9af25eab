"""Cross-entropy with the labels: the task's own loss, and the baseline without a teacher.

    L = -(1/B) sum_i log softmax(z_i)[y_i]

z [B, K] student logits, y [B] labels. Mean over the batch, no label smoothing by default.
`view = 1` reads the logits of the batch's second view instead of those of the first.
"""

from torch import Tensor
from torch.nn import functional as F

from kdcli.contracts import Batch, Features
from kdcli.errors import KdcliError
from kdcli.losses import Context, Loss
from kdcli.losses.kd import wide


class CE(Loss):
    """Cross-entropy of the student's logits with the batch's labels; reads no teacher."""

    reads = frozenset()
    limits = (("smoothing", 0, 1),)

    def __init__(self, ctx: Context, smoothing: float = 0.0, view: int = 0):
        super().__init__(ctx)
        if view not in (0, 1):
            raise KdcliError(f"the view of loss 'ce' is 0 or 1, not {view!r}.")
        self.smoothing, self.view = smoothing, view
        self.views = view + 1

    def forward(self, student: Features, teacher: Features | None, batch: Batch) -> Tensor:
        logits = wide((student, *student.others)[self.view].logits)
        return F.cross_entropy(logits, batch.labels, label_smoothing=self.smoothing)
