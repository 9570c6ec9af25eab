"""Wide residual networks for CIFAR.  (Zagoruyko and Komodakis 2016, arXiv:1605.07146, §3)"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdcli.contracts import Features
from kdcli.models.network import Network, conv, global_mean, init_he, stack


class Block(nn.Module):
    """BN ReLU conv BN ReLU conv + shortcut; one that changes the width starts at the ReLU."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.convShortcut = None if inputs == width else conv(inputs, width, 1, stride)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] -> (its batch norm, the block's sum [B, width, H / stride, W / stride])."""
        normed = self.bn1(x)
        active = F.relu(normed)
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        return normed, self.conv2(F.relu(self.bn2(self.conv1(active)))) + shortcut


class Group(nn.Module):
    """Blocks of one width, under the key `layer`."""

    def __init__(self, blocks: int, inputs: int, width: int, stride: int):
        super().__init__()
        self.layer = stack(Block, blocks, inputs, width, stride)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x -> (the first block's norm of x, the last block's sum)."""
        first, *rest = self.layer
        normed, x = first(x)
        for block in rest:
            _, x = block(x)
        return normed, x


class WideTail(nn.Module):
    """The last group, the network's norm, the pool and the classifier."""

    def __init__(self, group: Group, norm: nn.BatchNorm2d, head: nn.Linear):
        super().__init__()
        self.group, self.norm, self.head = group, norm, head

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K]."""
        return self.head(global_mean(F.relu(self.norm(self.group(x)[1]))))


class WideResNet(Network):
    """WRN-D-W, D = 6n + 4: n blocks a group, 16W, 32W and 64W wide. No dropout."""

    top = ("bn1", "fc")

    def __init__(self, classes: int, depth: int, width: int):
        super().__init__()
        assert depth % 6 == 4, f"wrn depth must be 6n + 4, not {depth}"
        blocks = (depth - 4) // 6
        self.conv1 = conv(3, 16, 3)
        self.block1 = Group(blocks, 16, 16 * width, 1)
        self.block2 = Group(blocks, 16 * width, 32 * width, 2)
        self.block3 = Group(blocks, 32 * width, 64 * width, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, classes)
        init_he(self)
        nn.init.zeros_(self.fc.bias)

    def features(self, images: Tensor) -> Features:
        stem = self.conv1(images)
        _, first = self.block1(stem)
        # The norm a group opens with is the pre-activation of the map it is given. Taken from
        # the group's own pass: a second call would move its running statistics twice a step.
        first_normed, second = self.block2(first)
        second_normed, third = self.block3(second)
        third_normed = self.bn1(third)
        last = F.relu(third_normed)
        pooled = global_mean(last)
        stages = (stem, first, second, third)
        preacts = (stem, first_normed, second_normed, third_normed)
        return Features(self.fc(pooled), pooled, stages, preacts, last=last)

    @property
    def norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return self.block2.layer[0].bn1, self.block3.layer[0].bn1, self.bn1

    @property
    def tail(self) -> nn.Module:
        return WideTail(self.block3, self.bn1, self.fc)
