"""Several processes as one: nothing to do on a single one."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> int:
    """Number of training processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if world() > 1 else 0


def average(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its mean over the ranks: one flat all-reduce a dtype."""
    if world() == 1:
        return
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    for group in groups.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        dist.all_reduce(flat)
        flat /= world()
        parts = flat.split([tensor.numel() for tensor in group])
        for tensor, part in zip(group, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def gather(tensor: Tensor) -> Tensor:
    """The rows of every rank, [B, ...] each -> [B * world, ...], without gradient.

    Whatever a batch leaves in a memory passes through it, so that every rank remembers the same.
    """
    if world() == 1:
        return tensor.detach()
    rows = [torch.empty_like(tensor) for _ in range(world())]
    dist.all_gather(rows, tensor.detach().contiguous())
    return torch.cat(rows)
