"""The loop that public distillation toolkits run, written out: what kdcli is measured against.

Images one at a time through PIL in worker processes, the teacher in every step, losses read by the
host for its meters at every step, one optimizer kernel after another for each tensor.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Sampler, default_collate

from kdcli.bench.literal_crd import LiteralCRD
from kdcli.bench.pillow import PillowDataset
from kdcli.bench.rates import synchronize
from kdcli.contracts import Batch
from kdcli.engine.update import Update
from kdcli.errors import ENVIRONMENT, KdcliError
from kdcli.losses import Loss
from kdcli.models.network import Network

AHEAD = 2  # batches that each worker prepares in advance: DataLoader's default
PATIENCE = 120.0  # seconds that the workers may take to fill their queue


@dataclass
class Parts:
    """What the loop trains; nothing of it is shared with another loop."""

    student: Network
    teacher: Network | None
    losses: Mapping[str, Loss | LiteralCRD]  # by term
    weights: Mapping[str, float]
    trained: list[nn.Parameter]
    frozen: list[nn.Module]  # parts that stay in evaluation mode
    lr: float
    optimizer: Mapping[str, object]  # settings of SGD ...
    update: Update | None = None  # ... or, where the recipe has another one, kdcli's
    views: int = 1  # of each image


class Shuffled(Sampler):
    """Every image once, then every image again, in another order, without end."""

    def __init__(self, count: int):
        self.count = count

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from torch.randperm(self.count).tolist()


class Collate:
    """The default, and a count of the batches that the workers have made."""

    def __init__(self) -> None:
        self.made = multiprocessing.Value("q", 0)

    def __call__(self, items: list) -> list:
        batch = default_collate(items)
        with self.made.get_lock():
            self.made.value += 1
        return batch


class Average:
    """A running mean on the host, as the toolkits keep one for each number they print."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, value: Tensor, count: int) -> None:
        self.total += value.item() * count  # the host waits for the device here
        self.count += count


class Textbook:
    """`Parts` trained on a `PillowDataset`; `close` ends its worker processes."""

    def __init__(
        self, parts: Parts, pictures: PillowDataset, batch: int, workers: int, device: torch.device
    ):
        self.parts, self.device = parts, device
        self.collate, self.taken, self.ahead = Collate(), 0, AHEAD * workers
        self.batches: Iterator | None = iter(
            DataLoader(
                pictures,
                batch_sampler=BatchSampler(Shuffled(len(pictures)), batch, drop_last=True),
                collate_fn=self.collate,
                num_workers=workers,
                prefetch_factor=AHEAD if workers else None,
            )
        )
        settings = {key: value for key, value in parts.optimizer.items() if key != "name"}
        self.optimizer = None
        if parts.update is None:
            self.optimizer = torch.optim.SGD(
                parts.trained, lr=parts.lr, **settings, foreach=False, fused=False
            )
        self.meters = {name: Average() for name in ("loss", "top1", "top5")}

    def close(self) -> None:
        """End the worker processes."""
        self.batches = None

    def seconds_per_step(self, steps: int, warm: int) -> float:
        """See `kdcli.bench.timing.Variant`.

        The queue of ready batches is full when the clock starts, and full again before it stops: so
        every batch that is trained on is also made on the clock, and none while others have their
        turn.
        """
        for _ in range(warm):
            self._step()
        self._fill()
        synchronize(self.device)
        began = time.perf_counter()
        for _ in range(steps):
            self._step()
        self._fill()
        synchronize(self.device)
        return (time.perf_counter() - began) / steps

    def _fill(self) -> None:
        """Wait until the workers have made all that they prepare in advance."""
        late = time.monotonic() + PATIENCE
        while self.collate.made.value < self.taken + self.ahead:
            if time.monotonic() > late:
                raise KdcliError(
                    "the textbook loop's workers make no batches; try --workers 0.", ENVIRONMENT
                )
            time.sleep(0.0005)

    def _step(self) -> None:
        parts = self.parts
        parts.student.train()
        for module in parts.frozen:
            module.eval()
        views, labels, index, contrast = next(self.batches)
        self.taken += 1
        images, *others = (view.to(self.device) for view in views)
        labels, index, contrast = (each.to(self.device) for each in (labels, index, contrast))
        epoch = torch.zeros((), dtype=torch.int64, device=self.device)
        batch = Batch(images, labels, index, torch.zeros_like(index), epoch, tuple(others))
        shown = _features(parts.student, batch)
        with torch.no_grad():
            taught = _features(parts.teacher, batch) if parts.teacher else None
        terms = {}
        for name, weight in parts.weights.items():
            loss = parts.losses[name]
            if isinstance(loss, LiteralCRD):
                terms[name] = weight * loss(shown.pooled, taught.pooled, index, contrast)
            else:
                terms[name] = weight * loss(shown, taught, batch)
        self._read(shown.logits, labels, sum(terms.values()))
        self._update(terms)

    def _read(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """The numbers of the progress line."""
        ranked = logits.detach().topk(min(5, logits.shape[1]), dim=1).indices
        hits = ranked.eq(labels[:, None])
        self.meters["loss"].add(loss.detach(), len(labels))
        self.meters["top1"].add(hits[:, :1].float().sum() * 100 / len(labels), len(labels))
        self.meters["top5"].add(hits.float().sum() * 100 / len(labels), len(labels))

    def _update(self, terms: Mapping[str, Tensor]) -> None:
        if self.optimizer is None:
            self.parts.update.step(terms, torch.tensor(self.parts.lr, device=self.device))
        else:
            self.optimizer.zero_grad()
            sum(terms.values()).backward()
            self.optimizer.step()
        for loss in self.parts.losses.values():
            if isinstance(loss, Loss):
                loss.after_step()


def _features(network: Network, batch: Batch) -> object:
    """What a network shows of all views of the batch."""
    others = tuple(network.features(images) for images in batch.others)
    return network.features(batch.images)._replace(others=others)
