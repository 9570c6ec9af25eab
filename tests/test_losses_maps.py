"""OFD, ReviewKD: known values, known sizes, and what a pair of networks may look like."""

import math

import pytest
import torch

from kdcli import losses
from kdcli.errors import KdcliError
from kdcli.losses.ofd import margin, partial_distance
from kdcli.losses.reviewkd import hierarchical_distance
from tests.pairs import context, side_parameters

PLACE = torch.arange(2 * 3 * 8 * 8, dtype=torch.float64).reshape(2, 3, 8, 8)
STUDENT, TEACHER = torch.sin(0.1 * PLACE), torch.cos(0.13 * PLACE)


def test_known_values_of_the_partial_distance():
    margins = torch.tensor([-0.5, -0.2, -0.8], dtype=torch.float64)
    found = partial_distance(STUDENT, TEACHER, margins)
    assert found.item() == pytest.approx(147.72145022, abs=6e-9)


def test_known_margins():
    scale, bias = torch.tensor([0.8, 0.1, -0.5]), torch.tensor([0.3, 0.5, -0.2])
    assert margin(scale, bias).tolist() == pytest.approx([-0.54075369, -0.3, -0.48094135], abs=4e-8)


def test_a_margin_is_the_mean_of_what_is_negative():
    draws = torch.randn(400_000, generator=torch.Generator().manual_seed(0)) * 0.7 + 0.4
    found = margin(torch.tensor([0.7]), torch.tensor([0.4])).item()
    assert found == pytest.approx(draws[draws < 0].mean().item(), abs=2e-3)


def test_a_margin_of_a_channel_without_spread_is_finite():
    found = margin(torch.zeros(3), torch.tensor([-1.0, 0.0, 1.0]))
    assert found.tolist() == [-1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("student", "teacher", "distance"),
    [
        (0.5, 2.0, 2.25),  # the teacher is active
        (-0.3, -2.0, 0.49),  # below the margin of -1 nothing more is asked for
        (-1.5, -2.0, 0.0),  # both are off
        (-0.2, -0.6, 0.16),  # the teacher is off but above the margin
        (-0.8, -0.6, 0.0),
    ],
)
def test_the_partial_distance_of_one_position(student, teacher, distance):
    maps = torch.full((1, 1, 1, 1), student), torch.full((1, 1, 1, 1), teacher)
    assert partial_distance(*maps, torch.tensor([-1.0])).item() == pytest.approx(distance)


@pytest.mark.parametrize(
    ("pair", "parameters"),
    [
        ("resnet32x4->resnet8x4", 86_912),
        ("resnet56->resnet20", 5_600),
        ("wrn_40_2->wrn_16_2", 21_952),
        ("wrn_40_2->wrn_40_1", 11_200),
        ("vgg13->vgg8", 609_024),
        ("resnet32x4->ShuffleV2", 156_800),
    ],
)
def test_the_connectors_of_ofd_have_the_published_size(pair, parameters):
    assert side_parameters("ofd", pair) == parameters


def test_ofd_aligns_networks_of_unequal_depth_at_their_ends():
    loss = losses.build("ofd", context("vgg13", "ShuffleV2"))
    assert [tuple(c[0].weight.shape[:2]) for c in loss.connectors] == [
        (256, 116),
        (512, 232),
        (512, 464),
    ]
    assert [len(getattr(loss, f"margin{n}")) for n in range(3)] == [256, 512, 512]


@pytest.mark.parametrize("teacher", ["ShuffleV2", "torchvision:resnet18"])
def test_ofd_says_so_where_a_teacher_shows_no_norms(teacher):
    with pytest.raises(KdcliError, match="batch norm that ends each"):
        losses.build("ofd", context(teacher, "resnet20"))


@pytest.mark.parametrize(
    ("cut", "known"), [(8, 0.83247752), (4, 0.93860092), (1, 0.76570474)], ids=["8", "4", "1"]
)
def test_known_values_of_one_reviewed_level(cut, known):
    maps = (side[:, :, :cut, :cut] for side in (STUDENT, TEACHER))
    assert hierarchical_distance(*maps).item() == pytest.approx(known, abs=6e-9)


@pytest.mark.parametrize(
    ("pair", "parameters"),
    [
        ("resnet32x4->resnet8x4", 1_808_774),
        ("resnet56->resnet20", 114_278),
        ("wrn_40_2->wrn_16_2", 453_830),
        ("wrn_40_2->wrn_40_1", 216_006),
        ("vgg13->vgg8", 9_847_560),
        ("vgg13->MobileNetV2", 9_640_712),
        ("ResNet50->MobileNetV2", 27_933_192),
        ("resnet32x4->ShuffleV1", 4_607_366),
        ("wrn_40_2->ShuffleV1", 2_984_646),
        ("resnet32x4->ShuffleV2", 4_195_718),
    ],
)
def test_the_fusion_modules_of_reviewkd_have_the_published_size(pair, parameters):
    assert side_parameters("reviewkd", pair) == parameters


def test_reviewkd_fuses_with_shares_between_nothing_and_all():
    torch.manual_seed(0)
    loss = losses.build("reviewkd", context("resnet56", "resnet20"))
    fusion = loss.fusions[1].eval()
    with torch.no_grad():
        fusion.attention.weight.zero_()
        fusion.attention.bias.copy_(torch.tensor([-math.inf, math.inf]))
        residual = torch.randn(2, 64, 1, 1)
        _, kept = fusion(torch.randn(2, 64, 8, 8), residual, (4, 4))
    assert torch.equal(kept, residual.expand(2, 64, 4, 4))


def test_reviewkd_leaves_out_the_shallowest_where_depths_differ():
    loss = losses.build("reviewkd", context("wrn_40_2", "MobileNetV2"))
    widths = [
        (fusion.reduce[0].in_channels, fusion.expand[0].out_channels) for fusion in loss.fusions
    ]
    assert widths == [(1280, 128), (160, 128), (48, 64), (16, 32)]
