"""Phases: what each trains, at what rate, and what it leaves alone."""

from dataclasses import replace

import pytest
import torch

from kdcli import models, recipes
from kdcli.engine.checkpoint import Checkpoints
from kdcli.engine.objective import Objective
from kdcli.engine.phases import Phase, plan
from kdcli.errors import KdcliError
from kdcli.recipe import Pretrain
from tests import tiny
from tests.test_train import StopAfter

PRETRAINED = [name for name in recipes.names() if recipes.load(name).pretrain]


@pytest.fixture(autouse=True)
def report_every_step(monkeypatch):
    monkeypatch.setattr("kdcli.engine.train.READ_EVERY", -1.0)


def test_the_rate_falls_after_the_milestone_and_a_warm_up_starts_above_zero():
    phase = Phase("main", 240, {"kd": 2.0}, 0.05, (150, 180, 210), {"kd": 20})
    rates = [phase.rate(epoch) for epoch in (0, 149, 150, 179, 180, 210, 239)]
    assert rates == pytest.approx([0.05, 0.05, 0.005, 0.005, 0.0005, 0.00005, 0.00005])
    weights = [phase.weigh(epoch)["kd"] for epoch in (0, 9, 19, 100)]
    assert weights == pytest.approx([0.1, 1.0, 2.0, 2.0])


def test_a_frozen_module_neither_learns_nor_moves_its_statistics():
    trainer = tiny.trainer(recipes.load("ce"))
    trainer.phases = [Phase("main", 2, {"ce": 1.0}, 0.05, freeze=("student.block0",))]
    before = tiny.snapshot(trainer.objective.student)
    trainer.fit()
    after = tiny.snapshot(trainer.objective.student)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and not any(name.startswith("block0.") for name in moved)


def test_each_phase_has_its_own_objective_and_optimizer():
    trainer = tiny.trainer(recipes.load("kd"))
    trainer.phases = [Phase("before", 1, {"kd": 1.0}, 0.1), Phase("main", 1, {"ce": 1.0}, 0.05)]
    history = trainer.fit()
    assert [set(r["train"]) for r in history] == [{"loss", "kd", "top1"}, {"loss", "ce", "top1"}]
    assert [r["lr"] for r in history] == [0.1, 0.05]


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_run_that_pretrains_moves_only_what_its_phase_trains(name):
    trainer = tiny.trainer(recipes.load(name))
    states = [tiny.snapshot(trainer.objective)]
    trainer.report.epoch = lambda record: states.append(tiny.snapshot(trainer.objective))
    history = trainer.fit()
    assert [record["phase"] for record in history] == ["pretrain 1", "main", "main"]
    for phase, before, after in zip(trainer.phases, states[:2], states[1:3], strict=True):
        moved = {key for key in before if not torch.equal(before[key], after[key])}
        assert moved and not any(phase.frozen(key) for key in moved)


def test_each_phase_begins_with_a_word_to_its_losses_also_on_a_resume(tmp_path):
    recipe = replace(recipes.load("kd"), pretrain=(Pretrain({"kd": 1.0}, 1),))
    told = []

    def listening(report=None):
        made = tiny.trainer(
            recipe,
            checkpoints=Checkpoints(tmp_path),
            report=report,
            stop=report and report.stop,
        )
        for name, loss in made.objective.losses.items():
            loss.begin = lambda main, name=name: told.append((name, main))
        return made

    with pytest.raises(KdcliError, match="nothing is lost"):
        listening(StopAfter(2)).fit()
    assert told == [("kd", False)]
    listening().fit()
    assert told[1:] == [("kd", False), ("ce", True), ("kd", True)]


def test_a_teacher_that_no_loss_of_a_phase_reads_is_not_run():
    recipe = replace(recipes.load("ce"), pretrain=(Pretrain({"kd": 1.0}, 1),))
    trainer = tiny.trainer(recipe)
    teacher, phases = trainer.objective.teacher, []
    features = teacher.features

    def counted(batch):
        phases.append(trainer.phase.name)
        return features(batch)

    teacher.features = counted
    trainer.fit()
    assert phases == ["pretrain 1"] * 3


def test_the_top_of_a_student_is_that_of_its_family():
    recipe = replace(
        recipes.load("ce"), pretrain=(Pretrain({"ce": 1.0}, 1, freeze=("student.top", "x.*")),)
    )
    for name, top in (
        ("wrn_16_1", ("bn1", "fc")),
        ("resnet8", ("fc",)),
        ("MobileNetV2", ("conv2", "classifier.0")),
        ("ShuffleV2", ("conv2", "bn2", "linear")),
    ):
        first, main = plan(recipe, Objective(models.build(name), {}), rate=0.05)
        assert first.freeze == (*(f"student.{key}" for key in top), "x.*")
        assert main.freeze == ()


def test_a_phase_has_its_own_rate_or_the_main_one_and_keeps_it():
    phases = (Pretrain({"ce": 1.0}, 3, lr=0.01), Pretrain({"ce": 1.0}, 3))
    recipe = replace(recipes.load("ce"), pretrain=phases)
    rates = [
        {phase.rate(epoch) for epoch in range(phase.epochs)}
        for phase in plan(recipe, Objective(models.build("tiny8"), {}), rate=0.05)
    ]
    assert rates[:2] == [{0.01}, {0.05}]
    assert len(rates[2]) == 4


def test_a_freeze_list_names_modules_that_the_student_and_the_losses_have():
    made, ft = tiny.objective({"ft": 1.0}), recipes.load("ft")
    right = ("student.block?", "student.top", "*norm*", "losses.ft.paraphraser", "losses.ft")
    plan(replace(ft, freeze=right), made, 0.1)
    for wrong in ("student.blok0", "losses.ft.paraphrase", "losses.dkd"):
        with pytest.raises(KdcliError, match=rf"in freeze '{wrong}'. Did you mean"):
            plan(replace(ft, freeze=(wrong,)), made, 0.1)
