"""ShuffleNet, three groups, for CIFAR.  (Zhang et al. 2018, arXiv:1707.01083, Table 1)"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcli.contracts import Features
from kdcli.models.network import Network, Tail, conv, global_mean, run_stage, stack

STEM = 24
WIDTHS = (240, 480, 960)
UNITS = (4, 8, 4)
GROUPS = 3


def shuffle(x: Tensor, groups: int) -> Tensor:
    """[B, C, H, W] -> the same channels, those of the groups taken in turn."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class Unit(nn.Module):
    """1x1 grouped, shuffle, 3x3 depthwise, 1x1 grouped; the ReLU after the sum is the stage's.

    A unit of stride 2 puts its input, average-pooled, behind its output instead of adding it.
    Unlike the paper's, the depthwise convolution is followed by a ReLU.
    """

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.stride = stride
        outputs = width - inputs if stride == 2 else width
        inner = outputs // 4
        self.groups = 1 if inputs == STEM else GROUPS  # 24 channels are too few to group (§3.2)
        self.conv1 = conv(inputs, inner, 1, groups=self.groups)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride, groups=inner)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, outputs, 1, groups=GROUPS)
        self.bn3 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, width, H / stride, W / stride], before the ReLU."""
        out = shuffle(F.relu(self.bn1(self.conv1(x))), self.groups)
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)))))
        if self.stride == 1:
            return out + x
        return torch.cat([out, F.avg_pool2d(x, 3, stride=2, padding=1)], dim=1)


class ShuffleV1(Network):
    """Three stages of 4, 8 and 4 units behind a 1x1 stem that keeps the image's size."""

    head_key = "linear"

    def __init__(self, classes: int):
        super().__init__()
        self.conv1 = conv(3, STEM, 1)
        self.bn1 = nn.BatchNorm2d(STEM)
        inputs = STEM
        for number, (width, count) in enumerate(zip(WIDTHS, UNITS, strict=True), 1):
            self.add_module(f"layer{number}", stack(Unit, count, inputs, width, stride=2))
            inputs = width
        self.linear = nn.Linear(inputs, classes)

    def features(self, images: Tensor) -> Features:
        x = F.relu(self.bn1(self.conv1(images)))
        stages, preacts = [x], [x]
        for layer in (self.layer1, self.layer2, self.layer3):
            preact, x = run_stage(layer, x)
            preacts.append(preact)
            stages.append(x)
        pooled = global_mean(x)
        return Features(self.linear(pooled), pooled, tuple(stages), tuple(preacts), last=x)

    @property
    def norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return tuple(layer[-1].bn3 for layer in (self.layer1, self.layer2, self.layer3))

    @property
    def tail(self) -> nn.Module:
        return Tail(self.layer3, self.linear)
