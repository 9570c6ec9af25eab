"""Batches for training and testing, from a dataset that lives on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kdcli.contracts import Batch
from kdcli.data import Dataset, Split, check_options
from kdcli.data.augment import Augment, normalise, scaled
from kdcli.data.plan import Plan, plan, rows
from kdcli.data.strong import Strong

__all__ = ["Loader", "normalise", "test_batches"]


class Loader:
    """The training batches of one rank; `batch` is the global batch over all ranks.

    `second_view`: "weak", crop and flip as the first, or "strong", `kdcli.data.strong` behind them.
    An epoch's plan goes to the device once. A step then slices, indexes and computes there: it
    reads nothing back and copies nothing over.
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
    ):
        check_options({"second_view": second_view})
        self.rows = rows(len(dataset.train.labels), batch, rank, world)
        self.seed, self.views, self.padding = seed, views, dataset.padding
        self.device = torch.device(device)
        self.labels = dataset.train.labels.to(self.device)
        self.augment = Augment(
            dataset.train.images, dataset.mean, dataset.std, dataset.padding, self.device
        )
        strong = views > 1 and second_view == "strong"
        self.strong = Strong(self.device) if strong else None
        self.planned: tuple[int, Plan | None] = (-1, None)
        self.notes = self.rows.notes

    @property
    def steps(self) -> int:
        """Batches an epoch, the short last one included."""
        return self.rows.steps

    def plan(self, epoch: int) -> Plan:
        """The plan of an epoch, on the device; the last one asked for is kept."""
        if epoch != self.planned[0]:
            strong = self.strong is not None
            drawn = plan(self.rows.count, self.seed, epoch, self.padding, self.views, strong)
            self.planned = epoch, Plan(*(tensor.to(self.device) for tensor in drawn))
        return self.planned[1]

    def gather(self, plan: Plan, positions: slice | Tensor) -> Batch:
        """The batch at these positions of the plan; a slice, or [B] int64 on the device.

        With a tensor it is a function of device tensors only, so that a captured step can move on.
        """
        index, view = plan.perm[positions], plan.view[:, positions]
        images, *others = (self.augment.cut(index, each) for each in view.unbind())
        if self.strong is not None:
            others[0] = self.strong(others[0], plan.draws[index])
        images, *others = map(self.augment.scaled, (images, *others))
        return Batch(images, self.labels[index], index, view[0], plan.epoch, tuple(others))

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """This rank's batches of an epoch, from `first_step` on: what a resumed run still owes."""
        planned = self.plan(epoch)
        for step in range(first_step, self.steps):
            yield self.gather(planned, self.rows.of(step))


def test_batches(
    split: Split,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str,
    batch: int = 500,
) -> Iterator[tuple[Tensor, Tensor]]:
    """`split` in order: images [B, 3, H, W] float32 normalised, channels last, and labels [B]."""
    if not isinstance(split.images, Tensor):
        from kdcli.data.stream import streamed_batches

        yield from streamed_batches(split, mean, std, device)
        return
    images, labels = split.images.to(device), split.labels.to(device)
    on = {"dtype": torch.float32, "device": device}  # once: the device is waited for
    mean, std = torch.tensor(mean, **on), torch.tensor(std, **on)
    for start in range(0, len(labels), batch):
        part = slice(start, start + batch)
        yield scaled(images[part].permute(0, 2, 3, 1), mean, std), labels[part]


test_batches.__test__ = False  # pytest collects by name
