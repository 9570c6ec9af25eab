"""The epoch plan: the order of the images and the view of each, functions of (seed, epoch) alone.

So a mid-epoch resume needs no generator state, the order depends neither on workers nor on ranks,
and the view number is the key under which a bank keeps a teacher's answer.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor

from kdcli.data.strong import DRAWS
from kdcli.errors import KdcliError


class Plan(NamedTuple):
    """One epoch: position i trains image perm[i] as view[v, i]. N training images, V views."""

    perm: Tensor  # [N] int64
    view: Tensor  # [V, N] int64, flip * (2P+1)^2 + dy * (2P+1) + dx for padding P
    epoch: Tensor  # [] int64
    draws: Tensor  # [N, 7] in [0, 1) by training image: a strong second view; [0, 7] without one


class Rows(NamedTuple):
    """How batches lie in an epoch. The batch is the global one, divided evenly among the ranks."""

    count: int  # training images
    batch: int
    rank: int
    world: int
    last: int  # images of all ranks in a short last batch; 0: there is none
    left: int  # images that this division leaves out of each epoch

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return self.count // self.batch + (self.last > 0)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader should be told of this division."""
        if not self.left:
            return ()
        return (
            f"{self.left} of {self.count:,} images stay out of each epoch: the last batch must "
            f"divide evenly and batch norm needs 2 images a process (batch {self.batch}, "
            f"{self.world} process{'es' if self.world > 1 else ''}); which ones changes every "
            "epoch.",
        )

    def of(self, step: int) -> slice:
        """Positions of this rank in batch `step`: [k B + r B / W, k B + (r + 1) B / W)."""
        assert 0 <= step < self.steps, f"step {step} of {self.steps}"
        whole = self.batch if step < self.count // self.batch else self.last
        share = whole // self.world
        start = step * self.batch + self.rank * share
        return slice(start, start + share)


def views(padding: int) -> int:
    """How many views an image has: (2P+1)^2 crops, each with and without flip; 162 for padding 4.

    >>> views(4)
    162
    """
    return 2 * (2 * padding + 1) ** 2


def mixed(*numbers: int) -> int:
    """One number of 64 bits for each tuple of numbers."""
    text = " ".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    """A generator of its own for each (seed, epoch, stream), on the CPU on every machine."""
    return torch.Generator().manual_seed(mixed(seed, epoch, stream))


def plan(
    count: int, seed: int, epoch: int, padding: int, number: int = 1, strong: bool = False
) -> Plan:
    """The plan of an epoch for `count` images with `number` views each, on the CPU.

    Stream 0 orders the images, stream 1 + v draws view v, stream -1 what a strong view needs: a
    further view changes no other.
    """
    perm = torch.randperm(count, generator=generator(seed, epoch, 0))
    view = [
        torch.randint(views(padding), (count,), generator=generator(seed, epoch, 1 + stream))
        for stream in range(number)
    ]
    draws = torch.rand(count * strong, DRAWS, generator=generator(seed, epoch, -1))
    return Plan(perm, torch.stack(view), torch.tensor(epoch), draws)


def rows(count: int, batch: int, rank: int = 0, world: int = 1) -> Rows:
    """Divide `count` images into batches; KdcliError (usage) for a batch that cannot be trained.

    The last, short batch is kept (782 steps for 50,000 images of batch 64). Batch norm cannot
    train on a single image, so each rank needs two of every batch; what is left over stays out.
    """
    if batch < 2:
        raise KdcliError(
            f"batch is {batch}; batch norm needs at least 2 images a batch, so choose 2 or more."
        )
    if batch % world or batch // world < 2:
        raise KdcliError(
            f"batch {batch} over {world} processes must give each the same number of images, "
            f"at least 2: choose a multiple of {world}, {2 * world} or more."
        )
    assert 0 <= rank < world, f"rank {rank} of {world}"
    short = count % batch
    last = short - short % world
    if last < 2 * world:
        last = 0
    result = Rows(count, batch, rank, world, last, short - last)
    if result.steps == 0:
        raise KdcliError(
            f"{count} training images cannot fill a batch on {world} processes: "
            f"at least {2 * world} are needed."
        )
    return result
