"""A teacher that runs ahead of time is the teacher: the same numbers, and no work for nothing."""

from dataclasses import replace

import pytest
import torch

from kdcli import recipes
from kdcli.contracts import Batch
from kdcli.engine.banked import Banked
from kdcli.engine.look_ahead import LookAhead
from kdcli.engine.speed import Speed, choose_teacher
from kdcli.engine.teachers import Frozen
from tests import tiny
from tests.ahead import banked, count_forwards, final, looking_ahead


@pytest.mark.parametrize("name", ["fitnet", "mlkd", "sp", "kd"])
@pytest.mark.parametrize("steps", [2, 16])
def test_looking_ahead_changes_nothing(name, steps):
    recipe = recipes.load(name)
    online, log = final(tiny.trainer(recipe, epochs=3))
    found, found_log = final(looking_ahead(tiny.trainer(recipe, epochs=3), steps))
    for key, value in online.items():
        assert torch.allclose(found[key].float(), value.float(), rtol=1e-4, atol=1e-5), key
    for one, other in zip(log, found_log, strict=True):
        assert other["train"]["loss"] == pytest.approx(one["train"]["loss"], rel=1e-4)


def test_a_look_ahead_asks_once_for_its_batches():
    trainer = tiny.trainer(recipes.load("sp"))
    looking_ahead(trainer)
    seen = count_forwards(trainer)
    trainer.fit()
    assert seen == [64, 64], "an epoch's three batches at once"


def test_a_resumed_look_ahead_has_the_windows_of_a_whole_epoch():
    trainer = tiny.trainer(recipes.load("kd"))
    teacher = looking_ahead(trainer, steps=2).objective.teacher
    batches: list[Batch] = list(trainer.loader.batches(0))
    expected = [teacher.network(batch.images) for batch in batches]
    seen = count_forwards(trainer)
    for step in (1, 2):
        teacher.ahead(0, step)
        assert torch.allclose(teacher.features(batches[step]).logits, expected[step], atol=1e-5)
    assert seen == [48, 16], "as if it had begun with step 0"


def test_a_look_ahead_gives_maps_in_the_layout_that_the_network_gives():
    trainer = tiny.trainer(recipes.load("sp"))
    batch = next(trainer.loader.batches(0))
    expected = trainer.objective.teacher.features(batch).stages
    assert all(stage.is_contiguous(memory_format=torch.channels_last) for stage in expected)
    teacher = looking_ahead(trainer).objective.teacher
    teacher.ahead(0, 0)
    found = teacher.features(batch).stages
    assert [stage.stride() for stage in found] == [stage.stride() for stage in expected]


def test_a_look_ahead_keeps_what_is_read_and_in_the_precision_of_the_step():
    trainer = tiny.trainer(recipes.load("reviewkd"))
    trainer.objective.bf16 = True
    batch = next(trainer.loader.batches(0))
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        online = trainer.objective.teacher.features(batch)
    teacher = looking_ahead(trainer).objective.teacher
    teacher.ahead(0, 0)
    found = teacher.features(batch)
    assert found.logits is None and found.last is None and found.stages == ()
    for one, other in zip(
        (found.pooled, *found.preacts), (online.pooled, *online.preacts), strict=True
    ):
        assert one.dtype == other.dtype == torch.bfloat16
        assert torch.allclose(one.float(), other.float(), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("name", "speed", "expected"),
    [
        ("kd", Speed(), Banked),
        ("kd", Speed(bank="off"), Frozen),
        ("kd", Speed(bank="off", look_ahead=2), LookAhead),
        ("fitnet", Speed(look_ahead=2), LookAhead),
        ("mlkd", Speed(), Frozen),
    ],
    ids=str,
)
def test_the_quickest_teacher_that_the_losses_allow_is_chosen(name, speed, expected, tmp_path):
    trainer = tiny.trainer(recipes.load(name))
    made, speed = trainer.objective, replace(speed, bank_dir=str(tmp_path))
    made.bf16 = True
    around = (tiny.dataset(), trainer.loader, made, speed, lambda text: None)
    teacher = choose_teacher(made.teacher.network, "tiny16", *around)
    assert type(teacher) is expected
    if expected is LookAhead:
        assert (teacher.reads, teacher.steps, teacher.bf16) == (made.reads, 2, True)


@pytest.mark.parametrize("name", ["ab", "fsp"])
def test_a_phase_that_reads_no_teacher_runs_none(name):
    trainer = looking_ahead(tiny.trainer(recipes.load(name)))
    seen = count_forwards(trainer)
    trainer.fit()
    assert seen == [64], "the first epoch's batches; its two main ones need none"


def test_a_rank_computes_its_own_rows_alone(tmp_path):
    trainer = banked(tiny.trainer(recipes.load("kd")), tmp_path)
    trainer.loader.rows = trainer.loader.rows._replace(rank=1, world=2)
    teacher = trainer.objective.teacher
    teacher.ahead(0, 0)
    batches = list(trainer.loader.batches(0))
    assert teacher.bank.column("logits").rows == sum(len(batch.index) for batch in batches) == 32
    for batch in batches:
        expected = teacher.network(batch.images)
        assert torch.allclose(teacher.features(batch).logits, expected, atol=1e-5)
