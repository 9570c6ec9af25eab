"""Linear probe: what a frozen network's penultimate features are worth on another dataset.

The task is that of Tian, Krishnan, Isola: Contrastive Representation Distillation, ICLR 2020,
arXiv:1910.10699, §4.1 (CIFAR-100 students on STL-10 and TinyImageNet at 32x32), which states
neither optimizer nor augmentation. The defaults are the schedule in the released code of ICD and
DCD (SGD, batch 64, learning rate 0.05, 120 epochs, a tenth of it after 30, 60 and 90). Three
things differ, so that these numbers and published ones are near each other, not the same:

- The network stays in evaluation mode. The released code trains the classifier in training mode:
  batch norms then use each batch's statistics, and their averages drift to the new dataset.
- Images are neither cropped nor flipped, so that each image's features are computed once.
- The classifier has no weight decay (released: 5e-4).

The first and the third are what mdistiller's maintainer advises for this comparison. Of all
networks of a table, only those probed in the same way should be compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdcli.data import Dataset, Split
from kdcli.data.loader import test_batches
from kdcli.engine.evaluate import Counts, Scores, check_labels, evaluating
from kdcli.errors import CHECKPOINT, DIVERGED, KdcliError
from kdcli.models.network import Network
from kdcli.transfer.linear import Protocol, fit, standardized, with_ones

Report = Callable[[int, int, str], None]  # epochs done, epochs in all, what is to be said


@dataclass(frozen=True)
class ProbeResult:
    """What the classifier scores on the dataset's test images; accuracies in percent."""

    top1: float  # after the last epoch: the number to report
    top5: float  # among the best min(5, K) answers
    loss: float  # cross-entropy
    best: float  # the highest top-1 of any epoch, so chosen by the test set
    best_epoch: int  # from 1
    train_top1: float
    train_loss: float
    train_images: int
    test_images: int
    classes: int
    width: int  # features an image
    epochs: int
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


def _score(inputs: Tensor, labels: Tensor, weight: Tensor, began: float) -> Scores:
    counts = Counts(weight.shape[1], inputs.device)
    counts.add(inputs @ weight, labels)
    return counts.scores(began)


def probe(
    network: Network,
    dataset: Dataset,
    *,
    seed: int,
    device: torch.device | str,
    report: Report | None = None,
    **settings: Any,
) -> ProbeResult:
    """Train a linear classifier on the features of `dataset`'s training images, score its test's.

    `settings` are fields of `Protocol`. `dataset` is at the size the network is to see. `network`
    is moved to `device`; no weight, buffer or mode of it changes. KdcliError (checkpoint) for a
    network whose features are NaN, (diverged) when the classifier's weights are.
    """
    began = time.perf_counter()
    protocol, classes = Protocol(**settings), len(dataset.classes)
    for split in (dataset.train, dataset.test):
        check_labels(split.labels, classes, dataset.name)
    if report:
        report(0, protocol.epochs, "computing the features")
    network.to(device)
    train, known = extract(network, dataset.train, dataset, device)
    test, wanted = extract(network, dataset.test, dataset, device)
    extracted = time.perf_counter() - began
    if protocol.standardize:
        train, test = standardized(train, test)
    train, test = with_ones(train), with_ones(test)
    top1 = []
    for weight in fit(train, known, classes, protocol, seed):
        top1.append(100 * ((test @ weight).argmax(1) == wanted).double().mean().item())
        if report:
            report(len(top1), protocol.epochs, f"top-1 {top1[-1]:.2f} %")
    if not weight.isfinite().all():
        raise KdcliError(
            f"the probe's classifier diverged at lr {protocol.lr:g}; choose a lower one.", DIVERGED
        )
    scores, fitted = _score(test, wanted, weight, began), _score(train, known, weight, began)
    return ProbeResult(
        top1=scores.top1,
        top5=scores.top5,
        loss=scores.loss,
        best=max(top1),
        best_epoch=1 + top1.index(max(top1)),
        train_top1=fitted.top1,
        train_loss=fitted.loss,
        train_images=len(known),
        test_images=len(wanted),
        classes=classes,
        width=train.shape[1] - 1,
        epochs=protocol.epochs,
        seconds=time.perf_counter() - began,
        extract_seconds=extracted,
    )
