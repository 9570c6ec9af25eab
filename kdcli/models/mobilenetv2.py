"""MobileNetV2 at half width, for CIFAR.  (Sandler et al. 2018, arXiv:1801.04381, Table 2)"""

from __future__ import annotations

from torch import Tensor, nn

from kdcli.contracts import Features
from kdcli.models.network import Network, Tail, conv, global_mean, init_he, init_linear

# Table 2: widths before the multiplier, bottlenecks, stride of the first. The paper's stride of
# the second row is 2; the stem's stride already halves a small image once.
ROWS = (
    (16, 1, 1),
    (24, 2, 1),
    (32, 3, 2),
    (64, 4, 2),
    (96, 3, 1),
    (160, 3, 2),
    (320, 1, 1),
)
STAGE_ENDS = (1, 2, 4, 6)  # the rows whose outputs are shown
LAST = 1280


def conv_norm_relu(
    inputs: int, width: int, size: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """conv BN ReLU; ReLU rather than the paper's ReLU6, as the distillation literature has it."""
    return [conv(inputs, width, size, stride, groups), nn.BatchNorm2d(width), nn.ReLU()]


class Bottleneck(nn.Module):
    """1x1 to `expansion` times the inputs, 3x3 depthwise, linear 1x1; a sum where shapes agree."""

    def __init__(self, inputs: int, width: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        self.residual = stride == 1 and inputs == width
        self.conv = nn.Sequential(
            *conv_norm_relu(inputs, inner, 1),
            *conv_norm_relu(inner, inner, 3, stride, groups=inner),
            conv(inner, width, 1),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, width, H / stride, W / stride], signed."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(Network):
    """Seven rows of inverted residuals; `width` multiplies every row, `expansion` its inside."""

    head_key = "classifier.0"
    neck_keys = ("conv2",)

    def __init__(self, classes: int, expansion: int, width: float):
        super().__init__()
        inputs = int(32 * width)
        self.conv1 = nn.Sequential(*conv_norm_relu(3, inputs, 3, stride=2))
        rows = []
        for number, (base, count, stride) in enumerate(ROWS):
            wide, inner = int(base * width), expansion if number > 0 else 1
            row = [Bottleneck(inputs, wide, stride, inner)]
            row += [Bottleneck(wide, wide, 1, inner) for _ in range(count - 1)]
            rows.append(nn.Sequential(*row))
            inputs = wide
        self.blocks = nn.Sequential(*rows)
        self.conv2 = nn.Sequential(*conv_norm_relu(inputs, LAST, 1))
        self.classifier = nn.Sequential(nn.Linear(LAST, classes))
        init_he(self)
        init_linear(self.head)

    def features(self, images: Tensor) -> Features:
        x = self.conv1(images)
        stages = [x]
        for number, row in enumerate(self.blocks):
            x = row(x)
            if number in STAGE_ENDS:
                stages.append(x)
        last = self.conv2(x)
        pooled = global_mean(last)
        return Features(self.classifier(pooled), pooled, tuple(stages), tuple(stages), last=last)

    @property
    def norms(self) -> tuple[nn.BatchNorm2d, ...]:
        return tuple(self.blocks[number][-1].conv[-1] for number in STAGE_ENDS)

    @property
    def tail(self) -> nn.Module:
        rows = self.blocks[STAGE_ENDS[-2] + 1 :]
        return Tail(nn.Sequential(nn.Sequential(*rows, self.conv2)), self.head)
