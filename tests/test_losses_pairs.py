"""Losses of feature maps on the published pairs of networks, and on what does not fit them."""

import math
import tomllib
from functools import cache

import pytest
import torch
from torch import nn

from kdcli import losses, recipes
from kdcli.errors import KdcliError
from tests.loss_inputs import hashed, loss
from tests.loss_maps import DEEP, STUDENT, TEACHER, WIDE, shown
from tests.pairs import context

TABLES = [recipes.folder() / "tables" / f"crd-{n}.toml" for n in (1, 2)]
PAIRS = [pair for path in TABLES for pair in tomllib.loads(path.read_text("utf-8"))["pairs"]]


@cache
def networks(pair):
    return context(*pair.split("->"))


def built(name, pair):
    with torch.device("meta"):
        return losses.build(name, networks(pair))


@pytest.mark.parametrize("pair", PAIRS)
def test_fitnet_needs_the_published_convolution(pair):
    same = pair in PAIRS[:7] or pair == "vgg13->MobileNetV2"
    found = built("fitnet", pair).regressor.conv
    assert isinstance(found, nn.ConvTranspose2d) != same
    assert found.kernel_size == ((1, 1) if same else (4, 4))


@pytest.mark.parametrize("name", ["fitnet", "at", "sp", "vid", "nst", "ab", "ft"])
@pytest.mark.parametrize("pair", PAIRS)
def test_every_published_pair_can_be_done(name, pair):
    assert built(name, pair) is not None


@pytest.mark.parametrize("pair", PAIRS)
def test_fsp_can_do_the_pairs_that_it_has_published_results_for(pair):
    table = tomllib.loads(TABLES[0].read_text("utf-8"))
    known = dict(zip(table["pairs"], table["rows"]["fsp"], strict=True))
    if math.isnan(known.get(pair, math.nan)):
        with pytest.raises(KdcliError, match=r"equal widths|as many of each"):
            built("fsp", pair)
    else:
        assert built("fsp", pair) is not None


@pytest.mark.parametrize(
    ("name", "student", "arguments", "message"),
    [
        ("at", shown(WIDE, DEEP), {}, "as many of each; the student shows 8x8x8, 16x4x4 and the"),
        ("nst", shown(WIDE, DEEP), {}, "loss 'nst'"),
        ("vid", shown(WIDE, DEEP), {}, "loss 'vid'"),
        ("ab", shown(WIDE, DEEP), {}, "loss 'ab'"),
        ("fsp", STUDENT, {}, "equal widths; the student shows 8x8x8, 8x8x8, 16x4x4 and"),
        ("sp", shown(), {}, "shows none and the teacher 8x16x16"),
        ("ft", shown(), {}, "needs 1 maps"),
        ("ab", shown(WIDE, hashed((4, 8, 5, 5), 1), DEEP), {}, "8x5x5 to the teacher's 12x16x16"),
        ("fitnet", STUDENT, {"layer": 3}, "no layer 3: the student shows 8x8x8, 8x8x8"),
        ("at", STUDENT, {"reduction": "sum"}, "Known: mean, norm"),
        ("fsp", TEACHER, {"pool": "man"}, "Did you mean 'mean'"),
        ("ft", STUDENT, {"factors": "maps"}, "Did you mean 'map'"),
        ("ft", STUDENT, {"k": 0.01}, "leaves no channel of the teacher's 16x4x4"),
        ("vid", STUDENT, {"variance": 0}, "must be positive"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_shapes_of_both(
    name, student, arguments, message
):
    with pytest.raises(KdcliError, match=message) as caught:
        loss(name, student, TEACHER, **arguments)
    assert "\n" not in str(caught.value)
