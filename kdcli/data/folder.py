"""Images of one's own: PATH/train/CLASS/... and PATH/test/CLASS/... (or val)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from kdcli.data import FOLDER, Triple
from kdcli.data.assemble import Arrays, Raw, first_of_each
from kdcli.data.decode import decode, opened
from kdcli.data.trees import Folder
from kdcli.errors import DATA, KdcliError

KINDS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
TESTS = ("test", "val", "valid", "validation")
DEFAULT, LARGEST = 32, 128  # pixels; a size beyond the largest has to be asked for


def locate(name: str, root: Path) -> Path | None:
    """The folder itself, wherever `root` is; KdcliError (data) without train and test parts."""
    path = Path(name.removeprefix(FOLDER))
    _parts(path)
    return path


def read(
    name: str, root: Path, *, download: bool, size: int | None, train_per_class: int | None
) -> Raw:
    """Every image below the class folders, RGB, stretched to `size`.

    Without `size` it is the most common one of the training images when that is square and at most
    128, else 32. Mean and deviation are measured on the training images that are kept.
    """
    path = locate(name, root)
    train_part, test_part = _parts(path)
    classes, train_files, train_labels = _listed(path / train_part)
    test_classes, test_files, test_labels = _listed(path / test_part)
    if classes != test_classes:
        odd = sorted(set(classes) ^ set(test_classes))
        raise KdcliError(
            f"{path}: {train_part}/ and {test_part}/ must hold the same class folders; "
            f"only one of them has {', '.join(odd[:5])}{', ...' if len(odd) > 5 else ''}.",
            DATA,
        )
    if train_per_class:
        keep = first_of_each(train_labels, train_per_class)
        train_files, train_labels = [train_files[row] for row in keep], train_labels[keep]
    notes = []
    if size is None:
        size, notes = _common_size(path / train_part, train_files)
    train, test = (
        Arrays(decode(lambda f, top=top: (top / f).read_bytes(), files, size, str(top)), labels)
        for top, files, labels in (
            (path / train_part, train_files, train_labels),
            (path / test_part, test_files, test_labels),
        )
    )
    return Raw(train, test, classes, str(path), tuple(notes), *statistics(train.images))


def _parts(path: Path) -> tuple[str, str]:
    test = next((part for part in TESTS if (path / part).is_dir()), None)
    if test is None or not (path / "train").is_dir():
        raise KdcliError(
            f"{path} must hold train/ and test/ (or val/), each with one folder a class: "
            f"{'it has no train/' if test else 'it has no test/ or val/'}."
            if path.is_dir()
            else f"{path} is no folder: give folder:PATH of one with train/ and test/ in it.",
            DATA,
        )
    return "train", test


def _listed(top: Path) -> tuple[tuple[str, ...], list[str], np.ndarray]:
    """Class names, files below `top`, sorted by class and name, and labels [N]."""
    found = [file for file in Folder(top).files if file.lower().endswith(KINDS) and "/" in file]
    folders = [entry.name for entry in top.iterdir() if entry.is_dir()]
    classes = tuple(sorted(name for name in folders if not name.startswith(".")))
    number = {name: label for label, name in enumerate(classes)}
    labels = [number.get(file.split("/")[0], -1) for file in found]
    pairs = sorted((label, file) for label, file in zip(labels, found, strict=True) if label >= 0)
    empty = sorted(set(range(len(classes))) - {label for label, _ in pairs})
    if empty or len(classes) < 2:
        what = f"no image in {classes[empty[0]]}/" if empty else f"{len(classes)} class folders"
        raise KdcliError(
            f"{top} has {what}: two classes or more are needed, with images ({', '.join(KINDS)}).",
            DATA,
        )
    return classes, [file for _, file in pairs], np.array([label for label, _ in pairs], np.int64)


def _common_size(top: Path, files: list[str]) -> tuple[int, list[str]]:
    """The size to use, and a note when it changes images; reads headers only."""
    sizes: Counter[tuple[int, int]] = Counter()
    for file in files:
        with opened(top / file, f"{top}/{file}") as picture:
            sizes[picture.size] += 1
    (width, height), _ = sizes.most_common(1)[0]
    size = width if width == height and 8 <= width <= LARGEST else DEFAULT
    others = len(files) - sizes[size, size]
    if not others:
        return size, []
    return size, [
        f"{top}: {others:,} of {len(files):,} images are stretched to {size}x{size}; "
        "set the size to choose another."
    ]


def statistics(images: np.ndarray) -> tuple[Triple, Triple]:
    """Mean and deviation of [N, 3, H, W] uint8 per channel, as pixels in [0, 1], four decimals.

    Summed in whole numbers, so that no order of addition matters.
    """
    counts = np.stack(
        [np.bincount(images[:, channel].ravel(), minlength=256) for channel in range(3)]
    )
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(1)
    variance = counts @ values**2 / counts.sum(1) - mean**2
    # a channel of one value has no deviation to divide by: one grey level stands in
    std = np.sqrt(np.maximum(variance, (1 / 255) ** 2))
    return tuple(np.round(mean, 4).tolist()), tuple(np.round(std, 4).tolist())
