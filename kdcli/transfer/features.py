"""What a frozen network shows of another dataset's images, computed once for every classifier."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdcli.data import Dataset, Split
from kdcli.data.loader import test_batches
from kdcli.engine.evaluate import Counts, Scores, check_labels, evaluating
from kdcli.errors import CHECKPOINT, KdcliError
from kdcli.models.network import Network

Report = Callable[[int, int, str], None]  # steps done, steps in all, what is to be said


class Frozen(NamedTuple):
    """Penultimate features of a dataset's images as they are, on the device."""

    train: Tensor  # [N, D] float32
    labels: Tensor  # [N] int64, of `train`
    test: Tensor  # [M, D] float32
    wanted: Tensor  # [M] int64, of `test`
    classes: int
    seconds: float  # that computing them took


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a classifier on frozen features scores on the test images; accuracies in percent."""

    solver: str
    top1: float  # the number to report
    top5: float  # among the best min(5, K) answers
    train_images: int
    test_images: int
    classes: int
    width: int  # features an image
    settings: dict[str, Any]  # all that the solver was told, or chose on the training images
    seconds: float  # all of it
    extract_seconds: float  # of that, for the features


def extract(
    network: Network, split: Split, dataset: Dataset, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Pooled features [N, D] float32 and labels [N] of the images as they are, on the device."""
    pooled, labels = [], []
    with evaluating(network):
        for images, known in test_batches(split, dataset.mean, dataset.std, device):
            pooled.append(network.features(images).pooled.float())
            labels.append(known)
    features = torch.cat(pooled)
    if not features.isfinite().all():
        raise KdcliError(
            f"the network answers {dataset.name} with features that are NaN or infinite; its "
            "weights are broken.",
            CHECKPOINT,
        )
    return features, torch.cat(labels)


def freeze(network: Network, dataset: Dataset, device: torch.device | str) -> Frozen:
    """The features of both splits of `dataset`, which is at the size the network is to see.

    `network` is moved to `device`; no weight, buffer or mode of it changes. KdcliError (checkpoint)
    for a network whose features are NaN, (data) for labels that are none.
    """
    began = time.perf_counter()
    classes = len(dataset.classes)
    for split in (dataset.train, dataset.test):
        check_labels(split.labels, classes, dataset.name)
    network.to(device)
    train = extract(network, dataset.train, dataset, device)
    test = extract(network, dataset.test, dataset, device)
    return Frozen(*train, *test, classes, time.perf_counter() - began)


def standardized(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """[N, D] and [M, D], each feature minus its mean, over its deviation, both of `train`."""
    spread, centre = torch.std_mean(train, dim=0)
    spread = torch.where(spread > 0, spread, 1)  # a feature that never changes says nothing
    return (train - centre) / spread, (test - centre) / spread


def with_ones(features: Tensor) -> Tensor:
    """[N, D] -> [N, D + 1]: the bias becomes the last weight."""
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


def score(logits: Tensor, labels: Tensor, began: float) -> Scores:
    """Of [N, K] and [N] at once."""
    counts = Counts(logits.shape[1], logits.device)
    counts.add(logits, labels)
    return counts.scores(began)


def common(found: Frozen, began: float) -> dict[str, Any]:
    """The fields of `Scored` that no solver decides; `began` is when this one did."""
    return {
        "train_images": len(found.labels),
        "test_images": len(found.wanted),
        "classes": found.classes,
        "width": found.train.shape[1],
        "seconds": found.seconds + time.perf_counter() - began,
        "extract_seconds": found.seconds,
    }
