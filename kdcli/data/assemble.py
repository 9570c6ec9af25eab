"""From a reader's arrays to a Dataset: subset, size, checks and digest, the same for all."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import torch

from kdcli.data import TABLE, Dataset, Split, Triple
from kdcli.errors import DATA, KdcliError


class Arrays(NamedTuple):
    """One split as a reader returns it."""

    images: np.ndarray  # [N, 3, H, W] uint8
    labels: np.ndarray  # [N] int64


class Raw(NamedTuple):
    """What a reader returns."""

    train: Arrays
    test: Arrays
    classes: tuple[str, ...]
    source: str
    notes: tuple[str, ...] = ()
    mean: Triple | None = None  # None: the table's
    std: Triple | None = None


def first_of_each(labels: np.ndarray, count: int) -> np.ndarray:
    """Positions, ascending, of the first `count` images of each class; [N] -> [M].

    >>> first_of_each(np.array([0, 1, 0, 0, 1]), 2).tolist()
    [0, 1, 2, 4]
    """
    order = np.argsort(labels, kind="stable")
    ranked = labels[order]
    rank = np.arange(len(labels)) - np.searchsorted(ranked, ranked)
    return np.sort(order[rank < count])


def checked(name: str, split: str, arrays: Arrays, classes: int) -> Arrays:
    """`arrays` in one memory layout; KdcliError (data) for what no training could use."""
    images, labels = arrays
    if len(images) == 0 or len(images) != len(labels):
        raise KdcliError(
            f"{name}: {len(images)} {split} images with {len(labels)} labels; each needs one.",
            DATA,
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise KdcliError(
            f"{name}: {split} labels run from {labels.min()} to {labels.max()}; "
            f"allowed are 0 to {classes - 1}.",
            DATA,
        )
    return Arrays(np.ascontiguousarray(images, np.uint8), np.ascontiguousarray(labels, np.int64))


def digest(*splits: Arrays) -> str:
    """BLAKE2b, 128 bits in hex, of shapes, pixels and labels."""
    state = hashlib.blake2b(digest_size=16)
    for images, labels in splits:
        state.update(repr(images.shape).encode())
        state.update(images)
        state.update(labels.astype("<i8"))
    return state.hexdigest()


def assemble(name: str, raw: Raw, size: int | None, train_per_class: int | None) -> Dataset:
    """Subset, resize, check and wrap; the digest is of what training will see."""
    train = checked(name, "train", raw.train, len(raw.classes))
    test = checked(name, "test", raw.test, len(raw.classes))
    notes = list(raw.notes)
    if train_per_class is not None:
        keep = first_of_each(train.labels, train_per_class)
        train = Arrays(train.images[keep], train.labels[keep])
        fewest = np.bincount(train.labels, minlength=len(raw.classes)).min()
        if fewest < train_per_class:
            notes.append(f"{name}: some class has {fewest} training images, not {train_per_class}.")
    if size is not None and size != train.images.shape[-1]:
        from kdcli.data.decode import resize

        train, test = (Arrays(resize(split.images, size), split.labels) for split in (train, test))
    entry = TABLE.get(name)
    return Dataset(
        name=name,
        classes=raw.classes,
        mean=raw.mean or entry.mean,
        std=raw.std or entry.std,
        train=Split(torch.from_numpy(train.images), torch.from_numpy(train.labels)),
        test=Split(torch.from_numpy(test.images), torch.from_numpy(test.labels)),
        padding=train.images.shape[-1] // 8,
        digest=digest(train, test),
        source=raw.source,
        notes=tuple(notes),
    )
