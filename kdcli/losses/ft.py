"""Kim, Park, Kwak: Paraphrasing Complex Network: Network Compression via Factor Transfer.
NeurIPS 2018, arXiv:1802.04977.

    before:   L = mean of ( D(E(F^t)) - F^t )²
    then:     L = mean of | a(T(F^s)) - a(E(F^t)) |^power

F [B, C, H, W] is the last stage. The paraphraser, encoder E and decoder D, is trained on the
teacher's maps in the pre-training phase and then frozen; E gives k C_t channels, the factors. The
translator T brings the student's map to as many and is trained with the student. a() is the mean of
squares over the channels, flattened and of length 1, [B, H W]. The larger of two maps of factors is
averaged down to the smaller one's side. Mean over positions and batch.

The paper normalises the factors as a whole, channels included, and takes the norm of the
difference: `factors = "whole"`, its mean over the batch. The code behind the published numbers
compares attention maps of the factors.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdcli.contracts import Batch, Features
from kdcli.errors import KdcliError, unknown
from kdcli.losses import Context, Loss
from kdcli.losses.at import attention, described, same_side, stage_sizes
from kdcli.losses.kd import wide

FACTORS = ("map", "whole")
SLOPE = 0.1  # of the leaky ReLU behind every convolution, the decoder's last one included


def layers(kind: type[nn.Module], widths: tuple[int, ...], norm: bool = False) -> nn.Sequential:
    """3x3 convolutions from each width to the next, at one side."""
    chain: list[nn.Module] = []
    for inputs, width in pairwise(widths):
        chain.append(kind(inputs, width, 3, padding=1))
        chain += [nn.BatchNorm2d(width)] if norm else []
        chain.append(nn.LeakyReLU(SLOPE))
    return nn.Sequential(*chain)


class Paraphraser(nn.Module):
    """The teacher's map through fewer channels and back, without batch norm."""

    def __init__(self, width: int, factors: int):
        super().__init__()
        self.encoder = layers(nn.Conv2d, (width, width, factors, factors))
        self.decoder = layers(nn.ConvTranspose2d, (factors, factors, width, width))

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> its reconstruction."""
        return self.decoder(self.encoder(maps))


def factor_loss(student: Tensor, teacher: Tensor, power: int = 1, factors: str = "map") -> Tensor:
    """Factors of both; [B, F, H_s, W_s], [B, F, H_t, W_t] -> scalar."""
    student, teacher = same_side(student, teacher)
    if factors == "map":
        return (attention(student) - attention(teacher)).abs().pow(power).mean()
    student, teacher = (F.normalize(x.flatten(1), dim=1) for x in (student, teacher))
    return (student - teacher).norm(p=power, dim=1).mean()


class FT(Loss):
    """Reconstruction of the teacher's maps in pre-training, transfer of their factors after it."""

    limits = (("power", 1, math.inf),)

    def __init__(self, ctx: Context, k: float = 0.5, power: int = 1, factors: str = "map"):
        super().__init__(ctx)
        if factors not in FACTORS:
            raise unknown("factors of loss 'ft'", factors, FACTORS)
        student, teacher = (sizes[-1] for sizes in stage_sizes(ctx, "ft", least=1))
        width = int(k * teacher[0])
        if width < 1:
            raise KdcliError(
                f"loss 'ft' with k = {k} leaves no channel of the teacher's {described([teacher])}."
            )
        self.power, self.factors = power, factors
        self.paraphraser = Paraphraser(teacher[0], width)
        self.translator = layers(nn.Conv2d, (student[0], student[0], width, width), norm=True)
        self.main = True

    def begin(self, main: bool) -> None:
        """Pre-training trains the paraphraser, the main phase what is compared with it."""
        self.main = main

    def forward(self, student: Features, teacher: Features, batch: Batch) -> Tensor:
        target = wide(teacher.stages[-1].detach())
        if not self.main:
            return F.mse_loss(self.paraphraser(target), target)
        with torch.no_grad():
            wanted = self.paraphraser.encoder(target)
        return factor_loss(
            self.translator(wide(student.stages[-1])), wanted, self.power, self.factors
        )
