"""What a graph would do, done without a GPU: recorded steps train as the eager ones."""

import pytest
import torch

from kdcli import recipes
from tests import tiny
from tests.ahead import final, looking_ahead
from tests.tape import taped
from tests.test_capture import RECIPES, capturable

EPOCHS = 4  # a batch of either length is recorded by then


def one_of_each():
    """A recipe for each set of losses and optimizer: others differ in their numbers alone."""
    found = {}
    for name in filter(capturable, RECIPES):
        recipe = recipes.load(name)
        terms = [term for phase in (*recipe.pretrain, recipe) for term in phase.minimize]
        uses = frozenset(recipe.losses.get(term, {}).get("use", term) for term in terms)
        found.setdefault((uses, recipe.optimizer["name"]), name)
    return list(found.values())


def close(found, expected):
    """Whether two runs agree up to rounding, which depends on where in memory a tensor lies."""
    (tensors, log), (others, other_log) = found, expected
    return all(
        torch.allclose(tensors[name].double(), others[name].double(), rtol=1e-4, atol=1e-5)
        for name in others
    ) and all(
        record["train"] == pytest.approx(other["train"], rel=1e-5)
        for record, other in zip(log, other_log, strict=True)
    )


@pytest.mark.parametrize("name", one_of_each())
def test_recorded_steps_train_as_eager_ones(name):
    recipe = recipes.load(name)
    made = taped(lambda runner: looking_ahead(tiny.trainer(recipe, epochs=EPOCHS, runner=runner)))
    found = final(made)
    assert len(made.runner.replays) == 2
    assert close(found, final(looking_ahead(tiny.trainer(recipe, epochs=EPOCHS))))


def test_a_memory_that_python_binds_anew_is_not_that_of_a_graph():
    def trainer(**options):
        made = tiny.trainer(recipes.load("ce"), epochs=EPOCHS, **options)
        loss, memory = made.objective.losses["ce"], [torch.zeros(())]
        plain = loss.forward

        def forward(*given):
            value = plain(*given)
            memory[0] = memory[0] / 2 + value.detach()
            return value * memory[0]

        loss.forward = forward
        return made

    assert close(final(trainer()), final(trainer()))
    assert not close(final(taped(lambda runner: trainer(runner=runner))), final(trainer()))
