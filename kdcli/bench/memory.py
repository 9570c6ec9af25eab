"""The most memory that tensors hold during a call, over what they held before it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def peak(call: Callable[[], object], device: torch.device) -> int | None:
    """Bytes on `device`; None where they are not counted.

    On CUDA the allocator says it. On the CPU it comes from the profiler's record of every
    allocation: the process's resident memory also moves with what earlier calls have freed.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        call()
        return None
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        call()
    return highest(
        [
            (event.start_ns(), event.nbytes())
            for event in seen.profiler.kineto_results.events()
            if event.name() == "[memory]"
        ]
    )


def highest(changes: list[tuple[int, int]]) -> int:
    """The largest running sum of (time, bytes taken or given back), in order of time; at least 0.

    >>> highest([(0, 5), (2, -5), (1, 4), (3, 1)])
    9
    """
    held = most = 0
    for _, size in sorted(changes, key=lambda change: change[0]):
        held += size
        most = max(most, held)
    return most
