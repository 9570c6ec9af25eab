"""The step counters of batch norms, moved by one kernel instead of one each.

Nothing here reads them, since norms have a fixed momentum, but a checkpoint holds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

NAME = "num_batches_tracked"


class Tally:
    """Stands for a norm's counter while it is called."""

    def __init__(self, counter: Tensor):
        self.counter, self.calls = counter, 0

    def add_(self, number: int) -> None:
        """What a norm does with it."""
        self.calls += number


@contextmanager
def counted_together(module: nn.Module) -> Iterator[None]:
    """Within it norms of `module` only say that they are called; at its end all are counted."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)  # no subclass: it may do something else with it
    norms = [norm for norm in module.modules() if type(norm) in kinds and norm.training]
    norms = [norm for norm in norms if norm.momentum and norm.num_batches_tracked is not None]
    tallies = [Tally(norm._buffers.pop(NAME)) for norm in norms]
    for norm, tally in zip(norms, tallies, strict=True):
        norm.__dict__[NAME] = tally
    try:
        yield
    finally:
        for norm in norms:
            norm._buffers[NAME] = norm.__dict__.pop(NAME).counter
    for calls in sorted({tally.calls for tally in tallies} - {0}):
        torch._foreach_add_([tally.counter for tally in tallies if tally.calls == calls], calls)
