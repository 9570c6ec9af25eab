"""A network of anyone's is distilled like one of ours, and stays what it is."""

import copy
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdcli import models
from kdcli.errors import KdcliError
from kdcli.models.foreign import Foreign

IMAGES = torch.linspace(-1, 1, 3 * 3 * 32 * 32).view(3, 3, 32, 32)
MODULE = """
from torch import nn

def small(num_classes, width=4):
    conv = nn.Conv2d(3, width, 3, stride=2)
    return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(width, num_classes))

def deaf(num_classes):
    return small(1000)

def broken(num_classes):
    raise RuntimeError("no weights")

def bare(num_classes):
    return nn.Flatten()

def number(num_classes):
    return 3

constant = 3
"""


class Backbone(nn.Module):
    """Two sizes, a map that is overwritten by the next of its size, a functional pool."""

    def __init__(self, classes: int):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.deep = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Linear(6, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.deep(self.act(self.first(images)))
        return self.head(F.dropout(x.mean((2, 3)), 0.0))


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A module of the user's in the working directory."""
    (tmp_path / "shelf_of_nets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "shelf_of_nets"
    sys.modules.pop("shelf_of_nets", None)


def test_the_last_map_of_each_size_is_a_stage():
    torch.manual_seed(0)
    net = Backbone(7).eval()
    with torch.no_grad():
        shown = Foreign(net, "mine", 7).features(IMAGES)
        first = net.first(IMAGES).relu()
        second = net.deep(first)
    assert len(shown.stages) == 2
    assert torch.equal(shown.stages[0], first)
    assert torch.equal(shown.stages[1], second)
    assert shown.preacts == shown.stages
    assert torch.equal(shown.pooled, second.mean((2, 3)))
    assert torch.equal(shown.logits, net(IMAGES))


def test_a_network_inside_a_wrapper_is_found():
    net = Backbone(7).eval()
    wrapped = Foreign(nn.Sequential(nn.BatchNorm2d(3, affine=False).eval(), net), "mine", 7)
    with torch.no_grad():
        assert [stage.shape[1:] for stage in wrapped.features(IMAGES).stages] == [
            (4, 32, 32),
            (6, 16, 16),
        ]


def test_nothing_is_left_on_the_network():
    network = Foreign(Backbone(7), "mine", 7)
    network.features(IMAGES)
    network.net.deep[0].stride = (0, 0)  # breaks the next call half-way
    with pytest.raises(RuntimeError):
        network.features(IMAGES)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_gradients_flow_from_stages_and_pooled():
    network = Foreign(Backbone(7), "mine", 7)
    shown = network.features(IMAGES)
    (shown.stages[0].sum() + shown.pooled.sum()).backward()
    assert network.net.first.weight.grad.abs().sum() > 0


def test_torchvision_is_taken_by_name_copied_and_exported():
    torch.manual_seed(0)
    network = models.build("torchvision:shufflenet_v2_x0_5", classes=7).eval()
    twin = copy.deepcopy(network)
    with torch.no_grad():
        shown = network.features(IMAGES)
        assert torch.equal(twin.features(IMAGES).logits, shown.logits)
        batch = torch.export.Dim("batch")
        program = torch.export.export(network, (IMAGES,), dynamic_shapes=({0: batch},))
        assert torch.allclose(program.module()(IMAGES[:2]), shown.logits[:2], atol=1e-6)
    assert shown.pooled.shape == (3, 1024)
    assert shown.logits.shape == (3, 7)
    sides = [stage.shape[2] for stage in shown.stages]
    assert sides == sorted(set(sides), reverse=True)
    assert network.architecture == {"name": "torchvision:shufflenet_v2_x0_5", "classes": 7}
    assert "fc.weight" in network.body.state_dict()  # torchvision's own names


def test_a_factory_is_found_in_the_working_directory(shelf):
    network = models.build(f"{shelf}:small", classes=7, width=5)
    assert network.architecture == {"name": f"{shelf}:small", "classes": 7, "width": 5}
    again = models.from_architecture(network.architecture)
    assert again.features(IMAGES).pooled.shape == (3, 5)
    assert [stage.shape[1:] for stage in again.features(IMAGES).stages] == [(5, 15, 15)]


@pytest.mark.parametrize(
    ("item", "part"),
    [
        ("deaf", "has 1000 outputs, not the 7 classes"),
        ("broken", "failed: RuntimeError: no weights"),
        ("bare", "has no nn.Linear"),
        ("number", "must return a torch nn.Module, not int"),
        ("constant", "is not a function"),
        ("absent", "cannot be imported"),
        ("a b", "write package.module:factory"),
    ],
)
def test_a_factory_that_is_no_good_is_one_sentence(shelf, item, part):
    with pytest.raises(KdcliError, match=part):
        models.build(f"{shelf}:{item}", classes=7)


def test_an_unknown_name_of_a_library_is_one_sentence(monkeypatch):
    with pytest.raises(KdcliError, match="Did you mean 'resnet18'"):
        models.build("torchvision:resnt18")
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    with pytest.raises(KdcliError, match="timm is not installed"):
        models.build("timm:resnet18")


def test_timm_is_asked_for_a_network_without_weights(monkeypatch):
    asked = []

    def create_model(name: str, **settings: object) -> nn.Module:
        asked.append((name, settings))
        return Backbone(settings["num_classes"])

    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model))
    assert models.build("timm:resnet18", classes=7).head.out_features == 7
    assert asked == [("resnet18", {"num_classes": 7, "pretrained": False})]


def test_logits_that_do_not_come_from_the_last_linear_layer_are_refused():
    net = Backbone(7)
    net.register_forward_hook(lambda module, inputs, output: (output, output))
    network = Foreign(net, "mine", 7)
    network.architecture = {"name": "mine", "classes": 7}
    with pytest.raises(KdcliError, match="'mine' must return logits"):
        network.features(IMAGES)
