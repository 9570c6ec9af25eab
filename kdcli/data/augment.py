"""Crop, flip and normalise whole batches on the device; a view number says which crop and flip.

The numbers are those of the usual transforms (pad with zeros, crop, flip, divide by 255, subtract
the mean, divide by the deviation), so zeros are padded before the normalisation, as uint8.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def scaled(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """[B, H, W, 3] uint8 -> [B, 3, H, W] float32, channels last; mean and std [3] on the device.

    The statistics are repeated along a row: with a last dimension of 3 the CPU's loops are too
    short, and the same operations take four times as long.
    """
    count, height, width, channels = images.shape
    mean, std = mean.repeat(width), std.repeat(width)
    rows = images.reshape(count, height, width * channels).float()
    rows = rows.div_(255).sub_(mean).div_(std)
    return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """[B, 3, H, W] uint8 -> float32 of the same shape: (x / 255 - mean) / std, channels last."""
    on = {"dtype": torch.float32, "device": images.device}
    return scaled(images.permute(0, 2, 3, 1), torch.tensor(mean, **on), torch.tensor(std, **on))


def windows(images: Tensor, padding: int) -> Tensor:
    """Every crop of [N, H, W, 3]: [N, 2P + 1, 2P + 1, H, W, 3], a view of one padded copy."""
    count, height, width, _ = images.shape
    side = 2 * padding + 1
    padded = F.pad(images, (0, 0, padding, padding, padding, padding)).contiguous()
    image, row, column, channel = padded.stride()
    return padded.as_strided(
        (count, side, side, height, width, 3), (image, row, column, row, column, channel)
    )


def cut(windows: Tensor, index: Tensor, view: Tensor) -> Tensor:
    """Images `index` [B] as views `view` [B] of what `windows` shows -> [B, H, W, 3]."""
    crops = windows.shape[1] * windows.shape[2]
    crop = view % crops
    images = windows[index, crop // windows.shape[2], crop % windows.shape[2]]
    flip = (view >= crops).view(-1, 1, 1, 1)
    return torch.where(flip, images.flip(2), images)


class Augment:
    """All views of a split, cut on demand from one padded uint8 copy on the device.

    The copy is [N, H + 2P, W + 2P, 3]: 240 MB for CIFAR-100.
    """

    def __init__(
        self,
        images: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        padding: int,
        device: torch.device | str,
    ):
        self.padding, self.size = padding, images.shape[2]
        self.mean, self.std = (
            torch.tensor(numbers, dtype=torch.float32, device=device) for numbers in (mean, std)
        )
        self.windows = windows(images.to(device).permute(0, 2, 3, 1), padding)

    def __call__(self, index: Tensor, view: Tensor) -> Tensor:
        """Images `index` [B] as views `view` [B] -> [B, 3, H, W] float32, channels last."""
        return self.scaled(self.cut(index, view))

    def cut(self, index: Tensor, view: Tensor) -> Tensor:
        """Images `index` [B] as views `view` [B] -> [B, H, W, 3] uint8."""
        return cut(self.windows, index, view)

    def scaled(self, images: Tensor) -> Tensor:
        """[B, H, W, 3] uint8 -> [B, 3, H, W] float32 normalised, channels last."""
        return scaled(images, self.mean, self.std)
