"""Images to another size, with PIL, whose bilinear filter the published protocols use."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from PIL import Image

Item = TypeVar("Item")
Made = TypeVar("Made")


def in_threads(function: Callable[[Item], Made], items: Sequence[Item]) -> list[Made]:
    """`function` of each item, in order; PIL decodes and resizes outside the interpreter lock."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(min(8, workers or 1)) as pool:
        return list(pool.map(function, items))


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """[N, 3, H, W] uint8 -> [N, 3, size, size], stretched with PIL's bilinear filter."""
    result = np.empty((len(images), 3, size, size), np.uint8)

    def fill(start: int) -> None:
        for row in range(start, min(start + 256, len(images))):
            picture = Image.fromarray(np.ascontiguousarray(images[row].transpose(1, 2, 0)))
            small = picture.resize((size, size), Image.Resampling.BILINEAR)
            result[row] = np.asarray(small).transpose(2, 0, 1)

    in_threads(fill, range(0, len(images), 256))
    return result
