"""The loop: a stop and a resume change nothing, a bad step touches nothing, a schedule is kept."""

import time

import pytest
import torch

from kdcli import recipes
from kdcli.engine.checkpoint import Checkpoints
from kdcli.engine.phases import Phase
from kdcli.engine.report import Report
from kdcli.engine.stop import Stop
from kdcli.errors import DIVERGED, STOPPED, KdcliError
from tests import tiny

RECIPES = recipes.names()


class StopAfter(Report):
    """Asks for a stop once so many steps were reported."""

    def __init__(self, steps: int):
        self.stop, self.left = Stop(), steps

    def step(self, epoch, step, means):
        self.left -= 1
        self.stop.wanted = self.left <= 0


def final(trainer):
    history = trainer.fit()
    return tiny.snapshot(trainer.objective), [{**r, "seconds": 0} for r in history]


@pytest.fixture(autouse=True)
def report_every_step(monkeypatch):
    monkeypatch.setattr("kdcli.engine.train.READ_EVERY", -1.0)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("steps", [2, 3, 5], ids=["mid-epoch", "epoch's last step", "second epoch"])
def test_a_resumed_run_ends_with_the_same_bits(name, steps, tmp_path):
    recipe = recipes.load(name)  # where it pre-trains, its main phase begins with the second epoch
    whole, log = final(tiny.trainer(recipe))
    report = StopAfter(steps)
    with pytest.raises(KdcliError, match="nothing is lost") as caught:
        tiny.trainer(
            recipe, checkpoints=Checkpoints(tmp_path), report=report, stop=report.stop
        ).fit()
    assert caught.value.code == STOPPED
    resumed = tiny.trainer(recipe, checkpoints=Checkpoints(tmp_path))
    with torch.no_grad():  # nothing may come from how the resumed run was built
        for value in resumed.objective.state_dict().values():
            value.zero_()
    assert final(resumed)[1] == log
    assert tiny.same(tiny.snapshot(resumed.objective), whole)


def test_an_epoch_that_was_stopped_counts_the_seconds_before_and_after(tmp_path):
    report, checkpoints = StopAfter(2), Checkpoints(tmp_path)
    slow = tiny.trainer(
        recipes.load("ce"), checkpoints=checkpoints, report=report, stop=report.stop
    )
    plain = slow.loader.batches
    slow.loader.batches = lambda *where: (time.sleep(0.3) or batch for batch in plain(*where))
    with pytest.raises(KdcliError, match="nothing is lost"):
        slow.fit()
    first, _ = tiny.trainer(recipes.load("ce"), checkpoints=checkpoints).fit()
    assert first["seconds"] > 0.6


def test_a_finished_run_resumes_to_itself(tmp_path):
    recipe = recipes.load("kd")
    whole, log = final(tiny.trainer(recipe, checkpoints=Checkpoints(tmp_path)))
    again, log_again = final(tiny.trainer(recipe, checkpoints=Checkpoints(tmp_path)))
    assert tiny.same(whole, again)
    assert log == log_again


@pytest.mark.parametrize("name", RECIPES)
def test_the_teacher_stays_bit_identical_and_the_rest_moves(name):
    trainer = tiny.trainer(recipes.load(name))
    teacher = tiny.snapshot(trainer.objective.teacher.network)
    before = {key: p.detach().clone() for key, p in trainer.objective.named_parameters()}
    trainer.fit()
    assert tiny.same(tiny.snapshot(trainer.objective.teacher.network), teacher)
    inert = {"losses.dcd.bias", "losses.icd.bias"}  # cancels in both softmaxes: no gradient, 0
    for key, parameter in trainer.objective.named_parameters():
        if key in inert:
            continue
        held = not parameter.requires_grad  # SimKD's classifier is the teacher's
        held = held or all(phase.frozen(key) for phase in trainer.phases)
        assert torch.equal(parameter, before[key]) == held, key


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    recipe = recipes.load("crd")
    one, two = final(tiny.trainer(recipe)), final(tiny.trainer(recipe))
    assert tiny.same(one[0], two[0])
    other = tiny.trainer(recipe, seed=1)
    assert not tiny.same(final(other)[0], one[0])


def test_training_learns_what_can_be_learned():
    trainer = tiny.trainer(recipes.load("ce"))
    trainer.phases = [Phase("main", 20, {"ce": 1.0}, 0.02, (15,))]
    history = trainer.fit()
    assert history[-1]["test"]["top1"] > 90
    assert history[0]["train"]["top1"] < 20


def test_a_bad_step_leaves_the_weights_and_names_step_terms_and_rate(tmp_path, monkeypatch):
    trainer = tiny.trainer(recipes.load("kd"), checkpoints=Checkpoints(tmp_path))
    good, calls = trainer.objective.losses["kd"].forward, []

    def poisoned(student, teacher, batch):
        calls.append(0)
        if len(calls) == 5:
            trainer.weights = tiny.snapshot(trainer.objective.student)
            return good(student, teacher, batch) * float("nan")
        return good(student, teacher, batch)

    monkeypatch.setattr(trainer.objective.losses["kd"], "forward", poisoned)
    with pytest.raises(KdcliError) as caught:
        trainer.fit()
    assert caught.value.code == DIVERGED
    text = str(caught.value)
    assert "term kd" in text and "epoch 2, step 2" in text and "learning rate 0.005" in text
    for name, parameter in trainer.objective.student.named_parameters():
        assert torch.equal(parameter, trainer.weights[name])
    assert Checkpoints(tmp_path).load(print)[1]["epoch"] == 1, "the last good one is kept"


def test_a_memory_with_nan_is_never_saved(tmp_path):
    trainer = tiny.trainer(recipes.load("crd"), checkpoints=Checkpoints(tmp_path))
    row = trainer.objective.losses["crd"].memory_student

    def spoil(epoch, step, means):
        row[0].fill_(float("nan"))

    trainer.report.step = spoil
    with pytest.raises(KdcliError, match="diverged") as caught:
        trainer.fit()
    assert caught.value.code == DIVERGED
    assert Checkpoints(tmp_path).steps() == []


def test_a_log_that_cannot_be_written_costs_one_warning_and_not_the_run():
    notes = []

    def full(history):
        raise OSError(28, "No space left on device")

    trainer = tiny.trainer(recipes.load("ce"), logged=full)
    trainer.report.note = notes.append
    assert len(trainer.fit()) == 2
    assert len(notes) == 1 and "No space left" in notes[0]
