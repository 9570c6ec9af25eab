"""A strong second view: two random operations, then a grey box, on whole uint8 batches.

Two of 14 operations are drawn for each image, with replacement, each with a magnitude drawn evenly
from its range and without a sign flip (Cubuk, Zoph, Shlens, Le: RandAugment, 2020,
arXiv:1909.13719, as in the code of MLKD); then a box of up to half the side is painted over
(DeVries, Taylor: Cutout, 2017, arXiv:1708.04552). Everything follows from seven numbers an image,
drawn for (seed, epoch, row) by `kdcli.data.plan`.

The results are Pillow's, bit for bit, but for three things. Every operation is computed for every
image of the batch and then chosen, so that shapes are fixed and nothing is read back. A translation
rounds its offset to 1/65536 pixel, as Pillow does for rotations and shears but not for it. A device
without double precision (MPS) computes the tables and angles in single, where a value can fall on
the other side of an integer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

DRAWS = 7  # an image: two operations, two magnitudes, the box's side and centre, each in [0, 1)
OPERATIONS = {  # the range of the magnitude
    "autocontrast": (0.0, 0.0),
    "brightness": (0.05, 0.95),
    "color": (0.05, 0.95),
    "contrast": (0.05, 0.95),
    "equalize": (0.0, 0.0),
    "identity": (0.0, 0.0),
    "posterize": (4.0, 8.0),  # bits, rounded down
    "rotate": (-30.0, 30.0),  # degrees, counter-clockwise
    "sharpness": (0.05, 0.95),
    "shear_x": (-0.3, 0.3),
    "shear_y": (-0.3, 0.3),
    "solarize": (0.0, 256.0),
    "translate_x": (-0.3, 0.3),  # of the side
    "translate_y": (-0.3, 0.3),
}
NAMES = tuple(OPERATIONS)
BOX = (125, 123, 114)
LARGEST_BOX = 0.5  # of the side
FIXED = 65536  # Pillow's unit of a coordinate


def grey(images: Tensor) -> Tensor:
    """Luminance as Pillow rounds it; [..., 3] int64 -> [...] int64."""
    red, green, blue = images.unbind(-1)
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def blend(degenerate: Tensor, image: Tensor, share: Tensor) -> Tensor:
    """degenerate + share (image - degenerate), cut to whole numbers; int64, float32 share."""
    return (degenerate + share * (image - degenerate).float()).long()


def smooth(images: Tensor) -> Tensor:
    """Pillow's SMOOTH: weights 1 around 5 over 13, the border as it is; [B, H, W, 3] int64."""
    sums = F.avg_pool2d(images.permute(0, 3, 1, 2).float(), 3, stride=1, divisor_override=1)
    inner = (2 * (sums.permute(0, 2, 3, 1).long() + 4 * images[:, 1:-1, 1:-1]) + 13) // 26
    return torch.cat(
        [
            images[:, :1],
            torch.cat([images[:, 1:-1, :1], inner, images[:, 1:-1, -1:]], dim=2),
            images[:, -1:],
        ],
        dim=1,
    )


class Strong:
    """The strong view of a batch, on one device."""

    def __init__(self, device: torch.device | str):
        self.wide = torch.float32 if torch.device(device).type == "mps" else torch.float64
        ranges = torch.tensor(list(OPERATIONS.values()), dtype=self.wide, device=device)
        self.low, self.high = ranges.unbind(1)
        self.values = torch.arange(256, device=device)
        self.box = torch.tensor(BOX, dtype=torch.uint8, device=device)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """[B, H, W, 3] uint8, [B, 7] in [0, 1) -> [B, H, W, 3] uint8."""
        draws = draws.to(self.wide)
        for number in range(2):
            chosen = (draws[:, number] * len(NAMES)).long()
            share = draws[:, 2 + number]
            magnitude = self.low[chosen] + share * (self.high - self.low)[chosen]
            images = self.apply(images, chosen, magnitude)
        return self.cutout(images, *draws[:, 4:].unbind(1))

    def apply(self, images: Tensor, chosen: Tensor, magnitude: Tensor) -> Tensor:
        """One operation an image; [B, H, W, 3] uint8, [B] int64, [B] -> uint8."""

        def where(name: str) -> Tensor:
            return (chosen == NAMES.index(name)).view(-1, 1, 1, 1)

        images = images.long()
        shift = magnitude.float().view(-1, 1, 1, 1)
        coloured = blend(grey(images)[..., None].expand_as(images), images, shift)
        sharpened = blend(smooth(images), images, shift)
        mapped = self.table(images, chosen, magnitude).gather(1, images.flatten(1, 2))
        mapped = torch.where(where("color"), coloured, mapped.view_as(images))
        mapped = torch.where(where("sharpness"), sharpened, mapped)
        return self.warp(mapped, chosen, magnitude).to(torch.uint8)

    def table(self, images: Tensor, chosen: Tensor, magnitude: Tensor) -> Tensor:
        """New value of every old one; [B, H, W, 3] int64 -> [B, 256, 3] int64.

        The identity for images whose operation is not one of single values.
        """
        values, size = self.values.view(1, 256, 1), (len(images), 256, 3)
        ordered = images.flatten(1, 2).sort(dim=1).values
        low, high, count = ordered[:, :1], ordered[:, -1:], ordered.shape[1]
        columns = ordered.transpose(1, 2).contiguous()
        below = torch.searchsorted(columns, self.values.expand(len(images), 3, 256).contiguous())
        below = below.transpose(1, 2)  # pixels with a smaller value
        amount = magnitude.view(-1, 1, 1)
        share = amount.float()

        spread = (high - low).clamp(min=1)
        scale = 255.0 / spread.to(self.wide)
        stretched = (values * scale - low * scale).long().clamp(0, 255)
        step = (count - (ordered == high).sum(1, keepdim=True)) // 255
        equal = (step // 2 + below) // step.clamp(min=1)
        mean = (grey(images).flatten(1).to(self.wide).mean(1) + 0.5).long().view(-1, 1, 1)
        tables = {
            "autocontrast": torch.where(high > low, stretched, values),
            "brightness": blend(torch.zeros_like(values), values, share),
            "contrast": blend(mean, values, share),
            "equalize": torch.where(step > 0, equal.clamp(max=255), values),
            "posterize": values & -(1 << (8 - amount.long().clamp(4, 8))),
            "solarize": torch.where(values < amount, values, 255 - values),
        }
        table = values.expand(size)
        for name, changed in tables.items():
            there = (chosen == NAMES.index(name)).view(-1, 1, 1)
            table = torch.where(there, changed.expand(size), table)
        return table

    def warp(self, images: Tensor, chosen: Tensor, magnitude: Tensor) -> Tensor:
        """Rotate, shear or shift to the nearest pixel, black outside; [B, H, W, 3] -> the same."""
        _, height, width, _ = images.shape
        zero, one = torch.zeros_like(magnitude), torch.ones_like(magnitude)

        def only(name: str, value: Tensor, other: Tensor) -> Tensor:
            return torch.where(chosen == NAMES.index(name), value, other)

        angle = -torch.deg2rad(magnitude)
        cosine, sine = only("rotate", angle.cos(), one), only("rotate", angle.sin(), zero)
        across = only("shear_x", magnitude, sine)
        down = only("shear_y", magnitude, -sine)
        middle_x, middle_y = width / 2, height / 2
        left = only("rotate", middle_x - cosine * middle_x - sine * middle_y, zero)
        top = only("rotate", middle_y + sine * middle_x - cosine * middle_y, zero)
        left = only("translate_x", magnitude * width, left)
        top = only("translate_y", magnitude * height, top)
        x = self._source(cosine, across, left, height, width)
        y = self._source(down, cosine, top, height, width)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        place = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).flatten(1)
        moved = images.flatten(1, 2).gather(1, place[..., None].expand(-1, -1, 3))
        return torch.where(inside[..., None], moved.view_as(images), 0)

    @staticmethod
    def _source(a: Tensor, b: Tensor, c: Tensor, height: int, width: int) -> Tensor:
        """floor(a (x + 1/2) + b (y + 1/2) + c) of every pixel; [B] three times -> [B, H, W]."""

        def fixed(number: Tensor) -> Tensor:
            number = number.view(-1, 1, 1) * FIXED
            return (number + torch.where(number < 0, -0.5, 0.5)).long()

        x = torch.arange(width, device=a.device).view(1, 1, -1)
        y = torch.arange(height, device=a.device).view(1, -1, 1)
        return (fixed(c + a * 0.5 + b * 0.5) + x * fixed(a) + y * fixed(b)) >> 16

    def cutout(self, images: Tensor, side: Tensor, across: Tensor, down: Tensor) -> Tensor:
        """Paint a box; [B, H, W, 3] uint8, then its side and centre as shares, [B] -> uint8.

        The last row and column are painted too, as Pillow draws rectangles.
        """
        _, height, width, _ = images.shape
        inside = None
        for centre, length in ((across, width), (down, height)):
            extent = side * LARGEST_BOX * width
            first = (centre * length - extent / 2).clamp(min=0).floor()
            last = (first + extent).clamp(max=length).floor()
            place = torch.arange(length, device=images.device)
            covered = (place >= first[:, None]) & (place <= last[:, None])
            inside = covered[:, None] if inside is None else inside & covered[:, :, None]
        return torch.where(inside[..., None], self.box, images)
