"""A folded network shows what the network shows, with fewer modules; the network stays as it is."""

import pytest
import torch
from torch import nn

from kdcli import models
from kdcli.contracts import Features
from kdcli.engine.fold import folded
from kdcli.models.network import Network, global_mean
from tests.tiny import same, snapshot

# Norms that stay: in a WRN those that open a block, and the network's own.
STAY = {
    "resnet8": 0,
    "resnet8x4": 0,
    "ResNet18": 0,
    "wrn_16_1": 7,
    "vgg8": 0,
    "MobileNetV2": 0,
    "ShuffleV1": 0,
    "ShuffleV2": 0,
    "tiny8": 0,
    "torchvision:resnet18": 0,
    "torchvision:mobilenet_v2": 0,
    "torchvision:efficientnet_b0": 0,
}
FAMILIES = {row.family for row in models.TABLE.values()}


def norms(network):
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def lived(network):
    """With norms as after a training: none is the identity by chance."""
    random = torch.Generator().manual_seed(1)
    for norm in norms(network):
        norm.running_mean.normal_(0, 0.2, generator=random)
        norm.running_var.uniform_(0.5, 1.5, generator=random)
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=random)
        nn.init.normal_(norm.bias, 0, 0.2, generator=random)
    return network


def flat(features):
    rest = [features.logits, features.pooled, *features.stages, *features.preacts]
    return [*rest, features.last] if features.last is not None else rest


def distance(one, other):
    """The largest difference of any tensor, as a share of its largest value."""
    pairs = zip(flat(one), flat(other), strict=True)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def test_every_family_is_tried():
    assert {models.TABLE[name].family for name in STAY if name in models.TABLE} == FAMILIES


@pytest.mark.parametrize("name", STAY)
@torch.no_grad()
def test_every_tensor_that_is_shown_stays_the_same(name):
    torch.manual_seed(0)
    network = lived(models.build(name, classes=7))
    before, training = snapshot(network), [module.training for module in network.modules()]
    small = folded(network, torch.zeros(2, 3, 32, 32))
    assert len(norms(small)) == STAY[name] < len(norms(network))
    assert same(snapshot(network), before)
    assert [module.training for module in network.modules()] == training
    assert not small.training and small.architecture == network.architecture
    images = torch.randn(4, 3, 32, 32)
    network.eval()
    assert distance(small.features(images), network.features(images)) < 1e-4
    exact = folded(network.double(), images.double())
    assert distance(exact.features(images.double()), network.features(images.double())) < 1e-9
    assert torch.equal(small(images), small.features(images).logits)


class Odd(Network):
    """A convolution that is shown too, one that two norms read, one that is used twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.shown = nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4)
        self.fork, self.left, self.right = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.twice, self.after = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.grouped, self.plain = nn.Conv2d(4, 4, 1, groups=2), nn.BatchNorm2d(4, affine=False)
        self.live = nn.BatchNorm2d(4, track_running_stats=False)
        self.last = nn.Conv2d(4, 4, 1, bias=False)
        self.fc = nn.Linear(4, 3)

    def features(self, images):
        stem = self.stem(images)
        fork = self.fork(self.shown(stem).relu())
        x = self.left(fork).relu() + self.right(fork).relu()
        x = self.after(self.twice(x)).relu() + self.twice(x)
        x = self.plain(self.grouped(x)).relu()
        x = self.live(self.last(x)).relu()
        pooled = global_mean(x)
        return Features(self.fc(pooled), pooled, (stem, x), (stem, x), last=x)


@torch.no_grad()
def test_norms_that_cannot_be_folded_stay_and_the_others_do_not():
    torch.manual_seed(0)
    network = Odd()
    for norm in (network.shown, network.left, network.right, network.after, network.plain):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    small = folded(network, torch.zeros(2, 3, 16, 16))
    names = [name for name, module in small.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert names == ["shown", "left", "right", "after", "live"]
    images = torch.randn(5, 3, 16, 16)
    assert distance(small.features(images), network.eval().features(images)) < 1e-5


@torch.no_grad()
def test_the_weights_of_a_folded_convolution_are_those_of_the_equation():
    network = lived(models.build("tiny8", classes=5))
    conv, norm = network.block1[:2]
    small = folded(network, torch.zeros(2, 3, 32, 32))
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    bias = norm.bias.double() - norm.running_mean.double() * scale
    assert torch.allclose(small.block1[0].weight.double(), weight, rtol=1e-6, atol=0)
    assert torch.allclose(small.block1[0].bias.double(), bias, rtol=1e-5, atol=1e-7)
    assert isinstance(small.block1[1], nn.Identity)


@torch.no_grad()
def test_the_memory_layout_stays():
    network = models.build("resnet8", classes=5).to(memory_format=torch.channels_last)
    small = folded(network, torch.zeros(2, 3, 32, 32))
    convolutions = [m for m in small.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions)
    assert {p.dtype for p in small.parameters()} == {torch.float32}
