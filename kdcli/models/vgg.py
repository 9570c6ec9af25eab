"""VGG with batch norm and one linear layer.  (Simonyan and Zisserman 2015, arXiv:1409.1556)"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdcli.contracts import Features
from kdcli.models.network import Network, Tail, global_mean, init_he, init_linear

WIDTHS = (64, 128, 256, 512, 512)


def group(inputs: int, width: int, convolutions: int) -> nn.Sequential:
    """conv BN, (ReLU conv BN)...: the group's last ReLU is the network's."""
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers[:-1])


class VGG(Network):
    """Five groups of 3x3 convolutions with bias; `convolutions`: how many in each.

    Max pools halve the map after groups 0, 1 and 2; a 64x64 image is halved after group 3 too.
    """

    head_key = "classifier"

    def __init__(self, classes: int, convolutions: tuple[int, int, int, int, int]):
        super().__init__()
        inputs = 3
        for number, (width, count) in enumerate(zip(WIDTHS, convolutions, strict=True)):
            self.add_module(f"block{number}", group(inputs, width, count))
            inputs = width
        self.classifier = nn.Linear(inputs, classes)
        init_he(self)
        init_linear(self.classifier)

    @property
    def groups(self) -> tuple[nn.Sequential, ...]:
        """The five groups, shallow to deep."""
        return self.block0, self.block1, self.block2, self.block3, self.block4

    def features(self, images: Tensor) -> Features:
        x = images
        stages, preacts = [], []
        for number, block in enumerate(self.groups):
            preacts.append(block(x))
            stages.append(F.relu(preacts[-1]))
            pools = number < 3 or (number == 3 and images.shape[2] == 64)
            x = F.max_pool2d(stages[-1], 2) if pools else stages[-1]
        preacts[0] = stages[0]  # the stem has no pre-activation of its own, in any family
        pooled = global_mean(x)
        return Features(self.classifier(pooled), pooled, tuple(stages), tuple(preacts), last=x)

    @property
    def norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return tuple(block[-1] for block in self.groups[1:])

    @property
    def tail(self) -> nn.Module:
        return Tail(nn.Sequential(self.block4), self.classifier)
