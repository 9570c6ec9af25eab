"""Two small networks' maps by formula: float64, 4 samples, a stem and two stages."""

import torch
from torch import Tensor

from kdcli.contracts import Features
from tests.loss_inputs import hashed

WIDE, DEEP = hashed((4, 8, 8, 8), 3), hashed((4, 16, 4, 4), 4)


def shown(*maps: Tensor) -> Features:
    """Features of a network with these stages, the stem first; preacts are other numbers."""
    pooled = maps[-1].mean((2, 3)) if maps else torch.zeros(4, 5)
    return Features(pooled, pooled, maps, tuple(x - 0.1 for x in maps))


STUDENT = shown(WIDE, WIDE, hashed((4, 16, 4, 4), 6))
TEACHER = shown(hashed((4, 8, 16, 16), 7), hashed((4, 12, 16, 16), 5), DEEP)
