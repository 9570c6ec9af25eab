"""Romero, Ballas, Kahou, Chassang, Gatta, Bengio: FitNets: Hints for Thin Deep Nets. ICLR 2015,
arXiv:1412.6550.

    L = mean of ( r(F^s) - F^t )²                                                        (Eq. 3)

F [B, C, H, W] are the maps of stage `layer`, 0 being the stem; r is a convolution to the teacher's
width and side, with batch norm and ReLU, trained with the student. Mean over all elements.

The published tables train this loss and cross-entropy together; the paper trains the hint first
(a [[pretrain]] phase of this loss does that) and its regressor has no batch norm: `norm = false`.

Where the teacher's map is more than twice as large as the student's, or larger by a fraction, the
teacher's is averaged down to the student's side; no published pair needs it. A teacher that shows
maps without a ReLU (WRN) has negative values that the ReLU cannot reach: kept as published.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from kdcli.contracts import Batch, Features
from kdcli.errors import KdcliError
from kdcli.losses import Context, Loss
from kdcli.losses.at import Size, described, shrink, stage_sizes
from kdcli.losses.kd import wide


def resizing(student: Size, teacher: Size) -> nn.Module:
    """The convolution between two maps, with a bias.

    Half or double the side: stride 2, transposed when up. A larger student's map loses what a
    kernel without padding takes, so equal sides have a 1x1 kernel. Otherwise the student's side
    stays.
    """
    (inputs, side, _), (width, target, _) = student, teacher
    if side == 2 * target:
        return nn.Conv2d(inputs, width, 3, stride=2, padding=1)
    if 2 * side == target:
        return nn.ConvTranspose2d(inputs, width, 4, stride=2, padding=1)
    if side >= target:
        return nn.Conv2d(inputs, width, 1 + side - target)
    return nn.Conv2d(inputs, width, 3, padding=1)


class Regressor(nn.Module):
    """A student's map in the teacher's width and side: convolution, batch norm, ReLU."""

    def __init__(self, student: Size, teacher: Size, norm: bool = True, relu: bool = True):
        super().__init__()
        self.conv = resizing(student, teacher)
        self.norm = nn.BatchNorm2d(teacher[0]) if norm else nn.Identity()
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C_s, H_s, W_s] -> [B, C_t, H_t, W_t], or the student's side where that is smaller."""
        return self.relu(self.norm(self.conv(maps)))


class FitNet(Loss):
    """Squared difference between a teacher's map and one regressed from the student's."""

    def __init__(self, ctx: Context, layer: int = 2, norm: bool = True):
        super().__init__(ctx)
        student, teacher = stage_sizes(ctx, "fitnet", least=1)
        if layer not in range(min(len(student), len(teacher))):
            raise KdcliError(
                f"loss 'fitnet' has no layer {layer}: the student shows {described(student)} and "
                f"the teacher {described(teacher)}, counted from 0."
            )
        self.layer = layer
        self.regressor = Regressor(student[layer], teacher[layer], norm)

    def forward(self, student: Features, teacher: Features, batch: Batch) -> Tensor:
        regressed = self.regressor(wide(student.stages[self.layer]))
        target = wide(teacher.stages[self.layer].detach())
        return F.mse_loss(regressed, shrink(target, regressed.shape[2]))
