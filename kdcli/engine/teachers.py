"""What answers `features(batch)` and is never trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kdcli.contracts import Batch, Features
from kdcli.models.network import Network


class Teacher:
    """What answers `features` and is never trained.

    The host tells it what is coming, since rows and views are known before they are trained.
    """

    def features(self, batch: Batch) -> Features:
        """Features of the batch: a function of device tensors only."""
        raise NotImplementedError

    def ahead(self, epoch: int, step: int) -> None:
        """Called before every step, outside of it."""

    def keep(self) -> None:
        """Called where training may end: put on disk what is worth it."""


class Frozen(Teacher):
    """A trained network in evaluation mode, without gradient; its statistics never move."""

    def __init__(self, network: Network):
        self.network = network.eval()

    @torch.no_grad()
    def features(self, batch: Batch) -> Features:
        """Features of the batch, and of its further views in `others`."""
        others = tuple(self.network.features(images) for images in batch.others)
        return self.network.features(batch.images)._replace(others=others)


class Ensemble(Teacher):
    """Several teachers that answer as one; what each of them shows is in `members`."""

    def __init__(self, teachers: Sequence[Teacher]):
        self.teachers = tuple(teachers)

    def features(self, batch: Batch) -> Features:
        """What all of them show of the batch, and of its further views in `others`."""
        return together([teacher.features(batch) for teacher in self.teachers])

    def ahead(self, epoch: int, step: int) -> None:
        for teacher in self.teachers:
            teacher.ahead(epoch, step)

    def keep(self) -> None:
        for teacher in self.teachers:
            teacher.keep()


def together(members: Sequence[Features]) -> Features:
    """The answer of several teachers; logits [B, K] each -> the same shape, their mean.

    Softened at any temperature, the mean of logits is the geometric mean of the members' predicted
    distributions, which Hinton et al. (arXiv:1503.02531, section 1) name beside the arithmetic one
    as the target that an ensemble gives. `pooled` [B, sum of D_i] is theirs side by side: what a
    linear classifier would have to see to give that mean; either is None where the members leave it
    out. There are no stages: of networks that differ they have no common shape, and a loss that
    reads them is built for each member (`kdcli.losses.EachTeacher`).
    """
    logits = [shown.logits for shown in members if shown.logits is not None]
    pooled = [shown.pooled for shown in members if shown.pooled is not None]
    return Features(
        torch.stack(logits).mean(0) if logits else None,
        torch.cat(pooled, dim=1) if pooled else None,
        others=tuple(map(together, zip(*(shown.others for shown in members), strict=True))),
        members=tuple(members),
    )
