"""FitNet, AT, SP, NST, VID, AB, FT, FSP: known values, identities, and what each stage adds."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdcli.losses.ab import boundary_loss
from kdcli.losses.at import attention_loss, shrink
from kdcli.losses.fitnet import resizing
from kdcli.losses.fsp import flow, flow_losses
from kdcli.losses.ft import factor_loss
from kdcli.losses.nst import kernel_mean, selectivity_loss
from kdcli.losses.sp import similarity_loss
from kdcli.losses.vid import Stage
from tests.loss_inputs import LABELS, batch, hashed, loss
from tests.loss_maps import DEEP, STUDENT, TEACHER, WIDE, shown
from tests.pairs import side_parameters


@pytest.mark.parametrize(
    ("function", "known"),
    [
        (attention_loss, 0.012923471),
        (similarity_loss, 0.002801970),
        (selectivity_loss, 0.170206663),
        (lambda student, _: factor_loss(student, hashed((4, 8, 4, 4), 4)), 0.118550601),
    ],
    ids=["at", "sp", "nst", "ft"],
)
def test_known_values_of_one_stage(function, known):
    assert function(WIDE, DEEP).item() == pytest.approx(known, abs=6e-10)


def test_known_value_of_vid():
    stage = Stage(8, 16, variance=5.0).double()
    assert stage.rho.tolist() == pytest.approx([4.99323] * 16, abs=1e-5)
    with torch.no_grad():
        for number, stream in zip((0, 2, 4), (7, 8, 9), strict=True):
            weight = stage.mean[number].weight
            weight.copy_(0.5 * hashed(weight.shape, stream))
        stage.rho.fill_(math.log(math.expm1(5 - 1e-5)))
    assert stage(WIDE, DEEP).item() == pytest.approx(0.842133332, abs=6e-10)


def test_known_values_of_ab():
    shapes = (4, 8, 8, 8), (4, 8, 4, 4), (4, 8, 2, 2)
    maps = [tuple(hashed(shape, n) for n, shape in enumerate(shapes, first)) for first in (3, 6)]
    student, teacher = (shown(side[0], *side) for side in maps)
    terms = loss("ab", student, teacher).terms(*maps)
    known = [0.740695754, 0.366366456, 0.201881592]
    assert [term.item() for term in terms] == pytest.approx(known, abs=6e-10)


def test_known_values_of_fsp():
    student = [hashed(s, n) for n, s in enumerate(((4, 4, 8, 8), (4, 8, 4, 4), (4, 16, 2, 2)), 3)]
    teacher = [hashed(s, n) for n, s in enumerate(((4, 4, 16, 16), (4, 8, 8, 8), (4, 16, 4, 4)), 6)]
    known = [0.002768867, 0.009915513]
    found = [term.item() for term in flow_losses(student, teacher)]
    assert found == pytest.approx(known, abs=6e-10)
    both = shown(*student), shown(*teacher)
    assert loss("fsp", *both)(*both, batch(LABELS)).item() == pytest.approx(sum(known), abs=1e-9)


@pytest.mark.parametrize(("name", "stage"), [("at", attention_loss), ("nst", selectivity_loss)])
def test_a_loss_adds_what_its_stages_behind_the_stem_say(name, stage):
    pairs = list(zip(STUDENT.stages, TEACHER.stages, strict=True))
    expected = sum(stage(*pair).item() for pair in pairs[1:])
    found = loss(name, STUDENT, TEACHER)(STUDENT, TEACHER, batch(LABELS))
    assert found.item() == pytest.approx(expected, abs=1e-15)


def test_sp_looks_at_the_last_stage_alone():
    found = loss("sp", STUDENT, TEACHER)(STUDENT, TEACHER, batch(LABELS))
    assert found.item() == similarity_loss(STUDENT.stages[-1], DEEP).item()


@pytest.mark.parametrize("name", ["at", "sp", "nst", "fsp"])
def test_a_student_that_shows_the_teacher_s_maps_has_nothing_to_learn(name):
    found = loss(name, TEACHER, TEACHER)(TEACHER, TEACHER, batch(LABELS))
    assert found.item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("function", [attention_loss, selectivity_loss, similarity_loss])
def test_neither_the_order_nor_the_size_of_channels_counts(function):
    other = 3 * WIDE[:, torch.randperm(8, generator=torch.Generator().manual_seed(0))]
    assert function(other, WIDE).item() == pytest.approx(0, abs=1e-15)


def test_the_norm_of_attention_is_the_paper_s():
    (student, teacher), expected = (WIDE, hashed((4, 3, 8, 8), 5)), 0.0
    for one, other in zip(student, teacher, strict=True):
        rows = [x.square().mean(0).flatten() for x in (one, other)]
        expected += (rows[0] / rows[0].norm() - rows[1] / rows[1].norm()).norm().item() / 4
    assert attention_loss(student, teacher, reduction="norm").item() == pytest.approx(expected)


def test_kernels_of_channels_are_the_same_by_positions():
    few, many = WIDE.flatten(2), hashed((4, 300, 64), 2)
    by_positions = kernel_mean(many, many)  # 64 positions, 300 channels: the smaller product
    literal = (many @ many.mT).square().mean()
    assert by_positions.item() == pytest.approx(literal.item(), rel=1e-12)
    mixed = torch.einsum("bcn,bdn->bcd", few, many).square().mean()
    assert kernel_mean(few, many).item() == pytest.approx(mixed.item(), rel=1e-12)


@pytest.mark.parametrize("side", [8, 4, 2, 3, 5])
def test_a_plain_pool_is_the_adaptive_one(side):
    torch.testing.assert_close(shrink(WIDE, side), F.adaptive_avg_pool2d(WIDE, side))


@pytest.mark.parametrize(
    ("student", "teacher", "kind", "kernel"),
    [
        ((8, 16, 16), (12, 16, 16), nn.Conv2d, 1),
        ((8, 16, 16), (12, 8, 8), nn.Conv2d, 3),
        ((8, 6, 6), (12, 4, 4), nn.Conv2d, 3),
        ((8, 8, 8), (12, 16, 16), nn.ConvTranspose2d, 4),
        ((8, 5, 5), (12, 8, 8), nn.Conv2d, 3),
        ((8, 4, 4), (12, 16, 16), nn.Conv2d, 3),
    ],
)
def test_a_regressor_brings_a_map_to_the_teacher_s_side_or_keeps_its_own(
    student, teacher, kind, kernel
):
    layer = resizing(student, teacher)
    assert type(layer) is kind and layer.kernel_size == (kernel, kernel)
    side = layer(torch.zeros(1, *student)).shape[2]
    assert side == (student[1] if student[1] < teacher[1] != 2 * student[1] else teacher[1])


def test_fitnet_is_the_squared_difference_behind_its_regressor():
    module = loss("fitnet", STUDENT, TEACHER, layer=1)
    raw = module.regressor.conv(STUDENT.stages[1])
    mean, variance = raw.mean((0, 2, 3), keepdim=True), raw.var((0, 2, 3), False, keepdim=True)
    relu = ((raw - mean) / (variance + 1e-5).sqrt()).clamp(min=0)
    found = module(STUDENT, TEACHER, batch(LABELS))
    assert found.item() == pytest.approx((relu - TEACHER.stages[1]).square().mean().item())
    bare = loss("fitnet", STUDENT, TEACHER, norm=False)
    assert {name.split(".")[1] for name, _ in bare.named_parameters()} == {"conv"}


def test_vid_learns_how_sure_it_is():
    module = loss("vid", STUDENT, TEACHER)
    module(STUDENT, TEACHER, batch(LABELS)).backward()
    for stage, width in zip(module.stages, (12, 16), strict=True):
        assert stage.rho.shape == (width,)
        assert (stage.rho.grad != 0).all()


def test_the_boundary_is_left_alone_where_the_student_is_beyond_the_margin():
    student = torch.tensor([-1.0, -2.0, 1.0, 3.0, 0.0, 0.0], requires_grad=True)
    teacher = torch.tensor([-5.0, 0.0, 0.1, 7.0, 7.0, -7.0])
    value = boundary_loss(student, teacher, margin=1.0)
    value.backward()
    assert value.item() == 2.0
    assert student.grad.tolist() == [0, 0, 0, 0, -2, 2]


def test_ab_connects_where_shapes_differ_and_reads_what_is_before_the_nonlinearity():
    module = loss("ab", STUDENT, TEACHER, margin=2.0)
    assert [type(x).__name__ for x in module.connectors] == ["Regressor", "Identity"]
    found = module(STUDENT, TEACHER, batch(LABELS))
    last = boundary_loss(STUDENT.preacts[2], TEACHER.preacts[2], 2.0) * 0.003 / 4
    first = module.terms(STUDENT.preacts[1:], TEACHER.preacts[1:])[0]
    assert found.item() == pytest.approx((first + last).item())
    assert side_parameters("ab", "resnet56->resnet20") == 0


@pytest.mark.parametrize("power", [1, 2])
def test_whole_factors_are_compared_by_a_norm(power):
    student, teacher = (hashed((4, 6, 4, 4), n).flatten(1) for n in (1, 2))
    difference = student / student.norm(dim=1)[:, None] - teacher / teacher.norm(dim=1)[:, None]
    expected = difference.abs().pow(power).sum(1).pow(1 / power).mean()
    pair = (x.view(4, 6, 4, 4) for x in (student, teacher))
    assert factor_loss(*pair, power, "whole").item() == pytest.approx(expected.item())


def test_ft_trains_one_part_at_a_time():
    module = loss("ft", STUDENT, TEACHER)
    trained = {}
    for main in (False, True):
        module.begin(main)
        module.zero_grad(set_to_none=True)
        module(STUDENT, TEACHER, batch(LABELS)).backward()
        graded = {name for name, p in module.named_parameters() if p.grad is not None}
        trained[main] = {name.split(".")[0] for name in graded}
    assert trained == {False: {"paraphraser"}, True: {"translator"}}
    module.begin(False)
    wanted = F.mse_loss(module.paraphraser(DEEP), DEEP)
    assert module(STUDENT, TEACHER, batch(LABELS)).item() == wanted.item()


def test_the_flow_pools_by_mean_or_maximum():
    lower, upper = torch.arange(16.0).reshape(1, 1, 4, 4), torch.ones(1, 1, 2, 2)
    assert flow(lower, upper).item() == lower.mean()
    assert flow(lower, upper, "max").item() == (5 + 7 + 13 + 15) / 4
