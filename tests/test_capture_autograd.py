"""What a capture asks of autograd: nothing of an earlier step's graph is alive when it begins.

A node that adds to a parameter's gradient keeps the stream of the step that made it. Were it alive
in a capture, the backward pass would wait for that stream, which the graph does not hold.
"""

import pytest
import torch

from kdcli import recipes
from kdcli.engine.capture import Captured
from tests import tiny
from tests.ahead import looking_ahead
from tests.test_capture import RECIPES, capturable, replayed

MARK = "of an earlier step"


def accumulators(trainer):
    """The nodes that add to the gradients of what is trained; made now, if none is alive."""
    for parameter in trainer.update.parameters.values():
        with torch.enable_grad():
            yield parameter.view_as(parameter).grad_fn.next_functions[0][0]


def alive(trainer):
    return sum(MARK in node.metadata for node in accumulators(trainer))


def marking(trainer):
    """Has the step mark its nodes while its graph is whole."""
    plain, marked = trainer.update.step, []

    def step(terms, lr):
        for node in accumulators(trainer):
            node.metadata[MARK] = True
        marked.append(alive(trainer))
        return plain(terms, lr)

    trainer.update.step = step
    return marked


@pytest.mark.parametrize("name", [name for name in RECIPES if capturable(name)])
def test_a_step_leaves_no_autograd_graph_behind(name):
    trainer = looking_ahead(tiny.trainer(recipes.load(name), runner=replayed))
    trainer._begin_epoch()
    marked = marking(trainer)
    for _ in trainer.runner.run(0, 0):
        assert alive(trainer) == 0
    assert all(marked)


def test_a_graph_that_is_kept_is_noticed():
    trainer = tiny.trainer(recipes.load("ce"))
    trainer._begin_epoch()
    marking(trainer)
    kept, plain = [], trainer.objective.forward
    trainer.objective.forward = lambda batch: kept.append(plain(batch)) or kept[-1]
    trainer._step(next(trainer.loader.batches(0)))
    assert alive(trainer) > 0


@pytest.mark.gpu
def test_steps_before_a_capture_run_on_its_stream():
    trainer = tiny.trainer(recipes.load("kd"), epochs=6, runner=Captured, device="cuda")
    seen, plain = set(), trainer.objective.forward

    def forward(batch):
        seen.add(torch.cuda.current_stream())
        return plain(batch)

    trainer.objective.forward = forward
    trainer.fit()
    assert len(trainer.runner.replays) == 2
    assert seen == {trainer.runner.side}
