"""A network can be copied, described and laid out anew without becoming another one."""

import copy
import json

import pytest
import torch

from kdcli import models

SMALLEST = {  # of each family
    row.family: name
    for name, row in sorted(models.TABLE.items(), key=lambda item: -item[1].parameters)
}


@pytest.mark.parametrize("name", SMALLEST.values())
def test_a_copy_has_the_same_numbers_and_weights_of_its_own(name):
    torch.manual_seed(0)
    network = models.build(name, classes=7).eval()
    twin = copy.deepcopy(network)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = network(images)
        assert torch.equal(twin(images), before)
        twin.head.weight.zero_()
        assert torch.equal(network(images), before)
    assert twin.architecture == network.architecture


@pytest.mark.parametrize("name", SMALLEST.values())
def test_the_memory_layout_changes_no_number_but_by_rounding(name):
    torch.manual_seed(0)
    network = models.build(name, classes=7).double().eval()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        plain = network.features(images)
        network.to(memory_format=torch.channels_last)
        other = network.features(images.contiguous(memory_format=torch.channels_last))
    for one, two in zip((*plain.stages, plain.logits), (*other.stages, other.logits), strict=True):
        assert torch.allclose(one, two, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", models.TABLE)
def test_the_architecture_as_text_makes_the_same_network(name):
    with torch.device("meta"):
        network = models.build(name, classes=11)
        again = models.from_architecture(json.loads(json.dumps(network.architecture)), allowed=())
    shapes, own = ({k: v.shape for k, v in n.state_dict().items()} for n in (again, network))
    assert list(shapes.items()) == list(own.items())
    assert again.head.out_features == 11


@pytest.mark.parametrize("name", SMALLEST.values())
def test_a_network_in_evaluation_mode_keeps_its_statistics_and_its_mode(name):
    network = models.build(name, classes=7).eval()
    before = copy.deepcopy(network.state_dict())
    network.features(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module.training for module in network.modules())
