"""The map that is pooled and the tail of a network: each family shows the same network by parts."""

import copy

import pytest
import torch

from kdcli import models

SMALLEST = ["resnet8", "ResNet18", "wrn_16_1", "vgg8", "MobileNetV2", "ShuffleV1", "tiny8"]


def shown(name):
    torch.manual_seed(0)
    network = models.build(name, classes=10).eval()
    with torch.no_grad():
        return network, network.features(torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize("name", [*SMALLEST, "ShuffleV2", "torchvision:resnet18"])
def test_pooled_is_the_mean_of_the_last_map(name):
    _, features = shown(name)
    assert torch.allclose(features.last.mean((2, 3)), features.pooled, atol=1e-6)


@pytest.mark.parametrize("name", ["MobileNetV2", "ShuffleV2"])
def test_the_neck_is_what_widens_the_last_stage(name):
    network, features = shown(name)
    assert features.last.shape[1] > features.stages[-1].shape[1]
    for key in network.neck_keys:
        parent, _, child = key.rpartition(".")
        setattr(network.get_submodule(parent), child, torch.nn.Identity())
    network.classifier = network.linear = torch.nn.Identity()
    with torch.no_grad():
        bare = network.features(torch.randn(2, 3, 32, 32))
    assert torch.equal(bare.last, bare.stages[-1])


@pytest.mark.parametrize("name", [*SMALLEST, "ShuffleV2"])
def test_the_stages_do_not_need_what_stands_behind_the_last_of_them(name):
    network = models.build(name, classes=10)
    network.features(torch.randn(2, 3, 32, 32)).stages[-1].sum().backward()
    idle = {key for key, parameter in network.named_parameters() if parameter.grad is None}
    assert idle == {
        key
        for key, _ in network.named_parameters()
        if any(key.startswith(f"{top}.") for top in network.top)
    }


@pytest.mark.parametrize("name", SMALLEST)
def test_a_tail_goes_on_from_the_last_stage_but_one(name):
    network, features = shown(name)
    with torch.no_grad():
        logits = network.tail(features.stages[-2])
    assert torch.equal(logits, features.logits)
    copied = copy.deepcopy(network.tail)
    own = {id(p) for p in network.parameters()}
    assert not own & {id(p) for p in copied.parameters()}
    assert own > {id(p) for p in network.tail.parameters()}


def test_a_family_without_a_tail_says_so():
    assert models.build("ShuffleV2", classes=10).tail is None
