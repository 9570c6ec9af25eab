"""The LSKD recipes: for every pair the settings that the authors' logs name, and known values."""

import tomllib

import pytest

from kdcli import recipes
from kdcli.settings import for_pair
from tests.loss_inputs import LABELS, STUDENT, TEACHER, batch, features, loss

TABLE = tomllib.loads((recipes.folder() / "tables" / "lskd-logs.toml").read_text(encoding="utf-8"))
PAIRS = dict(enumerate(TABLE["pairs"]))


def settings(name, number):
    """The recipe for a pair, and what the table says of it."""
    recipe = for_pair(recipes.load(name), *PAIRS[number].split("->"))
    return recipe, TABLE["base"][name][number]


@pytest.mark.parametrize("number", PAIRS, ids=PAIRS.get)
def test_kd_on_standardised_logits_has_the_logged_temperature_and_weight(number):
    recipe, (temperature, weight) = settings("lskd+kd", number)
    assert recipe.minimize == {"ce": 0.1, "kd": weight}
    assert recipe.losses["kd"] == {"temperature": temperature, "standardize": True}


@pytest.mark.parametrize("number", PAIRS, ids=PAIRS.get)
def test_dkd_on_standardised_logits_has_both_weights_multiplied(number):
    recipe, (temperature, weight, beta) = settings("lskd+dkd", number)
    found = recipe.losses["dkd"]
    assert found["temperature"] == temperature and found["standardize"]
    assert (found["alpha"], found["beta"]) == (weight, weight * beta)
    assert recipe.minimize == {"ce": 1.0, "dkd": 1.0}


@pytest.mark.parametrize(("name", "known"), [("lskd+kd", 5.70333209)])
def test_known_value_of_the_whole_objective(name, known):
    recipe = recipes.load(name)
    student, teacher = features(STUDENT), features(TEACHER)
    total = sum(
        weight
        * loss(term, student, teacher, **recipe.losses.get(term, {}))(
            student, teacher, batch(LABELS)
        )
        for term, weight in recipe.minimize.items()
    )
    assert total.item() == pytest.approx(known, abs=6e-9)
