"""CRD with a queue for its memory, the reading that the code giakoumoglou/distillers has of it.

Not the objective of Tian, Krishnan, Isola (arXiv:1910.10699), which is `kdcli.losses.crd`: the
noise-contrastive critic, the memories indexed by image and the teacher's direction are gone.

    u = E_s(f^s) / |E_s(f^s)|,  v = E_t(f^t) / |E_t(f^t)|            unit embeddings, [B, 128]
    s(i, k) = u_i · k / T
    L = -(1/B) sum_i log e^s(i, v_i) / ( e^s(i, v_i) + sum_{q in queue} e^s(i, q) )

InfoNCE (van den Oord, Li, Vinyals: arXiv:1807.03748, Eq. 4) of students over teachers. The queue
holds v of the last images and overwrites the oldest; no gradient enters it. Both linear embeddings
of the penultimate features are trained, E_t through v_i alone.

`enqueue` says when a batch enters the queue:
  before   before it is read: v_i stands among its own negatives too, and L >= log 2 (that code)
  after    after the step: the negatives are earlier batches alone

That code needs a queue whose length the batch size divides; here the queue is a ring, and a batch
may end anywhere. It starts with random unit rows; there they are normalised along the other axis,
which only the steps of the first round see. Several processes enqueue the rows of all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdcli.contracts import Batch, Features
from kdcli.errors import KdcliError, unknown
from kdcli.losses import Context, Loss
from kdcli.losses.kd import wide
from kdcli.losses.mcld import instance_loss
from kdcli.ranks import gather

MOMENTS = ("before", "after")


class CRDQueue(Loss):
    """Contrast of the student's embedding with the teacher's, against a queue of teachers."""

    reads = frozenset({"pooled"})

    def __init__(
        self,
        ctx: Context,
        queue: int = 16384,
        temperature: float = 0.07,
        dim: int = 128,
        enqueue: str = "before",
    ):
        super().__init__(ctx)
        if enqueue not in MOMENTS:
            raise unknown("enqueue of loss 'crd_queue'", enqueue, MOMENTS)
        if queue < 1:
            raise KdcliError(f"the queue of loss 'crd_queue' is {queue}; set at least 1.")
        self.temperature, self.enqueue = temperature, enqueue
        self.embed_student = nn.Linear(ctx.student.pooled.shape[1], dim)
        self.embed_teacher = nn.Linear(ctx.teacher.pooled.shape[1], dim)
        self.register_buffer("queue", F.normalize(torch.randn(queue, dim), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))  # the oldest row
        self.seen: Tensor | None = None

    def forward(self, student: Features, teacher: Features, batch: Batch) -> Tensor:
        rows = F.normalize(self.embed_student(wide(student.pooled)), dim=1)
        keys = F.normalize(self.embed_teacher(wide(teacher.pooled.detach())), dim=1)
        self.seen = gather(keys)
        # A copy: the buffer itself moves after the step, when the backward pass has read it.
        queue = self.queue
        if self.enqueue == "before":
            queue = queue.index_copy(0, self._slots(), self._newest())
        positive, negatives = (rows * keys).sum(1), rows @ queue.T
        return instance_loss(positive / self.temperature, negatives / self.temperature)

    def _newest(self) -> Tensor:
        """The batch's last rows, as many as the queue can hold; [Q or fewer, D]."""
        return self.seen[-len(self.queue) :]

    def _slots(self) -> Tensor:
        """The rows of the queue that they overwrite: from the oldest on, around the end."""
        steps = torch.arange(len(self._newest()), device=self.pointer.device)
        return (self.pointer + steps) % len(self.queue)

    @torch.no_grad()
    def after_step(self) -> None:
        """Put the batch's teacher embeddings in the place of the oldest."""
        if self.seen is None:
            return
        newest = self._newest()
        self.queue.index_copy_(0, self._slots(), newest)
        self.pointer.add_(len(newest)).remainder_(len(self.queue))
        self.seen = None
