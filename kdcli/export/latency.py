"""How long a network takes for one batch: torch and onnxruntime side by side, on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from kdcli.export.parity import Answer, Report, taken

BATCHES = (1, 64)
WARMUP = 2
MOST, LEAST, BUDGET = 50, 5, 3.0  # rounds; fewer, but not below `LEAST`, after so many seconds


class Latency(NamedTuple):
    """One line of the table."""

    runtime: str
    batch: int  # images
    milliseconds: float  # a batch, median
    rounds: int  # measured


def measure(
    contenders: Mapping[str, Answer], images: Tensor, report: Report | None = None
) -> list[Latency]:
    """Medians for batches of 1 and 64 of the raw `images` [N, 3, H, W] uint8, by runtime's name.

    Each round asks every contender once, so that a busy machine slows all of them alike. From the
    uint8 pixels to the logits, normalisation included.
    """
    lines = []
    for number, size in enumerate(BATCHES):
        if report:
            report(number, len(BATCHES), f"timing batches of {size}")
        batch = taken(images, torch.arange(size) % len(images))
        spent: dict[str, list[float]] = {name: [] for name in contenders}
        began = time.perf_counter()
        for turn in range(WARMUP + MOST):
            for name, answer in contenders.items():
                start = time.perf_counter()
                answer(batch)
                if turn >= WARMUP:
                    spent[name].append(time.perf_counter() - start)
            if turn + 1 >= WARMUP + LEAST and time.perf_counter() - began > BUDGET:
                break
        lines += [
            Latency(name, size, 1000 * statistics.median(seconds), len(seconds))
            for name, seconds in spent.items()
        ]
    return lines
