"""A classifier that shows what it computes, and what each family shows.

Every network returns `Features` (`kdcli.contracts`): `stages[0]` is the stem, a map for each stage
follows; `preacts` are the same maps before their nonlinearity, `preacts[0]` being `stages[0]`
itself. Behind the names, the side of `stages[1:]` for a 32x32 image; any size that the strides can
halve will do.

| family      | side     | stages[i], i >= 1           | preacts[i], i >= 1              | pooled |
|-------------|----------|-----------------------------|---------------------------------|--------|
| resnet      | 32 16 8  | ReLU of a stage's last sum  | that sum, residual included     | last   |
| ResNet      | 32 16 8 4| the same                    | the same                        | last   |
| wrn         | 32 16 8  | a group's last sum, bare:   | batch norm of it: the one the   | ReLU   |
|             |          | signed, no norm, no ReLU    | next group opens with, the last |        |
|             |          |                             | being the network's own         |        |
| vgg         | 16 8 4 4 | ReLU of a group's last      | that norm                       | last   |
|             |          | norm, before its pool       |                                 |        |
| MobileNetV2 | 16 8 4 2 | linear bottlenecks of rows  | the stages themselves: there    | 1280   |
|             |          | 2, 3, 5 and 7, signed       | is no ReLU                      |        |
| ShuffleV1   | 16 8 4   | ReLU of a stage's last unit | its sum                         | last   |
| ShuffleV2   | 16 8 4   | a stage's last unit, its    | (untouched half, norm before    | 1024   |
|             |          | channels shuffled           | the ReLU), not shuffled         |        |
| tiny        | 16 8 4   | ReLU of a stage's last norm | that norm                       | last   |
| foreign     | any      | last map of each side       | the stages themselves           | head   |

`pooled` is the mean over positions of the map `last`: "last" the last stage; "ReLU" the ReLU of the
last preact; "1280" and "1024" a further 1x1 convolution of that width with norm and ReLU. "head":
whatever the last nn.Linear is given, `last` being the last stage all the same. The stem is shown
after its ReLU, except wrn's, which is the bare first convolution. It has side 32, in MobileNetV2
and tiny 16; vgg's is its first group of convolutions; a foreign network has none of its own
(`kdcli.models.foreign`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from kdcli.contracts import Features


class Network(nn.Module):
    """An image classifier: [B, 3, H, W] float -> logits [B, K], and Features on request.

    `architecture` is JSON-able and holds what `models.build(**architecture)` needs to make the
    network again, without its weights; `models.build` writes it.
    """

    architecture: dict[str, object]
    head_key = "fc"  # where the classifier layer is, by the public references' name
    neck_keys: tuple[str, ...] = ()  # layers between `stages[-1]` and the pool that widen the map

    def features(self, images: Tensor) -> Features:
        """One pass over `images`; every tensor belongs to that pass's graph."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Logits: an ordinary classifier, ready to export."""
        return self.features(images).logits

    @property
    def head(self) -> nn.Linear:
        """The classifier layer; its input is `pooled`."""
        return self.get_submodule(self.head_key)

    @property
    def norms(self) -> tuple[nn.BatchNorm2d, ...]:
        """The batch norm that ends each of `preacts[1:]`; empty where none covers the whole map."""
        return ()

    @property
    def top(self) -> tuple[str, ...]:
        """Keys of the modules behind `stages[-1]`, left alone where only the stages train."""
        return (*self.neck_keys, self.head_key)

    @property
    def tail(self) -> nn.Module | None:
        """`stages[-2]` -> logits through this network's own layers; None where none is written."""
        return None

    @property
    def body(self) -> nn.Module:
        """The module whose state dict a weights file holds: this one, or the network adapted."""
        return self


def conv(inputs: int, width: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the map's size at stride 1."""
    return nn.Conv2d(inputs, width, size, stride, size // 2, groups=groups, bias=False)


def global_mean(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C], at any size."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def stack(
    unit: Callable[[int, int, int], nn.Module], count: int, inputs: int, width: int, stride: int
) -> nn.Sequential:
    """`count` units (inputs, width, stride); the first one changes the width and the size."""
    rest = [unit(width, width, 1) for _ in range(count - 1)]
    return nn.Sequential(unit(inputs, width, stride), *rest)


def run_stage(blocks: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks that leave their last ReLU to us -> (the last sum before it, after it)."""
    for block in blocks:
        preact = block(x)
        x = F.relu(preact)
    return preact, x


class Tail(nn.Module):
    """The last stage, the pool and the classifier, as `Network.tail` shows them."""

    def __init__(self, blocks: nn.Sequential, head: nn.Linear):
        super().__init__()
        self.blocks, self.head = blocks, head

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K]."""
        return self.head(global_mean(run_stage(self.blocks, x)[1]))


def init_he(network: nn.Module) -> None:
    """Convolutions from N(0, 2 / (k² C_out)), biases 0 (He et al. 2015, arXiv:1502.01852, §2.2).

    Depthwise convolutions use the same C_out. Batch norms start at 1 and 0 by themselves.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def init_linear(layer: nn.Linear) -> None:
    """N(0, 0.01²), bias 0: the head of VGG and MobileNetV2."""
    nn.init.normal_(layer.weight, 0, 0.01)
    nn.init.zeros_(layer.bias)
