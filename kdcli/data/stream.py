"""Batches of a dataset that stays on the disk: decoded by workers, some batches ahead.

Order and crops are functions of (seed, epoch, position) alone, as in `kdcli.data.plan`: a resumed
epoch goes on exactly, whatever the number of workers and ranks. The flip and the normalisation,
and where small images are padded and cropped that too, are done on the device by the code of
`kdcli.data.augment`, so that such a dataset gives the bits that it would give from memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from kdcli import ranks
from kdcli.contracts import Batch
from kdcli.data import Dataset, Split, check_options
from kdcli.data.ahead import SLOTS, Clock, ahead
from kdcli.data.augment import cut, scaled, windows
from kdcli.data.decoders import Decoders, Item, workers
from kdcli.data.pictures import Pictures
from kdcli.data.plan import Plan, plan, rows
from kdcli.data.strong import Strong

HINDERS = 0.1  # share of the time, waited for batches, from which the reader is told
TEST_BATCH = 100  # of 224x224: 15 MB, and 60 MB as a network is given them


class Stream:
    """The training batches of one rank, as `loader.Loader` gives them of a dataset in memory.

    `batch` is the global one over all ranks. `tell` hears, once, when training waits for the
    workers.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch: int,
        seed: int,
        device: torch.device | str,
        views: int = 1,
        second_view: str = "weak",
        rank: int = 0,
        world: int = 1,
        tell: Callable[[str], None] = lambda text: None,
    ):
        check_options({"second_view": second_view})
        self.rows = rows(len(dataset.train.labels), batch, rank, world)
        self.notes = self.rows.notes
        self.seed, self.views, self.padding = seed, views, dataset.padding
        self.pictures, self.share = dataset.train.images, batch // world
        self.device = torch.device(device)
        self.labels = dataset.train.labels.to(self.device)
        self.mean, self.std = _statistics(dataset.mean, dataset.std, self.device)
        strong = views > 1 and second_view == "strong"
        self.strong = Strong(self.device) if strong else None
        self.tell, self.decoders = tell, None

    @property
    def steps(self) -> int:
        """Batches an epoch, the short last one included."""
        return self.rows.steps

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """This rank's batches of an epoch, from `first_step` on: what a resumed run still owes."""
        strong = self.strong is not None
        drawn = plan(self.rows.count, self.seed, epoch, self.padding, self.views, strong)
        here = Plan(*(tensor.to(self.device) for tensor in drawn))
        if self.decoders is None:
            self.decoders = _decoders(self.pictures, self.share * self.views, self.device)
        clock = Clock()
        orders = self._orders(drawn.perm, epoch, first_step)
        for span, pixels in ahead(self.decoders, orders, self.device, clock):
            yield self._batch(here, span, pixels)
        if clock.share > HINDERS:
            self.tell(clock.verdict(self.decoders.count))
            self.tell = lambda text: None

    def _orders(self, perm: Tensor, epoch: int, first: int) -> Iterator[tuple[slice, list[Item]]]:
        """Positions of each batch and its files, the first view of all of them first."""
        for step in range(first, self.steps):
            span = self.rows.of(step)
            index = perm[span].tolist()
            yield (
                span,
                [
                    self.pictures.item(row, f"{self.seed} {epoch} {view} {position}")
                    for view in range(self.views)
                    for position, row in enumerate(index, span.start)
                ],
            )

    def _batch(self, plan: Plan, span: slice, pixels: Tensor) -> Batch:
        """A batch from its decoded pixels [V B, S, S, 3] uint8."""
        index, view = plan.perm[span], plan.view[:, span]
        row = torch.arange(len(index), device=self.device)
        images, *others = (
            cut(windows(part, self.padding), row, each)
            for part, each in zip(pixels.chunk(self.views), view, strict=True)
        )
        if self.strong is not None:
            others[0] = self.strong(others[0], plan.draws[index])
        images, *others = (scaled(each, self.mean, self.std) for each in (images, *others))
        return Batch(images, self.labels[index], index, view[0], plan.epoch, tuple(others))


def streamed_batches(
    split: Split, mean: Sequence[float], std: Sequence[float], device: torch.device | str
) -> Iterator[tuple[Tensor, Tensor]]:
    """What `loader.test_batches` gives, of a split of files: whole, or cut from the centre."""
    device = torch.device(device)
    statistics = _statistics(mean, std, device)
    labels = split.labels.to(device)
    count = len(labels)
    spans = [slice(at, min(at + TEST_BATCH, count)) for at in range(0, count, TEST_BATCH)]
    orders = (
        (span, [split.images.item(row) for row in range(span.start, span.stop)]) for span in spans
    )
    with _decoders(split.images, min(TEST_BATCH, count), device) as decoders:
        for span, pixels in ahead(decoders, orders, device, Clock()):
            yield scaled(pixels, *statistics), labels[span]


def _decoders(pictures: Pictures, images: int, device: torch.device) -> Decoders:
    """Workers, and room for some batches of so many images."""
    count = workers(ranks.world())
    pinned = device.type == "cuda"
    return Decoders(SLOTS * images, pictures.size, pictures.fit, count, pinned)


def _statistics(
    mean: Sequence[float], std: Sequence[float], device: torch.device
) -> tuple[Tensor, Tensor]:
    return tuple(torch.tensor(each, dtype=torch.float32, device=device) for each in (mean, std))
