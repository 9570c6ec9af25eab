"""The tensors of a run as a checkpoint holds them: those of all its parts under one roof."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from kdcli.engine.gradients import all_finite
from kdcli.errors import DIVERGED, KdcliError

APART = 20.0  # seconds: a GPU trains an epoch of CIFAR in one, and saving CRD's memories takes half


def worth_saving(device: torch.device, seconds: float) -> bool:
    """Whether an epoch's end is, so many seconds after the last checkpoint."""
    return device.type != "cuda" or seconds >= APART


def packed(**parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`PART.NAME` for every tensor of every part."""
    states = parts.items()
    return {f"{part}.{name}": value for part, state in states for name, value in state.items()}


def unpacked(tensors: Mapping[str, Tensor]) -> Mapping[str, dict[str, Tensor]]:
    """What `packed` was given; empty for a part that had no tensor."""
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, value in tensors.items():
        part, _, name = key.partition(".")
        parts[part][name] = value
    return parts


def check_finite(state: Mapping[str, Tensor], epoch: int, step: int) -> None:
    """KdcliError (diverged) naming the tensor of `state` that holds NaN or infinity."""
    floats = {name: value for name, value in state.items() if value.is_floating_point()}
    if all_finite(floats.values()):
        return
    bad = next(name for name, value in floats.items() if not value.isfinite().all())
    raise KdcliError(
        f"training diverged: {bad} holds NaN or infinity at epoch {epoch + 1}, step {step}. The "
        "last good checkpoint is kept; try a smaller --lr.",
        DIVERGED,
    )
