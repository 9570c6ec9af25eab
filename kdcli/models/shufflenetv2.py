"""ShuffleNet V2, 1x, for CIFAR.  (Ma et al. 2018, arXiv:1807.11164, Table 5)"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcli.contracts import Features
from kdcli.models.network import Network, conv, global_mean

STEM = 24
WIDTHS = (116, 232, 464)
UNITS = (3, 7, 3)  # behind each stage's down-sampling unit
LAST = 1024


def interleave(left: Tensor, right: Tensor) -> Tensor:
    """[B, C, H, W] twice -> [B, 2C, H, W], their channels in turn: a shuffle of two groups."""
    return torch.stack([left, right], dim=2).flatten(1, 2)


class Down(nn.Module):
    """Both branches halve the map: depthwise and 1x1; 1x1, depthwise and 1x1."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        half = width // 2
        self.conv1 = conv(inputs, inputs, 3, 2, groups=inputs)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = conv(inputs, half, 1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(inputs, half, 1)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = conv(half, half, 3, 2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv(half, half, 1)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, width, H / 2, W / 2]."""
        left = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        right = F.relu(self.bn3(self.conv3(x)))
        right = F.relu(self.bn5(self.conv5(self.bn4(self.conv4(right)))))
        return interleave(left, right)


class Unit(nn.Module):
    """Half of the channels pass untouched; 1x1, depthwise and 1x1 on the other half."""

    def __init__(self, width: int):
        super().__init__()
        half = width // 2
        self.conv1 = conv(half, half, 1)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = conv(half, half, 3, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(half, half, 1)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, width, H, W] -> (untouched half, the other before its ReLU), [B, width / 2, H, W]."""
        left, right = x.chunk(2, dim=1)
        right = F.relu(self.bn1(self.conv1(right)))
        return left, self.bn3(self.conv3(self.bn2(self.conv2(right))))


class ShuffleV2(Network):
    """Three stages of 4, 8 and 4 units behind a 1x1 stem that keeps the image's size."""

    head_key = "linear"
    neck_keys = ("conv2", "bn2")

    def __init__(self, classes: int):
        super().__init__()
        self.conv1 = conv(3, STEM, 1)
        self.bn1 = nn.BatchNorm2d(STEM)
        inputs = STEM
        for number, (width, count) in enumerate(zip(WIDTHS, UNITS, strict=True), 1):
            units = [Unit(width) for _ in range(count)]
            self.add_module(f"layer{number}", nn.Sequential(Down(inputs, width), *units))
            inputs = width
        self.conv2 = conv(inputs, LAST, 1)
        self.bn2 = nn.BatchNorm2d(LAST)
        self.linear = nn.Linear(LAST, classes)

    def features(self, images: Tensor) -> Features:
        x = F.relu(self.bn1(self.conv1(images)))
        stages, preacts = [x], [x]
        for layer in (self.layer1, self.layer2, self.layer3):
            down, *units = layer
            x = down(x)
            for unit in units:
                left, right = unit(x)
                x = interleave(left, F.relu(right))
            stages.append(x)
            preacts.append(torch.cat([left, right], dim=1))
        last = F.relu(self.bn2(self.conv2(x)))
        pooled = global_mean(last)
        return Features(self.linear(pooled), pooled, tuple(stages), tuple(preacts), last=last)
