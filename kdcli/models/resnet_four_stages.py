"""ResNet-18, -34 and -50 with a stem for CIFAR.  (He et al. 2016, arXiv:1512.03385, Table 1)

The stem is one 3x3 convolution without a max pool, so a 32x32 image keeps its size.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdcli.contracts import Features
from kdcli.models.network import Network, Tail, conv, global_mean, init_he, run_stage, stack


def projection(inputs: int, width: int, stride: int) -> nn.Sequential:
    """A 1x1 convolution where the shape changes; empty, the identity, where it does not."""
    if stride == 1 and inputs == width:
        return nn.Sequential()
    return nn.Sequential(conv(inputs, width, 1, stride), nn.BatchNorm2d(width))


class Basic(nn.Module):
    """Two 3x3 convolutions; the ReLU after the sum is the stage's."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = conv(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = projection(inputs, width, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm in front of the sum."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, width, H / stride, W / stride], before the ReLU."""
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x)


class Bottleneck(nn.Module):
    """1x1 to a quarter of the width, 3x3 with the stride, 1x1 back."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        inner = width // self.expansion
        self.conv1 = conv(inputs, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, width, 1)
        self.bn3 = nn.BatchNorm2d(width)
        self.shortcut = projection(inputs, width, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm in front of the sum."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, width, H / stride, W / stride], before the ReLU."""
        inner = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return self.bn3(self.conv3(inner)) + self.shortcut(x)


class ResNet(Network):
    """Four stages, 64 128 256 512 wide (four times that with bottlenecks), of `blocks` blocks."""

    head_key = "linear"

    def __init__(self, classes: int, blocks: tuple[int, int, int, int], bottleneck: bool):
        super().__init__()
        unit = Bottleneck if bottleneck else Basic
        self.conv1 = conv(3, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for number, count in enumerate(blocks):
            width = 64 * 2**number * unit.expansion
            stage = stack(unit, count, inputs, width, stride=1 if number == 0 else 2)
            self.add_module(f"layer{number + 1}", stage)
            inputs = width
        self.linear = nn.Linear(inputs, classes)
        init_he(self)

    @property
    def layers(self) -> tuple[nn.Sequential, ...]:
        """The four stages, shallow to deep."""
        return self.layer1, self.layer2, self.layer3, self.layer4

    def features(self, images: Tensor) -> Features:
        x = F.relu(self.bn1(self.conv1(images)))
        stages, preacts = [x], [x]
        for layer in self.layers:
            preact, x = run_stage(layer, x)
            preacts.append(preact)
            stages.append(x)
        pooled = global_mean(x)
        return Features(self.linear(pooled), pooled, tuple(stages), tuple(preacts), last=x)

    @property
    def norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return tuple(layer[-1].last_norm for layer in self.layers)

    @property
    def tail(self) -> nn.Module:
        return Tail(self.layer4, self.linear)
