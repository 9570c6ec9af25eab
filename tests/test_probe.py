"""A linear probe against other ways to the same classifier; the network is only looked at."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch import nn

from kdcli import models
from kdcli.data import Dataset, Split
from kdcli.data.plan import generator
from kdcli.engine.evaluate import evaluating
from kdcli.errors import KdcliError
from kdcli.models.network import Network
from kdcli.transfer.features import extract, freeze, standardized, with_ones
from kdcli.transfer.linear import Protocol, fit
from kdcli.transfer.probe import ProbeScored
from kdcli.transfer.probe import probe as train_classifier


def clusters(count: int, seed: int, classes: int = 5, width: int = 8) -> tuple[torch.Tensor, ...]:
    """Points around separated centres, in the positive orthant as pooled ReLU features are."""
    centres = 3 * torch.rand(classes, width, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % classes
    noise = 0.15 * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return (centres[labels] + noise).clamp_min(0), labels


def coloured(train: int = 120, test: int = 60, classes: int = 6) -> Dataset:
    """Noisy images of one colour a class, the test images drawn anew."""
    draw = torch.Generator().manual_seed(3)
    corners = torch.cartesian_prod(*[torch.tensor([0, 150])] * 3)
    colours = corners[1 : classes + 1, :, None, None]

    def split(count: int) -> Split:
        labels = torch.arange(count) % classes
        noise = torch.randint(0, 106, (count, 3, 32, 32), generator=draw)
        return Split((noise + colours[labels]).to(torch.uint8), labels)

    names = tuple(f"colour {n}" for n in range(classes))
    return Dataset(
        "coloured", names, (0.5,) * 3, (0.25,) * 3, split(train), split(test),
        padding=4, digest="0", source="here",
    )  # fmt: skip


def network() -> Network:
    """Made for 100 other classes, its batch norms with statistics of their own."""
    torch.manual_seed(0)
    made = models.build("tiny8", classes=100)
    made.train()(torch.randn(64, 3, 32, 32))
    return made


def probe(made: Network, data: Dataset, device: str = "cpu", **settings) -> ProbeScored:
    return train_classifier(freeze(made, data, device), **settings)


def last(steps) -> torch.Tensor:
    return list(steps)[-1]


def test_the_classifier_is_that_of_autograd_and_torchs_sgd():
    features, labels = clusters(50, seed=1)
    protocol = Protocol(epochs=4, lr=0.1, milestones=(2,), batch=16, weight_decay=1e-3)
    inputs = with_ones(features)
    weight = last(fit(inputs, labels, 5, protocol, seed=7))

    layer = nn.Linear(9, 5, bias=False)
    first = next(fit(inputs, labels, 5, Protocol(epochs=1, lr=1e-30), seed=7))
    layer.weight.data = first.T.clone()
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
    for epoch in range(4):
        optimizer.param_groups[0]["lr"] = 0.1 if epoch < 2 else 0.01
        for rows in torch.randperm(50, generator=generator(7, epoch, 0)).split(16):
            optimizer.zero_grad()
            F.cross_entropy(layer(inputs[rows]), labels[rows]).backward()
            optimizer.step()
    torch.testing.assert_close(weight.T, layer.weight.data, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("standardize", [False, True])
def test_on_separable_features_it_decides_as_logistic_regression_does(standardize):
    train, labels = clusters(400, seed=1)
    test, wanted = clusters(300, seed=2)
    judge = LogisticRegression(C=1e4, max_iter=2000).fit(train.numpy(), labels.numpy())
    expected = judge.predict(test.numpy())
    assert (expected == wanted.numpy()).mean() > 0.99
    if standardize:
        train, test = standardized(train, test)
    weight = last(fit(with_ones(train), labels, 5, Protocol(), seed=0))
    answered = (with_ones(test) @ weight).argmax(1)
    assert np.array_equal(answered.numpy(), expected)


def test_with_weight_decay_it_ends_where_regularised_regression_does():
    # Decay d on all weights is a penalty d/2 |w|² on the mean loss: C = 1 / (N d), the bias counted
    # as a weight of a constant feature.
    features, labels = clusters(200, seed=1)
    inputs = with_ones(features)
    protocol = Protocol(epochs=400, lr=0.2, milestones=(300, 350), batch=200, weight_decay=0.01)
    weight = last(fit(inputs, labels, 5, protocol, seed=0))
    judge = LogisticRegression(C=1 / (200 * 0.01), fit_intercept=False, max_iter=5000, tol=1e-8)
    judge.fit(inputs.numpy(), labels.numpy())
    np.testing.assert_allclose(weight.T.numpy(), judge.coef_, atol=5e-3)


def test_a_probe_scores_what_regression_on_the_same_features_scores():
    data, made = coloured(), network()
    settings = {"standardize": True, "weight_decay": 0.01, "batch": 120, "lr": 0.5, "epochs": 300}
    result = probe(made, data, seed=0, device="cpu", milestones=(250,), **settings)
    (train, labels), (test, wanted) = (
        extract(made, split, data, "cpu") for split in (data.train, data.test)
    )
    train, test = (with_ones(features).numpy() for features in standardized(train, test))
    judge = LogisticRegression(C=1 / (120 * 0.01), fit_intercept=False, max_iter=5000, tol=1e-8)
    judge.fit(train, labels.numpy())
    assert result.top1 == pytest.approx(100 * judge.score(test, wanted.numpy()), abs=1e-6)
    assert 90 < result.top1 <= result.best <= 100
    assert result.loss == pytest.approx(log_loss(wanted.numpy(), judge.predict_proba(test)), 1e-3)
    assert result.train_loss == pytest.approx(
        log_loss(labels.numpy(), judge.predict_proba(train)), 1e-3
    )
    assert (result.train_images, result.test_images, result.classes) == (120, 60, 6)
    assert (result.width, result.epochs) == (32, 300)
    assert 0 < result.extract_seconds < result.seconds


def test_as_published_the_loss_falls_from_that_of_guessing():
    result = probe(network(), coloured(), seed=0, device="cpu")
    assert result.epochs == 120
    assert result.train_loss < 0.8 * np.log(6)
    assert result.top1 > 3 * 100 / 6


def test_the_network_is_bit_identical_afterwards():
    made = network()
    made.block1.eval()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    modes = [module.training for module in made.modules()]
    probe(made, coloured(), seed=0, device="cpu", epochs=2)
    assert all(torch.equal(before[name], now) for name, now in made.state_dict().items())
    assert modes == [module.training for module in made.modules()]
    assert all(parameter.grad is None for parameter in made.parameters())


def test_features_are_those_of_a_frozen_network_and_unaugmented_images():
    data, made = coloured(), network()
    features, labels = extract(made, data.test, data, "cpu")
    images = (data.test.images.float() / 255 - 0.5) / 0.25
    with evaluating(made):
        expected = made.features(images).pooled
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(labels, data.test.labels)


def test_the_seed_decides_everything():
    data, made = coloured(), network()
    one, two, other = (
        probe(made, data, seed=seed, device="cpu", epochs=3).loss for seed in (0, 0, 1)
    )
    assert one == two != other


def test_progress_is_told_to_the_last_epoch():
    told = []
    probe(network(), coloured(), seed=0, device="cpu", epochs=3, report=lambda *it: told.append(it))
    assert [(done, total) for done, total, _ in told] == [(1, 3), (2, 3), (3, 3)]
    assert told[-1][2].startswith("top-1 ")


def test_a_feature_that_never_changes_does_not_divide_by_zero():
    train, test = standardized(torch.tensor([[1.0, 2], [1, 4]]), torch.tensor([[1.0, 3]]))
    assert train[:, 0].tolist() == [0, 0]
    assert test.tolist() == [[0, 0]]
    assert train[:, 1].std().item() == pytest.approx(1)


def test_what_cannot_be_probed_is_named():
    with pytest.raises(KdcliError, match="epochs = 0"):
        probe(network(), coloured(), seed=0, device="cpu", epochs=0)
    broken = network()
    broken.block0[0].weight.data.fill_(float("nan"))
    with pytest.raises(KdcliError, match="weights are broken") as caught:
        probe(broken, coloured(), seed=0, device="cpu", epochs=1)
    assert caught.value.code == 4
    with pytest.raises(KdcliError, match="diverged at lr 100") as caught:
        probe(network(), coloured(), seed=0, device="cpu", epochs=20, lr=100, weight_decay=9)
    assert caught.value.code == 5


@pytest.mark.gpu
def test_a_gpu_trains_the_same_classifier_twice_and_as_the_cpu_does():
    data = coloured()
    one, two, here = (
        probe(network(), data, seed=0, device=device, epochs=20)
        for device in ("cuda", "cuda", "cpu")
    )
    assert one.loss == two.loss
    assert one.train_loss == pytest.approx(here.train_loss, rel=1e-2)
