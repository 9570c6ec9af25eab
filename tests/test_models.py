"""Every network is the published one: parameters, numbers, features, first weights."""

import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdcli import models
from kdcli.errors import KdcliError
from kdcli.models.network import Network

SMALLEST = ["resnet8", "ResNet18", "wrn_16_1", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2"]
SMALLEST += ["tiny8"]  # of each family
SIDES = {  # of the stages of a 32x32 image, the stem first
    "resnet": [32, 32, 16, 8],
    "ResNet": [32, 32, 16, 8, 4],
    "wrn": [32, 32, 16, 8],
    "vgg": [32, 16, 8, 4, 4],
    "MobileNetV2": [16, 16, 8, 4, 2],
    "ShuffleV1": [32, 16, 8, 4],
    "ShuffleV2": [32, 16, 8, 4],
    "tiny": [16, 16, 8, 4],
}
# Measured on the public reference code, float64, 100 classes, training mode, filled by `fill`:
# logits [0, 0] and [3, 99], mean |logit|, mean |stage| of each stage, mean |pooled|.
MEASURED = """
resnet14 0.300089 0.396459 0.388177 0.398398 0.975059 0.837190 0.840491 0.840491
resnet44 1.303956 0.989841 1.129891 0.398398 2.630059 2.433045 2.439403 2.439403
resnet8x4 -0.052952 -0.115823 0.456561 0.393236 0.570842 0.567073 0.558258 0.558258
ResNet18 0.348151 0.625067 0.946006 0.390718 0.981131 0.837698 0.825628 0.836040 0.836040
ResNet34 0.448555 1.236545 1.313087 0.390718 1.298951 1.445762 2.107960 1.146302 1.146302
wrn_16_1 0.089252 0.249412 0.175387 0.141170 0.734143 0.829570 1.116547 0.389024
wrn_16_4 -0.610158 -0.143458 0.329907 0.141170 1.184477 1.571921 2.153609 0.397921
wrn_28_2 0.046251 0.427023 0.246643 0.141170 1.733161 2.238824 3.042823 0.389277
vgg8 0.817507 -0.373150 0.419151 0.404443 0.401615 0.398626 0.403362 0.400847 0.400847
vgg11 0.637374 0.166794 0.435574 0.404443 0.401615 0.395109 0.399423 0.399651 0.399651
vgg16 0.852081 -0.047801 0.433094 0.403733 0.400033 0.392629 0.398557 0.399581 0.399581
vgg19 -0.212552 -0.606336 0.435287 0.403733 0.400033 0.394597 0.398955 0.398758 0.398758
MobileNetV2 -1.447004 -0.244980 0.706659 0.397103 1.110385 1.614754 1.675076 0.821067 0.406067
ShuffleV1 -1.029701 -0.722114 2.713777 0.414084 1.255269 2.777736 2.042487 2.042487
ShuffleV2 -1.479406 -0.357382 0.478091 0.414084 0.406864 0.404297 0.400868 0.399134
"""
ROWS = {row.split()[0]: list(map(float, row.split()[1:])) for row in MEASURED.split("\n")[1:-1]}


def ramp(count: int, step: int) -> torch.Tensor:
    """[count] numbers in [-1/2, 1/2) from a position and a step."""
    n = torch.arange(count)
    return ((7919 * n + 31 * (n % 101) * (n % 103) + 104729 * step) % 10007).double() / 10007 - 0.5


def fill(network: Network) -> None:
    """Parameters from the length of their names."""
    for key, value in network.named_parameters():
        numbers = 0.2 * ramp(value.numel(), len(key)).view_as(value)
        norm_scale = value.dim() == 1 and key.endswith("weight")
        value.data = 1 + numbers if norm_scale else numbers


@pytest.mark.parametrize("name", ROWS)
def test_a_network_computes_what_the_reference_computes(name):
    network = models.build(name).double()
    fill(network)
    images = 2 * ramp(4 * 3 * 32 * 32, 0).view(4, 3, 32, 32)
    with torch.no_grad():
        shown = network.features(images)
    found = [shown.logits[0, 0], shown.logits[3, 99], shown.logits.abs().mean()]
    found += [tensor.abs().mean() for tensor in (*shown.stages, shown.pooled)]
    assert torch.stack(found).tolist() == pytest.approx(ROWS[name], abs=1e-6)


@pytest.mark.parametrize("name", models.TABLE)
def test_the_table_counts_the_parameters(name):
    with torch.device("meta"):
        network = models.build(name)
    assert sum(value.numel() for value in network.parameters()) == models.TABLE[name].parameters


@pytest.mark.parametrize("name", SMALLEST)
def test_stages_and_preacts_are_what_the_family_says(name):
    network = models.build(name, classes=7).eval()
    family = models.TABLE[name].family
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        shown = network.features(images)
        assert torch.equal(network(images), shown.logits)
        assert torch.equal(network.head(shown.pooled), shown.logits)
    assert [stage.shape[2] for stage in shown.stages] == SIDES[family]
    assert [p.shape for p in shown.preacts] == [s.shape for s in shown.stages]
    assert shown.preacts[0] is shown.stages[0]
    pairs = list(zip(shown.preacts[1:], shown.stages[1:], strict=True))
    assert all((preact < 0).any() for preact, _ in pairs)  # nothing has clipped it in place
    if family == "MobileNetV2":
        assert all(preact is stage for preact, stage in pairs)
    elif family == "wrn":  # the norm is applied to the stage, not before it
        norms = zip(network.norms, pairs, strict=True)
        assert all(torch.equal(norm(stage), preact) for norm, (preact, stage) in norms)
    elif family == "ShuffleV2":  # half of the channels pass, the shuffle comes after
        for preact, stage in pairs:
            left, right = preact.chunk(2, dim=1)
            assert torch.equal(stage[:, 0::2], left)
            assert torch.equal(stage[:, 1::2], right.relu())
    else:
        assert all(torch.equal(preact.relu(), stage) for preact, stage in pairs)


@pytest.mark.parametrize("name", SMALLEST)
def test_each_norm_ends_the_preact_of_its_stage(name):
    network = models.build(name, classes=7)
    shown = network.eval().features(torch.randn(2, 3, 32, 32))
    ends = [norm.num_features for norm in network.norms]
    assert ends == ([] if name == "ShuffleV2" else [p.shape[1] for p in shown.preacts[1:]])


@pytest.mark.parametrize("name", SMALLEST)
def test_running_statistics_move_once_a_step(name):
    network = models.build(name, classes=7).train()
    network.features(torch.randn(2, 3, 32, 32))
    counters = [v.item() for k, v in network.state_dict().items() if k.endswith("tracked")]
    assert counters
    assert set(counters) == {1}


@pytest.mark.parametrize("name", SMALLEST)
def test_a_larger_image_is_taken_too(name):
    network = models.build(name, classes=7).eval()
    with torch.no_grad():
        shown = network.features(torch.randn(1, 3, 64, 64))
    family = models.TABLE[name].family
    last = [4] if family == "vgg" else [2 * SIDES[family][-1]]  # one pool more
    assert [stage.shape[2] for stage in shown.stages] == [2 * s for s in SIDES[family]][:-1] + last
    assert shown.pooled.dim() == 2


@pytest.mark.parametrize("name", SMALLEST)
def test_the_seed_decides_the_first_weights(name):
    def born(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return list(models.build(name, classes=7).state_dict().values())

    assert all(map(torch.equal, born(3), born(3)))
    assert not all(map(torch.equal, born(3), born(4)))


@pytest.mark.parametrize("name", SMALLEST)
def test_first_weights_are_drawn_as_published(name):
    torch.manual_seed(0)
    network = models.build(name)
    family = models.TABLE[name].family
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert torch.equal(module.bias, torch.zeros_like(module.bias))
        elif isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            # He et al.: fan-out of all C_out; the shuffle nets keep torch's U(±1 / sqrt(fan in))
            fan_in = module.weight[0].numel()
            he = math.sqrt(2 / (module.weight.shape[2] ** 2 * module.out_channels))
            wanted = 1 / math.sqrt(3 * fan_in) if "Shuffle" in family else he
            assert module.weight.std().item() == pytest.approx(wanted, rel=0.05)
            assert module.bias is None or not module.bias.any()
    small = family in ("vgg", "MobileNetV2")
    wanted = 0.01 if small else 1 / math.sqrt(3 * network.head.in_features)
    assert network.head.weight.std().item() == pytest.approx(wanted, rel=0.05)
    assert network.head.bias.any().item() == (family not in ("vgg", "MobileNetV2", "wrn"))


def test_a_depthwise_convolution_is_drawn_with_all_its_outputs():
    torch.manual_seed(0)
    depthwise = models.build("MobileNetV2").get_submodule("blocks.6.0.conv.3")
    assert depthwise.groups == depthwise.out_channels == 480
    assert depthwise.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 480)), rel=0.05)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("WRN-40-2", "wrn_40_2"),
        ("ResNet-20", "resnet20"),
        ("resnet50", "ResNet50"),
        ("mobilenetv2", "MobileNetV2"),
        ("shuffle_v1", "ShuffleV1"),
        ("VGG13", "vgg13"),
        ("ResNet32x4", "resnet32x4"),
    ],
)
def test_case_and_dashes_do_not_matter(typed, meant):
    assert models.canonical(typed) == meant
    assert meant in models.TABLE


def test_no_two_names_are_the_same_but_for_case_and_dashes():
    folded = {name.lower().replace("_", "") for name in models.TABLE}
    assert len(folded) == len(models.TABLE)


@pytest.mark.parametrize(
    ("name", "classes", "part"),
    [
        ("resnet8x5", 100, "Did you mean 'resnet8x4'?"),
        ("resnet8", 0, "1 to 100,000 classes, not 0"),
        ("resnet8", True, "not True"),
        ("resnet8", "10", "not '10'"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(name, classes, part):
    with pytest.raises(KdcliError, match=part.replace("?", r"\?")) as caught:
        models.build(name, classes=classes)
    assert caught.value.code == 2


def test_a_network_is_built_again_from_its_architecture():
    network = models.build("WRN-16-1", classes=7)
    assert network.architecture == {"name": "wrn_16_1", "classes": 7}
    again = models.from_architecture(network.architecture)
    assert [v.shape for v in again.parameters()] == [v.shape for v in network.parameters()]
    with pytest.raises(KdcliError, match="takes no settings, but got depth"):
        models.from_architecture({"name": "resnet8", "classes": 7, "depth": 14})


@pytest.mark.parametrize("name", SMALLEST)
def test_gradients_reach_every_parameter(name):
    network = models.build(name, classes=7)
    F.cross_entropy(network(torch.randn(4, 3, 32, 32)), torch.arange(4)).backward()
    assert all(value.grad is not None for value in network.parameters())


def test_the_table_needs_no_torch():
    code = "import sys, kdcli.models as m; m.canonical('vgg8'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
