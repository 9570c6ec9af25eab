"""Decoding some batches ahead of whoever consumes them, and how long that one had to wait."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

import torch
from torch import Tensor

from kdcli.data.decode import cores
from kdcli.data.decoders import Decoders, Item

SLOTS = 3  # batches in memory: one is consumed while two are decoded
Named = TypeVar("Named")


class Clock:
    """How much of an epoch went by in waiting, its first batch left out: nothing can hide that."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.waited = 0.0  # seconds
        self.images = 0

    def wait(self, futures: Iterable[Future[None]], images: int) -> None:
        """Wait for a batch; raises what a worker found wrong with it."""
        start = time.monotonic()
        for future in futures:
            future.result()
        if self.began is None:
            self.began = time.monotonic()
            return
        self.waited += time.monotonic() - start
        self.images += images

    @property
    def share(self) -> float:
        """Waited of all time since the first batch."""
        return 0.0 if self.began is None else self.waited / (time.monotonic() - self.began)

    def verdict(self, workers: int) -> str:
        """What to say where the share is not small."""
        rate = self.images / (time.monotonic() - self.began)
        more = f"more --workers (now {workers}) would help."
        if workers >= cores():
            more = f"its {workers} workers have all {cores()} cores; smaller files would help."
        return (
            f"Decoding gives {rate:,.0f} images/s, and training waits for it {self.share:.0%} of "
            f"the time: {more}"
        )


def ahead(
    decoders: Decoders,
    orders: Iterable[tuple[Named, list[Item]]],
    device: torch.device,
    clock: Clock,
) -> Iterator[tuple[Named, Tensor]]:
    """The pixels of each order on the device, [n, S, S, 3] uint8, while the next are decoded.

    They are valid until the next are asked for. Raises what a worker found wrong.
    """
    decoders.settle()  # of an epoch that was left early
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()  # and no row is still being copied
    orders, slots = iter(orders), decoders.rows.chunk(SLOTS)
    copied = [torch.cuda.Event() if device.type == "cuda" else None for _ in slots]
    pending: deque[tuple[Named, int, list[Future[None]]]] = deque()
    for number in itertools.count():
        while len(pending) < SLOTS and (order := next(orders, None)):
            named, items = order
            free = (number + len(pending)) % SLOTS
            if copied[free]:
                copied[free].synchronize()  # what was there is on the device
            futures = decoders.decode(free * len(slots[0]), items)
            pending.append((named, len(items), futures))
        if not pending:
            return
        named, count, futures = pending.popleft()
        clock.wait(futures, count)
        slot = number % SLOTS
        pixels = slots[slot][:count].to(device, non_blocking=device.type == "cuda")
        if copied[slot]:
            copied[slot].record()
        yield named, pixels
