"""Settings of losses: each of its own kind, or one line that says which before it is built."""

import pytest

from kdcli import losses
from kdcli.errors import KdcliError
from tests.test_losses_contract import NAMES, build


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("kd", "standardize", "False", "standardize of loss 'kd' is 'False', but must be true or"),
        ("kd", "temperature", "4", "is '4', but must be a number"),
        ("kd", "temperature", True, "is True, but must be a number"),
        ("kd", "temperature", float("nan"), "is nan, but must be a number"),
        ("dkd", "temperature", 0, "is 0, but must be above 0"),
        ("crd", "negatives", 16.5, "is 16.5, but must be a whole number"),
        ("crd", "dim", 0, "is 0, but must be above 0"),
        ("mcld", "sample_temperature", "hot", "is 'hot', but must be a number"),
        ("mcld", "category_temperature", -1, "is -1, but must be above 0"),
        ("at", "p", 0, "is 0, but must be at least 1"),
        ("catkd", "resolution", 0, "is 0, but must be at least 1"),
        ("cc", "order", 0, "is 0, but must be at least 1"),
        ("ce", "smoothing", 1.5, "is 1.5, but must be from 0 to 1"),
        ("crd", "momentum", -1, "is -1, but must be from 0 to 1"),
        ("ctkd", "start", -1, "is -1, but must be at least 0"),
        ("ft", "power", 0, "is 0, but must be at least 1"),
        ("kdsvd", "k", 0, "is 0, but must be at least 1"),
        ("reviewkd", "widest", 0, "is 0, but must be at least 1"),
        ("mcld", "transform", 1, "is 1, but must be text"),
        ("fitnet", "layer", 1.0, "is 1.0, but must be a whole number"),
    ],
)
def test_a_setting_of_another_kind_is_one_line_before_anything_is_built(name, key, value, said):
    with pytest.raises(KdcliError) as caught:
        losses.check({"term": {"use": name, key: value}})
    assert said in str(caught.value)
    with pytest.raises(KdcliError):
        build(name, **{key: value})


@pytest.mark.parametrize("name", NAMES)
def test_the_default_of_every_setting_is_of_its_own_kind(name):
    losses.check({name: losses.hyperparameters(name)})


def test_a_temperature_that_nothing_reads_is_refused():
    for scale in ("learned", "frozen"):
        with pytest.raises(KdcliError, match="does nothing where scale is"):
            build("dcd", scale=scale, temperature=0.1)
    for scale in ("divide", "multiply"):
        assert build("dcd", scale=scale).loss.temperature == 0.07
        assert build("icd", scale=scale, temperature=0.1).loss.temperature == 0.1


def test_a_setting_that_the_maps_are_too_small_for_is_refused():
    with pytest.raises(KdcliError, match="set resolution to 4 or less"):
        build("catkd", resolution=5)
    with pytest.raises(KdcliError, match="has 8 singular vectors"):
        build("kdsvd", k=9)
