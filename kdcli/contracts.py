"""What passes between the rooms: a batch of images, and what a network shows of one.

Models, losses and data do not know each other; each of them knows these two.
Letters: B batch, K classes, C channels, H and W height and width, D penultimate width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.utils._pytree import tree_map


class Features(NamedTuple):
    """What a network shows of one batch. Which tensor is which stage: `kdcli.models.network`."""

    logits: Tensor  # [B, K]
    pooled: Tensor  # [B, D] penultimate features: what the classifier sees
    stages: tuple[Tensor, ...] = ()  # [B, C_i, H_i, W_i], stem first, after the nonlinearity
    preacts: tuple[Tensor, ...] = ()  # the same maps before it
    others: tuple[Features, ...] = ()  # of the batch's further views (a loss with views = 2)
    members: tuple[Features, ...] = ()  # of each teacher of an ensemble
    last: Tensor | None = None  # [B, D, H, W] the map that is averaged into `pooled`


def mapped(work: Callable[[Tensor], Tensor], features: Features) -> Features:
    """`work` of every tensor of `features`, further views and members included."""
    return tree_map(lambda leaf: leaf if leaf is None else work(leaf), features)


class Batch(NamedTuple):
    """One training batch, all of it on the device."""

    images: Tensor  # [B, 3, H, W] float, normalised
    labels: Tensor  # [B] int64
    index: Tensor  # [B] int64, row of each image in the training set
    view: Tensor  # [B] int64, flip * (2P+1)^2 + dy * (2P+1) + dx for padding P
    epoch: Tensor  # [] int64, from 0; a tensor, so that a captured step sees it move
    others: tuple[Tensor, ...] = ()  # further views, each [B, 3, H, W]
