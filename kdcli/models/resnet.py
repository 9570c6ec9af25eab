"""ResNet for CIFAR: three stages of 3x3 basic blocks.  (He et al. 2016, arXiv:1512.03385, §4.2)

The paper's zero-padded shortcut is a 1x1 convolution with batch norm here (its option B), as the
distillation literature has it. resnet8x4 and resnet32x4 quadruple the stages and double the stem.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdcli.contracts import Features
from kdcli.models.network import Network, Tail, conv, global_mean, init_he, run_stage, stack


class Block(nn.Module):
    """conv BN ReLU conv BN + shortcut; the ReLU after the sum is the stage's."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = conv(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or inputs != width:
            self.downsample = nn.Sequential(conv(inputs, width, 1, stride), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, width, H / stride, W / stride], before the ReLU."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut


class ResNet(Network):
    """resnet-D, D = 6n + 2: n blocks a stage. `widths`: the stem's and the three stages'."""

    def __init__(self, classes: int, depth: int, widths: tuple[int, int, int, int]):
        super().__init__()
        assert depth % 6 == 2, f"resnet depth must be 6n + 2, not {depth}"
        stem, first, second, third = widths
        blocks = depth // 6
        self.conv1 = conv(3, stem, 3)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = stack(Block, blocks, stem, first, 1)
        self.layer2 = stack(Block, blocks, first, second, 2)
        self.layer3 = stack(Block, blocks, second, third, 2)
        self.fc = nn.Linear(third, classes)
        init_he(self)

    def features(self, images: Tensor) -> Features:
        x = F.relu(self.bn1(self.conv1(images)))
        stages, preacts = [x], [x]
        for layer in (self.layer1, self.layer2, self.layer3):
            preact, x = run_stage(layer, x)
            preacts.append(preact)
            stages.append(x)
        pooled = global_mean(x)
        return Features(self.fc(pooled), pooled, tuple(stages), tuple(preacts), last=x)

    @property
    def norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return tuple(layer[-1].bn2 for layer in (self.layer1, self.layer2, self.layer3))

    @property
    def tail(self) -> nn.Module:
        return Tail(self.layer3, self.fc)
