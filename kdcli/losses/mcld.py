"""Wang, Zhou: Multi-perspective Contrastive Logit Distillation. 2024, arXiv:2411.10693v1.

    u = z^s / |z^s|, v = z^t / |z^t|    of the logits [B, K]; s(i, k) = u_i · k / tau
    L_I = -(1/B) sum_i log e^s(i, v_i) / ( e^s(i, v_i) + sum_{q in queue} e^s(i, q) )      instance
    L_S = -(1/B) sum_i log e^s(i, v_i) / sum_{j=1..B} e^s(i, v_j)                          sample
    L_C = -(1/|V|) sum_{i in V} (1/|P_i|) sum_{p in P_i} log e^s(i, v_p) / sum_{a≠i} e^s(i, v_a)
    L   = L_I + L_S + L_C                                                         category: L_C

P_i are the batch's other samples of i's class, V the samples that have any. The queue holds the
normalised teacher logits of the last training images, overwritten oldest first after the step.

No code was published and the text leaves choices open. Each is an argument, its default first:
  instance, sample, category   weights of the three parts; a part of weight 0 is not computed
  temperature       tau of all parts; sample_temperature and category_temperature set theirs apart
  transform         normalise | raw | zscore | softmax: of the logits, before the dot product
  queue             its length; 0 stands for the number of training images
  start             random unit rows | zeros | filled: count only rows that have been written
  own, same         keep | mask: queue rows of the image itself, of images of its class
  direction         student | both: L_S with the teachers as anchors too, the mean of both
  against           teacher | student | both: whose rows L_C compares the student's with
  form              out | in | ratio | negatives: see `category_loss`
  diagonal          count the teacher's row of the same image as a positive of L_C
  lonely            skip | zero: anchors without a positive leave the mean, or count as 0 in it
Several processes compare with, and remember, the teacher's rows of all.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kdcli.contracts import Batch, Features
from kdcli.errors import KdcliError, unknown
from kdcli.losses import Context, Loss
from kdcli.losses.kd import standardize, wide
from kdcli.ranks import gather, rank

TRANSFORMS = {
    "normalise": F.normalize,
    "raw": lambda logits: logits,
    "zscore": standardize,
    "softmax": lambda logits: logits.softmax(1),
}
CHOICES = {
    "transform": tuple(TRANSFORMS),
    "start": ("random", "zeros", "filled"),
    "own": ("keep", "mask"),
    "same": ("keep", "mask"),
    "direction": ("student", "both"),
    "against": ("teacher", "student", "both"),
    "form": ("out", "in", "ratio", "negatives"),
    "lonely": ("skip", "zero"),
}
EMPTY = -1e30  # finite, so that a row without a candidate has a gradient: zero


def instance_loss(positive: Tensor, negatives: Tensor) -> Tensor:
    """Cross-entropy with the positive among 1 + Q; [B], [B, Q] -> scalar.

    >>> instance_loss(torch.zeros(2), torch.zeros(2, 7))  # log 8
    tensor(2.0794)
    """
    return (torch.logaddexp(positive, negatives.logsumexp(1)) - positive).mean()


def category_loss(
    similarity: Tensor, positive: Tensor, candidate: Tensor, form: str
) -> tuple[Tensor, Tensor]:
    """One number an anchor, and which anchors have one; [B, M] three times -> [B], [B] bool.

    `positive` and `candidate` are masks; P positives, A candidates, N = A without P. By form:
      out        -mean_P log( e^s / sum_A e^s )
      in         -log( sum_P e^s / sum_A e^s )
      ratio      -log( mean_P e^s / mean_N e^s )
      negatives  -mean_P log( e^s / sum_N e^s )
    """
    negative = candidate & ~positive
    hits, misses = (mask.sum(1, dtype=similarity.dtype) for mask in (positive, negative))
    valid, below = hits > 0, candidate
    if form in ("ratio", "negatives"):
        valid, below = valid & (misses > 0), negative
    floor = similarity.masked_fill(~below, EMPTY).logsumexp(1)
    if form in ("in", "ratio"):
        top = similarity.masked_fill(~positive, EMPTY).logsumexp(1)
    else:
        top = similarity.masked_fill(~positive, 0.0).sum(1) / hits.clamp(min=1)
    if form == "ratio":
        floor, top = floor - misses.clamp(min=1).log(), top - hits.clamp(min=1).log()
    return torch.where(valid, floor - top, 0.0), valid


class MCLD(Loss):
    """Contrast of student with teacher logits: against a queue, inside the batch, by class."""

    reads = frozenset({"logits"})

    def __init__(
        self,
        ctx: Context,
        instance: float = 1.0,
        sample: float = 1.0,
        category: float = 1.0,
        temperature: float = 0.2,
        sample_temperature: float | None = None,
        category_temperature: float | None = None,
        transform: str = "normalise",
        queue: int = 65536,
        start: str = "random",
        own: str = "keep",
        same: str = "keep",
        direction: str = "student",
        against: str = "teacher",
        form: str = "out",
        diagonal: bool = False,
        lonely: str = "skip",
    ):
        super().__init__(ctx)
        given = locals()
        for key, allowed in CHOICES.items():
            if given[key] not in allowed:
                raise unknown(f"{key} of loss 'mcld'", str(given[key]), allowed)
            setattr(self, key, given[key])
        self.weights, self.diagonal = (instance, sample, category), diagonal
        apart = temperature, sample_temperature, category_temperature
        self.temperatures = [temperature if tau is None else tau for tau in apart]
        if instance:
            self._remember(queue or len(ctx.labels), ctx.teacher.logits.shape[1])
        self.seen: tuple[Tensor, ...] = ()

    def _remember(self, length: int, width: int) -> None:
        if length < 0:
            raise KdcliError(f"the queue of loss 'mcld' is {length}; set at least 1, or 0.")
        rows = TRANSFORMS[self.transform](torch.randn(length, width))
        self.register_buffer("queue", rows if self.start == "random" else torch.zeros_like(rows))
        for name in ("queue_index", "queue_label"):
            self.register_buffer(name, torch.full((length,), -1))  # -1: never written
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def forward(self, student: Features, teacher: Features, batch: Batch) -> Tensor:
        transform = TRANSFORMS[self.transform]
        rows, keys = transform(wide(student.logits)), transform(wide(teacher.logits.detach()))
        self.seen = gather(keys), gather(batch.labels), gather(batch.index)
        parts = zip(self.weights, (self.instances, self.samples, self.categories), strict=True)
        nothing = 0.0 * rows.sum()  # keeps a graph when every part is off, as in an ablation
        return sum((w * part(rows, keys, batch) for w, part in parts if w), nothing)

    def instances(self, rows: Tensor, keys: Tensor, batch: Batch) -> Tensor:
        """L_I; [B, K] student, [B, K] teacher -> scalar."""
        negatives = rows @ self.queue.T / self.temperatures[0]
        if self.start == "filled":
            negatives = negatives.masked_fill(self.queue_index < 0, EMPTY)
        if self.own == "mask":
            negatives = negatives.masked_fill(self.queue_index == batch.index[:, None], EMPTY)
        if self.same == "mask":
            negatives = negatives.masked_fill(self.queue_label == batch.labels[:, None], EMPTY)
        return instance_loss((rows * keys).sum(1) / self.temperatures[0], negatives)

    def samples(self, rows: Tensor, keys: Tensor, batch: Batch) -> Tensor:
        """L_S; [B, K] student, [B, K] teacher -> scalar."""
        own = torch.arange(len(rows), device=rows.device)
        every, first = self.seen[0], rank() * len(rows)
        loss = F.cross_entropy(rows @ every.T / self.temperatures[1], own + first)
        if self.direction == "student":
            return loss
        return (loss + F.cross_entropy(keys @ rows.T / self.temperatures[1], own)) / 2

    def categories(self, rows: Tensor, keys: Tensor, batch: Batch) -> Tensor:
        """L_C; [B, K] student, [B, K] teacher -> scalar."""
        every, labels, _ = self.seen
        blocks = []  # rows to compare with, their labels, the first of the own ones
        if self.against != "student":
            blocks.append((every, labels, rank() * len(rows), self.diagonal))
        if self.against != "teacher":  # this process's students alone: they carry the gradient
            blocks.append((rows, batch.labels, 0, False))
        losses = []
        for others, theirs, first, diagonal in blocks:
            same = batch.labels[:, None] == theirs
            other = torch.ones_like(same)
            if not diagonal:
                other[:, first : first + len(same)].fill_diagonal_(False)
            similarity = rows @ others.T / self.temperatures[2]
            each, valid = category_loss(similarity, same & other, other, self.form)
            count = valid.sum().clamp(min=1) if self.lonely == "skip" else len(same)
            losses.append(each.sum() / count)
        return sum(losses) / len(losses)

    @torch.no_grad()
    def after_step(self) -> None:
        """Write the batch over the oldest rows of the queue, around its end."""
        if self.seen and self.weights[0]:
            length = len(self.queue)
            keys, labels, index = (tensor[-length:] for tensor in self.seen)
            place = (self.pointer + torch.arange(len(keys), device=keys.device)) % length
            self.queue.index_copy_(0, place, keys.to(self.queue.dtype))
            self.queue_label.index_copy_(0, place, labels)
            self.queue_index.index_copy_(0, place, index)
            self.pointer.copy_((self.pointer + len(keys)) % length)
        self.seen = ()
