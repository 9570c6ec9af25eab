"""Weighted nearest neighbours on frozen features: nothing is trained.

Wu, Xiong, Yu, Lin: Unsupervised Feature Learning via Non-Parametric Instance Discrimination.
CVPR 2018, arXiv:1805.01978, §3.4: each of the k training images with the highest cosine similarity
s votes exp(s / 0.07) for its class. They take k = 200. Caron et al.: Emerging Properties in
Self-Supervised Vision Transformers (DINO). ICCV 2021, arXiv:2104.14294, find 20 best throughout,
the default here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdcli.errors import KdcliError
from kdcli.transfer.features import Frozen, Scored, common, score

NEIGHBOURS, TEMPERATURE = 20, 0.07
CHUNK = 500  # test images whose similarities are held at once


@dataclass(frozen=True, kw_only=True)
class NeighbourScored(Scored):
    """Of the vote; `settings` has k and the temperature."""

    nearest_top1: float  # of the single nearest training image


def vote(
    train: Tensor, labels: Tensor, test: Tensor, classes: int, neighbours: int, temperature: float
) -> Tensor:
    """Votes [M, K] of train [N, D] with labels [N] for test [M, D]; the most similar counts 1."""
    train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
    found = []
    for queries in test.split(CHUNK):
        near = (queries @ train.T).topk(min(neighbours, len(train)), dim=1)
        # relative to the nearest: exp(1 / 0.07) is 1.6e6, and a vote is only compared
        weights = ((near.values - near.values[:, :1]) / temperature).exp()
        ballots = F.one_hot(labels[near.indices], classes)  # [B, k, K]; summed in a fixed order
        found.append((weights.unsqueeze(2) * ballots).sum(1))
    return torch.cat(found)


def nearest(found: Frozen, neighbours: int = NEIGHBOURS) -> NeighbourScored:
    """Every test image by the vote of its `neighbours` nearest training images."""
    if neighbours < 1:
        raise KdcliError(f"{neighbours} neighbours cannot vote; at least 1.")
    began = time.perf_counter()

    def scores(count: int) -> Tensor:
        return vote(found.train, found.labels, found.test, found.classes, count, TEMPERATURE)

    many, one = (
        score(scores(neighbours), found.wanted, began),
        score(scores(1), found.wanted, began),
    )
    return NeighbourScored(
        solver="knn",
        top1=many.top1,
        top5=many.top5,
        nearest_top1=one.top1,
        settings={
            "neighbours": min(neighbours, len(found.labels)),
            "temperature": TEMPERATURE,
            "similarity": "cosine",
        },
        **common(found, began),
    )
