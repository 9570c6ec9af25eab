"""What this machine can do: operations a second of products, bytes copied a second, as measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

import torch

SIDES = {"cpu": 1024}  # of the square matrices; other devices need larger ones to be busy
SIDE = 4096
BUFFERS = {"cpu": 1 << 28}  # bytes of each buffer: beyond the last cache
BUFFER = 1 << 30
BURST = 4  # calls before the device is waited for


class Rates(NamedTuple):
    """Measured speeds of one device at the current number of threads."""

    flops: float  # a second: matrix products as precise as convolutions are (TF32 on a GPU)
    bytes: float  # a second: a copy, read and written bytes both counted


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextmanager
def as_convolutions(device: torch.device) -> Iterator[None]:
    """Products of a GPU as precise as its convolutions, TF32 or not."""
    if device.type != "cuda":
        yield
        return
    products = torch.backends.cuda.matmul
    before, products.allow_tf32 = products.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        products.allow_tf32 = before


class Meter:
    """Measures the two rates a little at a time, so that noise hits them as it hits the loops."""

    def __init__(self, device: torch.device):
        self.device = device
        side, size = SIDES.get(device.type, SIDE), BUFFERS.get(device.type, BUFFER)
        self.factors = [torch.ones(side, side, device=device) for _ in range(3)]
        self.buffers = [torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2)]
        self.product, self.copied = 2 * side**3, 2 * size
        self.seen: dict[str, list[float]] = {"flops": [], "bytes": []}
        self.measure(0.0)  # the first calls load and choose kernels
        for found in self.seen.values():
            found.clear()

    def _multiply(self) -> None:
        torch.matmul(self.factors[0], self.factors[1], out=self.factors[2])

    def _copy(self) -> None:
        self.buffers[0].copy_(self.buffers[1])

    def measure(self, seconds: float = 0.2) -> None:
        """Take `seconds` for each of the two, or one burst of calls if that is longer."""
        with as_convolutions(self.device):
            self.seen["flops"].append(self.product / self._each(self._multiply, seconds))
        self.seen["bytes"].append(self.copied / self._each(self._copy, seconds))

    def _each(self, call: Callable[[], None], seconds: float) -> float:
        """Mean seconds of a call, over as many as fill the time."""
        synchronize(self.device)
        began, calls = time.perf_counter(), 0
        while not calls or time.perf_counter() - began < seconds:
            for _ in range(BURST):
                call()
            calls += BURST
            synchronize(self.device)
        return (time.perf_counter() - began) / calls

    @property
    def rates(self) -> Rates:
        """The medians of what was measured so far."""
        return Rates(*(median(self.seen[key]) for key in Rates._fields))
