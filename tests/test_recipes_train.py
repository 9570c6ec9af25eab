"""Every recipe on the embedded dataset, from a configuration to a file, for two pairs of networks.

One of the same family and one of two; a pair that a recipe cannot do is refused before it trains.
"""

from dataclasses import replace
from functools import cache

import pytest
import torch

from kdcli import data, models, recipes
from kdcli.data import Split
from kdcli.engine.checkpoint import Checkpoints
from kdcli.engine.report import Report
from kdcli.engine.session import Session
from kdcli.errors import STOPPED, KdcliError
from kdcli.models import weights
from kdcli.recipe import scaled
from tests import tiny
from tests.test_train import StopAfter

RECIPES = [name for name in recipes.names() if name not in ("probe", "teach")]
PAIRS = {"one family": "tiny16", "two families": "resnet8"}  # teacher of tiny8
CASES = [pytest.param(name, pair, id=f"{name}, {pair}") for name in RECIPES for pair in PAIRS]
MISFITS = {("fsp", "two families"), ("kdsvd", "two families")}  # they need equal widths
INERT = {"losses.dcd.bias", "losses.icd.bias"}  # cancel in both softmaxes: rounding moves them


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """A file of weights for every teacher, with statistics that are not those of a new network."""
    folder = tmp_path_factory.mktemp("teachers")
    for name in ("tiny16", "tiny8", "resnet8"):
        torch.manual_seed(1)
        network = models.build(name, classes=10).train()
        network(torch.randn(8, 3, 32, 32))
        weights.save(network, folder / f"{name}.safetensors", {})
    return folder


@cache
def shapes():
    """40 training and 40 test images."""
    whole = data.load("shapes", "nowhere", train_per_class=4)
    return replace(whole, test=Split(whole.test.images[:40], whole.test.labels[:40]))


@pytest.fixture(autouse=True)
def few_images_and_a_look_at_every_step(monkeypatch):
    monkeypatch.setattr(Session, "_read_dataset", lambda *_: shapes())
    monkeypatch.setattr("kdcli.engine.train.READ_EVERY", -1.0)


def session(recipe, pair, teachers, folder, report=None):
    """An epoch of three steps, and one of each phase before it."""
    short = scaled(recipes.load(recipe), 1)
    equal = pair == "one family" and tiny.TEACHERS.get(recipe)
    teacher = equal or PAIRS[pair]
    config = {
        "kind": "distill",
        "student": "tiny8",
        "dataset": "shapes",
        "seed": 0,
        "teacher": {"model": teacher, "path": str(teachers / f"{teacher}.safetensors")},
        "recipe": replace(short, batch=16).to_dict(),
        "speed": {"bank_dir": str(folder), "bank": "auto" if pair == "one family" else "off"},
    }
    return Session(config, folder, "cpu", report or Report())


def reached(objective):
    """Names of parameters that a gradient other than 0 reaches, filled while it trains."""
    names = set()

    def watch(name):
        def hook(parameter):
            if parameter.grad.any():
                names.add(name)

        return hook

    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(watch(name))
    return names


@pytest.mark.parametrize(("recipe", "pair"), [case for case in CASES if case.values not in MISFITS])
def test_a_recipe_trains_all_it_should_nothing_else_resumes_and_is_read_back(
    recipe, pair, teachers, tmp_path
):
    made = session(recipe, pair, teachers, tmp_path)
    (teacher,), objective = made.teachers, made.objective
    taught, before = tiny.snapshot(teacher), tiny.snapshot(objective)
    names = reached(objective)
    made.trainer().fit()
    assert tiny.same(tiny.snapshot(teacher), taught), "weights or statistics of the teacher"
    after, phases = tiny.snapshot(objective), made.phases()
    for name, parameter in objective.named_parameters():
        held = not parameter.requires_grad or all(phase.frozen(name) for phase in phases)
        assert torch.equal(after[name], before[name]) == held or name in INERT, name
        assert (name in names) != held or name in INERT, f"{name} moves without a gradient"

    file = tmp_path / "student.safetensors"
    weights.save(made.student, file, {})
    read = weights.read(file)[0].to(memory_format=torch.channels_last)  # as it was trained
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(read(images), made.student.eval()(images))

    report, folder = StopAfter(2), tmp_path / "checkpoint"
    stopped = session(recipe, pair, teachers, tmp_path, report)
    with pytest.raises(KdcliError) as caught:
        stopped.trainer(Checkpoints(folder), stop=report.stop).fit()
    assert caught.value.code == STOPPED
    resumed = session(recipe, pair, teachers, tmp_path)
    resumed.trainer(Checkpoints(folder)).fit()
    assert tiny.same(tiny.snapshot(resumed.objective), after)


@pytest.mark.parametrize(("recipe", "pair"), sorted(MISFITS))
def test_a_pair_that_cannot_be_done_is_one_line_with_both_networks_maps(
    recipe, pair, teachers, tmp_path
):
    with pytest.raises(KdcliError) as caught:
        session(recipe, pair, teachers, tmp_path)
    said = str(caught.value)
    assert "\n" not in said and f"'{recipe}'" in said
    assert "8x16x16" in said and "16x32x32" in said, said
