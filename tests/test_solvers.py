"""Regression to its optimum and a vote of neighbours, each against a second way to the same."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from kdcli.errors import KdcliError
from kdcli.transfer import logistic as module
from kdcli.transfer.features import Frozen, standardized, with_ones
from kdcli.transfer.logistic import choose, logistic, solve, split
from kdcli.transfer.neighbours import nearest, vote


def points(count: int, seed: int, classes: int = 5, width: int = 8, noise: float = 0.8):
    """Overlapping clusters with widths of their own along each axis, positive as after a ReLU."""
    centres = 3 * torch.rand(classes, width, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % classes
    spread = noise * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return (centres[labels] + spread).clamp_min(0) * torch.arange(1.0, width + 1), labels


def frozen(train: int = 300, test: int = 200, **shape) -> Frozen:
    classes = shape.get("classes", 5)
    return Frozen(*points(train, 1, **shape), *points(test, 2, **shape), classes, 0.5)


@pytest.mark.parametrize("decay", [1.0, 0.01, 1e-4])
def test_the_optimum_is_that_of_scikit_learn(decay):
    features, labels = points(300, seed=1)
    features, _ = standardized(features.double(), features.double())
    found = solve(with_ones(features), labels, 5, decay, tolerance=1e-7)
    judge = LogisticRegression(C=1 / (300 * decay), tol=1e-9, max_iter=10_000)
    judge.fit(features.numpy(), labels.numpy())
    np.testing.assert_allclose(found.weight[:-1].T, judge.coef_, atol=1e-4)
    bias = found.weight[-1].numpy()
    np.testing.assert_allclose(bias - bias.mean(), judge.intercept_, atol=1e-4)
    assert found.gradient <= 1e-7 and found.iterations > 3


def test_the_gradient_written_out_is_that_of_autograd():
    features, labels = points(60, seed=1)
    inputs = with_ones(standardized(features, features)[0].double())
    found = solve(inputs, labels, 5, 0.03, tolerance=1e-7)
    weight = found.weight.clone().requires_grad_()
    (F.cross_entropy(inputs @ weight, labels) + 0.015 * weight[:-1].square().sum()).backward()
    assert weight.grad.abs().max().item() < 1e-6
    weight.grad = None
    (F.cross_entropy(inputs @ weight, labels) + 0.03 * weight[:-1].square().sum()).backward()
    assert weight.grad.abs().max().item() > 1e-3, "another decay has another optimum"


def test_the_result_is_that_of_scikit_learn_with_the_chosen_c_on_all_training_images():
    found = frozen()
    result = logistic(found, seed=0)
    train, test = (f.numpy() for f in standardized(found.train.double(), found.test.double()))
    judge = LogisticRegression(C=result.settings["C"], tol=1e-9, max_iter=10_000)
    judge.fit(train, found.labels.numpy())
    assert result.top1 == pytest.approx(100 * judge.score(test, found.wanted.numpy()))
    assert result.train_top1 == pytest.approx(100 * judge.score(train, found.labels.numpy()))
    assert result.converged and result.gradient <= 1e-6
    assert (result.train_images, result.test_images, result.width) == (300, 200, 8)
    assert result.seconds >= result.extract_seconds == 0.5


def test_the_decay_is_the_best_on_held_out_images_and_the_test_images_choose_nothing(monkeypatch):
    found = frozen(train=100, noise=2.0)
    inputs, _ = standardized(found.train.double(), found.train.double())
    inputs = with_ones(inputs)
    fit, held = split(found.labels, seed=3)
    scores = []
    for decay in module.CANDIDATES:
        judge = LogisticRegression(C=1 / (len(fit) * decay), tol=1e-8, max_iter=5000)
        judge.fit(inputs[fit, :-1].numpy(), found.labels[fit].numpy())
        scores.append(100 * judge.score(inputs[held, :-1].numpy(), found.labels[held].numpy()))
    monkeypatch.setattr(module, "PATIENCE", 99)
    monkeypatch.setattr(module, "ROUGH", 1e-6)
    chosen, top1, _ = choose(inputs, found.labels, 5, seed=3)
    assert top1 == pytest.approx(max(scores))
    assert chosen == module.CANDIDATES[scores.index(max(scores))]
    other = logistic(found._replace(wanted=found.wanted.flip(0)), seed=3)
    assert other.settings["weight_decay"] == chosen


def test_the_split_keeps_the_share_of_each_class_and_hangs_on_the_seed():
    labels = torch.tensor([0] * 10 + [1] * 20 + [2] * 2 + [3])
    fit, held = split(labels, seed=0)
    assert labels[held].bincount(minlength=4).tolist() == [2, 4, 1, 0]
    assert sorted(torch.cat([fit, held]).tolist()) == list(range(33))
    assert split(labels, seed=0)[1].tolist() == held.tolist() != split(labels, seed=1)[1].tolist()
    with pytest.raises(KdcliError, match="some class must have two"):
        split(torch.arange(4), seed=0)


def test_a_search_that_gets_worse_ends_and_tells_its_way():
    told = []
    result = logistic(frozen(train=60, noise=3.0), seed=0, report=lambda *it: told.append(it))
    assert len(told) <= len(module.CANDIDATES) + 1
    assert told[0][2].startswith("decay 1: held-out top-1 ")
    assert told[-1][:2] == (14, 14) and f"{result.top1:.2f}" in told[-1][2]


def test_votes_are_those_of_scikit_learns_weighted_neighbours():
    found = frozen()
    train, test = F.normalize(found.train, dim=1), F.normalize(found.test, dim=1)
    # of unit vectors the cosine is 1 - distance² / 2
    judge = KNeighborsClassifier(20, weights=lambda d: np.exp((1 - d**2 / 2) / 0.07))
    judge.fit(train.numpy(), found.labels.numpy())
    result = nearest(found, 20)
    expected = 100 * judge.score(test.numpy(), found.wanted.numpy())
    assert result.top1 == pytest.approx(expected, abs=0.51)
    votes = vote(found.train, found.labels, found.test, 5, 20, 0.07)
    shares = (votes / votes.sum(1, keepdim=True)).numpy()
    np.testing.assert_allclose(shares, judge.predict_proba(test.numpy()), atol=1e-3)
    one = KNeighborsClassifier(1).fit(train.numpy(), found.labels.numpy())
    assert result.nearest_top1 == pytest.approx(100 * one.score(test.numpy(), found.wanted.numpy()))


def test_a_vote_by_hand():
    train = torch.tensor([[1.0, 0], [0, 2], [0, 5]])
    query = torch.tensor([[3.0, 4]])  # cosines 0.6, 0.8 and 0.8
    votes = vote(train, torch.tensor([0, 1, 1]), query, 2, 3, 0.07)
    torch.testing.assert_close(votes, torch.tensor([[math.exp(-0.2 / 0.07), 2]]))
    assert vote(train, torch.tensor([0, 1, 1]), query, 2, 99, 0.07).equal(votes)


def test_neighbours_below_one_are_refused_and_too_many_are_all():
    with pytest.raises(KdcliError, match="0 neighbours"):
        nearest(frozen(), 0)
    assert nearest(frozen(train=10), 50).settings["neighbours"] == 10


@pytest.mark.gpu
def test_a_gpu_ends_where_the_cpu_does():
    here = frozen()
    there = Frozen(*(tensor.cuda() for tensor in here[:4]), *here[4:])
    one, other = logistic(here, seed=0), logistic(there, seed=0)
    assert one.settings == other.settings and other.converged
    assert one.train_loss == pytest.approx(other.train_loss, rel=1e-5)
    assert (one.top1, nearest(here).top1) == (other.top1, nearest(there).top1)
