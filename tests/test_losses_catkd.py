"""CAT-KD: class activation maps, whose mean is the logits of a classifier without a bias."""

import math

import pytest
import torch

from kdcli import losses, models
from kdcli.contracts import Features
from kdcli.errors import KdcliError
from kdcli.losses import Context
from kdcli.losses.catkd import activation, binary, ranked, transfer_distance
from kdcli.models import weights
from tests.pairs import context

PLACE = torch.arange(2 * 3 * 8 * 8, dtype=torch.float64).reshape(2, 3, 8, 8)
STUDENT, TEACHER = torch.sin(0.1 * PLACE), torch.cos(0.13 * PLACE)


def made(student, teacher="resnet8", **arguments):
    """The loss and the student it makes."""
    torch.manual_seed(0)
    networks = [models.build(name, classes=100).eval() for name in (student, teacher)]
    with torch.no_grad():
        shown = [network.features(torch.randn(2, 3, 32, 32)) for network in networks]
    ctx = Context(*shown, networks[1], 100, torch.zeros(4, dtype=torch.int64), 240)
    loss = losses.build("catkd", ctx, **arguments)
    return loss, loss.wrap(networks[0])


@pytest.mark.parametrize(
    ("resolution", "normalize", "known"),
    [(2, True, 0.54538898), (2, False, 0.45567745), (4, True, 0.12656756)],
)
def test_known_values(resolution, normalize, known):
    found = transfer_distance(STUDENT, TEACHER, resolution, normalize)
    assert found.item() == pytest.approx(known, abs=6e-9)


@pytest.mark.parametrize("student", ["resnet8", "wrn_16_1", "MobileNetV2", "ShuffleV2"])
def test_the_mean_of_a_students_class_activation_maps_is_its_logits(student):
    loss, network = made(student)
    with torch.no_grad():
        shown = network.features(torch.randn(2, 3, 32, 32))
        maps = activation(shown.last, loss.heads[0].weight)
    assert network.head.bias is None
    assert torch.allclose(maps.mean((2, 3)), shown.logits, atol=1e-5)


def test_the_teachers_maps_leave_out_its_bias():
    loss, network = made("resnet8", normalize=False)
    shown = network.features(torch.randn(2, 3, 32, 32))
    with torch.no_grad():
        network.head.weight.copy_(loss.weight)  # the same maps on both sides
    assert loss(shown, shown, None).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("init", "deviation"), [("fan_out", math.sqrt(2 / 100)), ("default", 1 / math.sqrt(3 * 64))]
)
def test_the_first_weights_of_the_students_classifier(init, deviation):
    _, network = made("resnet8", init=init)
    assert network.head.weight.std().item() == pytest.approx(deviation, rel=0.03)


def test_the_student_is_rebuilt_from_its_file(tmp_path):
    _, network = made("wrn_16_1")
    weights.save(network.eval(), tmp_path / "a.safetensors", {"architecture": network.architecture})
    again, _ = weights.read(tmp_path / "a.safetensors", classes=100)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(images), network(images))
    assert again.head.bias is None


def test_a_binary_map_marks_what_is_above_its_own_mean():
    maps = torch.tensor([[[[1.0, -3.0], [2.0, 2.5]]]])  # mean absolute value 2.125
    assert binary(maps).flatten().tolist() == [0.0, 0.0, 0.0, 1.0]


def test_kept_classes_are_those_of_the_teachers_highest_or_lowest_logits():
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0], [5.0, 1.0, 0.0, 2.0]])
    assert ranked(logits, 2, "highest").flatten(1).tolist() == [[1, 3], [0, 3]]
    assert ranked(logits, 2, "lowest").flatten(1).tolist() == [[0, 2], [2, 1]]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"init": "fan-out"}, "Did you mean 'fan_out'"),
        ({"keep": "top"}, "Known: highest, lowest"),
        ({"classes": 101}, "cannot keep 101 of 100"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(KdcliError, match=said):
        losses.build("catkd", context("resnet8", "resnet8"), **settings)


def test_a_network_without_a_map_before_its_classifier_is_refused():
    shown = Features(torch.randn(2, 10), torch.randn(2, 16))
    ctx = Context(shown, shown, models.build("tiny8", classes=10), 10, torch.zeros(4), 240)
    with pytest.raises(KdcliError, match="the student's is given something else"):
        losses.build("catkd", ctx)
