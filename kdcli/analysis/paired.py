"""Two networks on the same test images: is their difference more than chance?

Both tests are over test images. Neither says how the difference would vary with another seed of
training; only several seeds do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

RESAMPLES, CONFIDENCE, SEED = 10_000, 0.95, 0


class Difference(NamedTuple):
    """Accuracy of one minus that of the other, in percent points."""

    value: float
    low: float  # of the interval
    high: float
    p: float | None  # McNemar's, two-sided; None where either side is a mean of several runs


def bootstrap(
    ours: Tensor, theirs: Tensor, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """The 95 % percentile interval of mean(ours - theirs), in percent points; [N] each.

    (Efron, Tibshirani: An Introduction to the Bootstrap. 1993, §13.3.) Test images are drawn with
    replacement, both networks judged on the same ones. Drawing N of N differences, of which there
    are a few distinct values, is drawing how often each value comes: one multinomial a resample.

    >>> bootstrap(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 0.0]))
    (100.0, 100.0)
    """
    values, counts = torch.unique((ours - theirs).double(), return_counts=True)
    count = len(ours)
    drawn = np.random.default_rng(seed).multinomial(count, counts.numpy() / count, resamples)
    means = 100 * (drawn @ values.numpy()) / count
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def mcnemar(ours: Tensor, theirs: Tensor) -> float:
    """The two-sided exact p that as many images would be right with one network alone; [N] bool.

    (McNemar 1947; the binomial form.) Images that both or neither get right say nothing.

    >>> mcnemar(torch.tensor([True] * 5), torch.tensor([False] * 5))
    0.0625
    """
    gained, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    total, fewer = gained + lost, min(gained, lost)
    term = ways = 1
    for taken in range(fewer):  # binomial coefficients of `total`, each from the one before
        term = term * (total - taken) // (taken + 1)
        ways += term
    return min(1.0, 2 * ways / 2**total)


def difference(ours: list[Tensor], theirs: list[Tensor], resamples: int = RESAMPLES) -> Difference:
    """Of the mean accuracy over runs; each run's [N] bool of right answers to the same images."""
    assert len({len(right) for right in (*ours, *theirs)}) == 1, "other test images"
    one, other = (torch.stack(rights).double().mean(0) for rights in (ours, theirs))
    low, high = bootstrap(one, other, resamples)
    single = len(ours) == len(theirs) == 1
    p = mcnemar(ours[0], theirs[0]) if single else None
    return Difference(100 * (one.mean() - other.mean()).item(), low, high, p)
