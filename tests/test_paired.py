"""Intervals and p-values of paired answers, against a second way to each."""

import numpy as np
import pytest
import torch

from kdcli.analysis.paired import bootstrap, difference, mcnemar


def right(accuracy: float, seed: int, count: int = 1000) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)) < accuracy


def test_the_interval_is_that_of_drawing_images_one_by_one():
    ours, theirs = right(0.7, 1).double(), right(0.6, 2).double()
    low, high = bootstrap(ours, theirs)
    random = np.random.default_rng(5)
    gap = (ours - theirs).numpy()
    means = [100 * gap[random.integers(0, 1000, 1000)].mean() for _ in range(10_000)]
    assert (low, high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.15)


def test_the_interval_is_that_of_the_normal_law_for_many_images():
    ours, theirs = right(0.7, 1, 10_000).double(), right(0.65, 2, 10_000).double()
    gap = ours - theirs
    half = 1.96 * 100 * gap.std().item() / 100
    low, high = bootstrap(ours, theirs)
    centre = 100 * gap.mean().item()
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=0.05)


def test_it_is_paired_and_seeded():
    ours = right(0.7, 1)
    nearly = ours.clone()
    nearly[:10] = True
    low, high = bootstrap(nearly.double(), ours.double())
    apart = bootstrap(right(0.7, 3).double(), ours.double())
    assert high - low < 0.3 * (apart[1] - apart[0])
    assert bootstrap(nearly.double(), ours.double()) == (low, high)
    several = (right(0.7, 3).double() + right(0.7, 4).double() + right(0.7, 5).double()) / 3
    assert bootstrap(several, ours.double(), seed=1) != bootstrap(several, ours.double())


def test_mcnemar_is_the_binomial_test_of_the_images_that_one_alone_gets_right():
    stats = pytest.importorskip("scipy.stats")
    ours, theirs = right(0.7, 1), right(0.66, 2)
    gained, lost = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    expected = stats.binomtest(gained, gained + lost).pvalue
    assert mcnemar(ours, theirs) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(theirs, ours) == mcnemar(ours, theirs)
    assert mcnemar(ours, ours) == 1
    many = torch.arange(10_000) % 2 == 0
    assert mcnemar(many, ~many) == 1
    assert 0 <= mcnemar(torch.ones(10_000, dtype=torch.bool), many) < 1e-300


def test_several_runs_a_side_are_compared_by_their_mean_accuracy_and_have_no_p():
    ours, theirs = [right(0.7, seed) for seed in (1, 2, 3)], [right(0.6, 4)]
    found = difference(ours, theirs)
    means = [100 * r.double().mean().item() for r in (*ours, *theirs)]
    assert found.value == pytest.approx(sum(means[:3]) / 3 - means[3])
    assert found.low < found.value < found.high and found.p is None
    assert difference(ours[:1], theirs).p is not None
