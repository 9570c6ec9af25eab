"""A dataset of PIL images with the usual transforms, one image at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils import data

from kdcli.data import Dataset

EMPTY = np.zeros(0, dtype=np.int64)


class PillowDataset(data.Dataset):
    """Random crop of the padded image, random flip, tensor, normalised.

    The operations and random draws are those of torchvision's RandomCrop(size, padding),
    RandomHorizontalFlip(), ToTensor() and Normalize(mean, std) on PIL images, without their checks.
    """

    def __init__(
        self,
        dataset: Dataset,
        views: int = 1,
        contrast: Callable[[int], np.ndarray] | None = None,
    ):
        """`views` of each image; `contrast`: row number -> the negatives that go with it."""
        self.images = dataset.train.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = dataset.train.labels.numpy()
        self.padding, self.size = dataset.padding, dataset.size
        self.mean, self.std = dataset.mean, dataset.std
        self.views, self.contrast = views, contrast

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[list[Tensor], int, int, np.ndarray]:
        """Views, each [3, H, W] float32; label; row number; contrast."""
        image = Image.fromarray(self.images[index])
        views = [self.view(image) for _ in range(self.views)]
        contrast = self.contrast(index) if self.contrast else EMPTY
        return views, self.labels[index], index, contrast

    def view(self, image: Image.Image) -> Tensor:
        """One random view, [3, H, W] float32."""
        padded = ImageOps.expand(image, border=self.padding, fill=0)
        top, left = (torch.randint(0, 2 * self.padding + 1, size=(1,)).item() for _ in range(2))
        image = padded.crop((left, top, left + self.size, top + self.size))
        if torch.rand(1) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1).contiguous()
        scaled = pixels.to(torch.float32).div(255)
        mean, std = (torch.as_tensor(numbers).view(-1, 1, 1) for numbers in (self.mean, self.std))
        return scaled.sub_(mean).div_(std)
