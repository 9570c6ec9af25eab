"""The counters of batch norms are what they would be, and take one kernel together."""

import pytest
import torch

from kdcli import recipes
from kdcli.engine.counters import NAME, counted_together
from tests import tiny
from tests.tape import Tape


def counters(module):
    return {key: int(value) for key, value in module.state_dict().items() if key.endswith(NAME)}


@pytest.mark.parametrize("name", ["kd", "mlkd", "one", "ofd"])
def test_norms_are_counted_as_they_count_themselves(name):
    trainer = tiny.trainer(recipes.load(name))
    trainer._begin_epoch()
    made, batch = trainer.objective, next(trainer.loader.batches(0))
    keys, batch = list(made.state_dict()), batch._replace(epoch=torch.tensor(0))
    before = counters(made)
    made._terms(batch)
    plain = {key: value - before[key] for key, value in counters(made).items()}
    before = counters(made)
    with Tape() as tape:
        made(batch)
    assert {key: value - before[key] for key, value in counters(made).items()} == plain
    assert set(plain.values()) <= {0, 1, 2} and max(plain.values()) == made.views
    assert list(made.state_dict()) == keys
    moved = [call for call in tape.calls if "foreach_add_" in str(call[0])]
    assert len(moved) == len(set(plain.values()) - {0})


def test_counters_are_back_whatever_happens_and_eval_moves_none():
    network = tiny.objective({"ce": 1.0}).student
    network.eval()
    before = counters(network)
    with counted_together(network):
        network(torch.zeros(2, 3, 32, 32))
    assert counters(network) == before
    network.train()
    with pytest.raises(ZeroDivisionError), counted_together(network):
        raise ZeroDivisionError
    assert counters(network) == before
