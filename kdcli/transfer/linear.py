"""A linear classifier on features that are computed once: softmax regression by SGD."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdcli.data.plan import generator
from kdcli.errors import KdcliError

INITIAL = 0.01  # deviation of the classifier's first weights


@dataclass(frozen=True)
class Protocol:
    """How the classifier is trained; KdcliError for numbers that cannot be."""

    epochs: int = 120
    lr: float = 0.05
    milestones: Sequence[int] = (30, 60, 90)  # epochs after which the learning rate falls
    decay: float = 0.1  # what it is multiplied by
    batch: int = 64  # images; the last, short batch of an epoch counts too
    momentum: float = 0.9
    weight_decay: float = 0.0
    # Each feature minus its mean, over its deviation, both of the training images. A linear
    # classifier can say no more than before, but learns faster where features are badly scaled.
    standardize: bool = False

    def __post_init__(self) -> None:
        checks = {
            "epochs": self.epochs >= 1,
            "lr": 0 < self.lr < 1e6,
            "batch": self.batch >= 1,
            "momentum": 0 <= self.momentum < 1,
            "weight_decay": self.weight_decay >= 0,
        }
        for name, fine in checks.items():
            if not fine:
                raise KdcliError(f"a probe cannot have {name} = {getattr(self, name)}.")

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, from 0.

        >>> [round(Protocol().rate(epoch), 6) for epoch in (29, 30, 119)]
        [0.05, 0.005, 5e-05]
        """
        return self.lr * self.decay ** sum(epoch >= milestone for milestone in self.milestones)


def fit(
    inputs: Tensor, labels: Tensor, classes: int, protocol: Protocol, seed: int
) -> Iterator[Tensor]:
    """Train on inputs [N, D + 1] and labels [N] by cross-entropy; yields the weights each epoch.

    They are [D + 1, K], and the next epoch changes them in place. The gradient of a batch,
    inputsᵀ (softmax - one-hot) / B, is written out: the steps are many and small, and autograd
    would cost more than the arithmetic. The same seed, device and numbers give the same bits.
    """
    weight = INITIAL * torch.randn(inputs.shape[1], classes, generator=generator(seed, 0, 1))
    weight[-1] = 0
    weight = weight.to(inputs.device)
    velocity = torch.zeros_like(weight)
    one_hot = torch.eye(classes, device=inputs.device)
    for epoch in range(protocol.epochs):
        rate = protocol.rate(epoch)
        order = torch.randperm(len(labels), generator=generator(seed, epoch, 0)).to(inputs.device)
        batches = (tensor[order].split(protocol.batch) for tensor in (inputs, labels))
        for images, known in zip(*batches, strict=True):
            error = (images @ weight).softmax(1).sub_(one_hot[known])
            velocity.addmm_(images.T, error, beta=protocol.momentum, alpha=1 / len(images))
            if protocol.weight_decay:
                velocity.add_(weight, alpha=protocol.weight_decay)
            weight.sub_(velocity, alpha=rate)
        yield weight
