"""Costs against sums done by hand, and against what published networks are known to cost."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdcli import models
from kdcli.analysis.cost import cost, training_bytes, training_memory


class Small(nn.Module):
    """One 3x3 convolution 3 -> 4, a norm, a linear layer 4 -> 5."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)

    def forward(self, images):
        return self.fc(F.relu(self.norm(self.conv(images))).mean((2, 3)))


class Unregistered(Small):
    """Keeps a tensor that `.to()` does not find, so that it cannot leave the CPU."""

    def __init__(self):
        super().__init__()
        self.shift = [torch.ones(1, 3, 1, 1)]

    def forward(self, images):
        return super().forward(images + self.shift[0])


def test_flops_are_two_for_each_multiply_add():
    spent = cost(Small(), size=8)
    assert spent.flops_per_image == 2 * (8 * 8 * 4 * 27) + 2 * (4 * 5)
    assert spent.parameters == 4 * 27 + 2 * 4 + 4 * 5 + 5


@pytest.mark.parametrize(
    ("name", "parameters", "gigaflops", "saved_megabytes"),
    [
        ("resnet32x4", 7_433_860, 2.166, None),
        ("resnet8x4", 1_233_540, 0.354, 164),
        ("wrn_16_2", 703_284, 0.202, 127),
        ("resnet20", 278_324, 0.082, 100),
        ("vgg8", 3_965_028, 0.192, 90),
    ],
)
def test_published_networks_cost_what_they_are_known_to(
    name, parameters, gigaflops, saved_megabytes
):
    network = models.build(name, classes=100)
    spent = cost(network)
    assert spent.parameters == parameters
    assert spent.flops_per_image / 1e9 == pytest.approx(gigaflops, abs=6e-4)
    if saved_megabytes:
        saved = training_memory(network, batch=64).activations
        assert saved / 1e6 == pytest.approx(saved_megabytes, abs=0.6)


def test_training_holds_weights_gradients_momentum_and_each_saved_map_once():
    memory = training_memory(Small(), batch=7, size=8)
    weights, maps = 4 * 141, 4 * 7 * 64
    assert memory.parameters == weights + 4 * (4 + 4) + 8  # running mean, variance, a counter
    assert memory.gradients == memory.momentum == weights
    saved = [
        3 * maps,  # the images, for the convolution
        4 * maps,  # its output, for the norm
        4 * (4 + 4),  # the norm's batch mean and deviation
        4 * maps,  # the ReLU's output
        4 * 7 * 4,  # pooled, for the linear layer
        4 * 7 * 5 + 8 * 7 + 4,  # log-probabilities, labels and their total weight
    ]
    assert memory.activations == sum(saved)
    assert memory.total == training_bytes(Small(), batch=7, size=8)
    assert training_memory(Small(), 7, 8, momenta=2).momentum == 2 * weights


def test_a_network_that_cannot_leave_the_cpu_costs_the_same():
    assert cost(Unregistered(), 8) == cost(Small(), 8)
    elsewhere = training_memory(Unregistered(), batch=64, size=8)
    plain = training_memory(Small(), batch=64, size=8)
    assert elsewhere.activations == pytest.approx(plain.activations, rel=0.02)


def test_counting_leaves_the_network_as_it_was():
    network = Small().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    cost(network, 8)
    training_bytes(network, 4, 8)
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(before[name], now) for name, now in network.state_dict().items())
