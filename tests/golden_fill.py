"""Weights and images by formula: a network's numbers can be recorded without its weights.

Entry k = 0, 1, 2, ... of the state dict, `num_batches_tracked` left out, and its element
j = 0, 1, 2, ... in row-major order give a number; everything is float64 unless the file says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

IMAGE = (3, 32, 32)  # the format's own: every recorded network is one for CIFAR
COUNTER = "num_batches_tracked"


class Fill(Protocol):
    """One of the two ways to make numbers out of positions."""

    prefix: str  # of the arrays that were recorded with it

    def signed(self, count: int, entry: int) -> Tensor:
        """[count] numbers in [-1, 1] for one entry."""

    def unit(self, signed: Tensor) -> Tensor:
        """The same numbers in [0, 1]."""

    def gain(self, fan_in: float) -> float:
        """What a weight matrix is multiplied by."""

    def images(self, batch: int, step: int | None = None) -> Tensor:
        """[batch, 3, 32, 32]: the one batch of a model's file, or that of a training step."""


class Sine(NamedTuple):
    """v = sin(a (j + 1) + b (k + 1))."""

    a: float
    b: float
    w: float  # of the images
    phase: float  # of the images, a step
    prefix: str = ""

    def signed(self, count: int, entry: int) -> Tensor:
        return torch.sin(self.a * _from_one(count) + self.b * (entry + 1))

    def unit(self, signed: Tensor) -> Tensor:
        return signed.abs()

    def gain(self, fan_in: float) -> float:
        return 1 / math.sqrt(fan_in)

    def images(self, batch: int, step: int | None = None) -> Tensor:
        angles = self.w * _from_one(batch * math.prod(IMAGE)) + self.phase * (step or 0)
        return torch.cos(angles).view(batch, *IMAGE)


class Hash(NamedTuple):
    """r = 2 u - 1, where u is the 32-bit finaliser of MurmurHash3 on a position, over 2^32."""

    salt: int
    prefix: str = "hash."

    def signed(self, count: int, entry: int) -> Tensor:
        return 2 * uniform(count, entry + 1, self.salt) - 1

    def unit(self, signed: Tensor) -> Tensor:
        return (signed + 1) / 2

    def gain(self, fan_in: float) -> float:
        return math.sqrt(6 / fan_in)

    def images(self, batch: int, step: int | None = None) -> Tensor:
        salt = self.salt if step is None else self.salt + 1000 * (step + 1)
        return (2 * uniform(batch * math.prod(IMAGE), 0, salt) - 1).view(batch, *IMAGE)


def fills(meta: Mapping[str, str]) -> tuple[Sine, Hash]:
    """Both fills with the constants of a file."""
    angles = (float(meta.get(key, 0)) for key in ("fill_a", "fill_b", "input_w", "input_phase"))
    return Sine(*angles), Hash(int(meta["hash_salt"]))


def uniform(count: int, stream: int, salt: int) -> Tensor:
    """[count] numbers in [0, 1), those of positions 0, 1, ... of one stream."""
    x = (torch.arange(count) + stream * 0x9E3779B9 + salt) & 0xFFFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = x ^ (x >> shift)
        # In halves: the whole product of two 32-bit numbers does not fit a signed 64-bit one.
        x = ((x & 0xFFFF) * factor + (((x >> 16) * factor & 0xFFFF) << 16)) & 0xFFFFFFFF
    return (x ^ (x >> 16)).double() / 2**32


def apply(fill: Fill, network: nn.Module) -> None:
    """Fill every parameter and buffer of `network`; its counters become 0."""
    entry = 0
    for key, tensor in network.state_dict().items():
        if key.endswith(COUNTER):
            tensor.zero_()
            continue
        tensor.copy_(_values(fill, key, tensor, entry))
        entry += 1


def _values(fill: Fill, key: str, tensor: Tensor, entry: int) -> Tensor:
    """What the formula puts into one entry of the state dict."""
    signed = fill.signed(tensor.numel(), entry).view(tensor.shape)
    if tensor.dim() > 1:
        return signed * fill.gain(tensor.numel() / len(tensor))
    if key.endswith("running_var"):
        return 1 + 0.5 * fill.unit(signed)
    if key.endswith(".weight"):
        return 1 + 0.1 * signed
    return 0.1 * signed


def _from_one(count: int) -> Tensor:
    return torch.arange(1, count + 1, dtype=torch.float64)
