"""What every update does with terms and gradients before it steps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """A 0-dim bool on the device: no NaN or infinity in any of `tensors`."""
    norms = torch.stack(torch._foreach_norm(list(tensors)))  # one kernel, then as many as for one
    return torch.isfinite(norms).all()


def summed(terms: Iterable[Tensor]) -> Tensor:
    """The sum of scalars, in double precision where the device has it."""
    return torch.stack(
        [term.double() if term.device.type != "mps" else term for term in terms]
    ).sum()
