"""Plain convolutions for 32x32 images and quick trials on a CPU: networks of our own, unpublished.

Six 3x3 convolutions, three of them with stride 2, the first included: nothing is computed at full
size, and a position of the last 4x4 map still sees 43 pixels of the image.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdcli.contracts import Features
from kdcli.models.network import Network, Tail, conv, global_mean, init_he


def group(inputs: int, *widths: int, stride: int) -> nn.Sequential:
    """conv BN, (ReLU conv BN)...: the group's last ReLU is the network's."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [conv(inputs, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU()]
        inputs, stride = width, 1
    return nn.Sequential(*layers[:-1])


class Tiny(Network):
    """A stem and three groups; `widths` of the groups, the stem being as wide as the first."""

    def __init__(self, classes: int, widths: tuple[int, int, int]):
        super().__init__()
        first, second, third = widths
        self.block0 = group(3, first, stride=2)
        self.block1 = group(first, first, stride=1)
        self.block2 = group(first, second, second, stride=2)
        self.block3 = group(second, third, third, stride=2)
        self.fc = nn.Linear(third, classes)
        init_he(self)

    def features(self, images: Tensor) -> Features:
        x = F.relu(self.block0(images))
        stages, preacts = [x], [x]
        for block in (self.block1, self.block2, self.block3):
            preacts.append(block(x))
            x = F.relu(preacts[-1])
            stages.append(x)
        pooled = global_mean(x)
        return Features(self.fc(pooled), pooled, tuple(stages), tuple(preacts), last=x)

    @property
    def norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return self.block1[-1], self.block2[-1], self.block3[-1]

    @property
    def tail(self) -> nn.Module:
        return Tail(nn.Sequential(self.block3), self.fc)
