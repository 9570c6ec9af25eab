"""Several teachers: logits are averaged, features are compared with each, every member is kept."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from kdcli import losses, models
from kdcli.engine import session
from kdcli.engine.objective import Objective, assemble, shows
from kdcli.engine.report import Report
from kdcli.engine.session import Session
from kdcli.engine.teachers import Ensemble, Frozen, together
from kdcli.ensembles import label, members
from kdcli.errors import KdcliError
from kdcli.losses import EachTeacher
from kdcli.losses.kd import kl_divergence
from kdcli.runs import Run
from tests import tiny
from tests.command import call, draw_folder

TEACHERS = ("tiny16", "resnet8")  # of other widths, and of stages of other sizes
QUICK = ("--epochs", "2", "--batch-size", "16", "--device", "cpu", "--threads", "1")


def built(term, teachers=TEACHERS, **arguments):
    """An ensemble's objective of one loss, and its teachers."""
    torch.manual_seed(0)
    student = models.build("tiny8", classes=tiny.CLASSES)
    networks = [models.build(name, classes=tiny.CLASSES) for name in teachers]
    made, terms = assemble(
        student, networks, {term: arguments}, torch.zeros(2, 3, 32, 32),
        tiny.dataset().train.labels, tiny.CLASSES, 2,
    )  # fmt: skip
    objective = Objective(made, terms, Ensemble([Frozen(network) for network in networks]))
    objective.weigh({term: 1.0}, tiny.DEVICE)
    return objective, networks


def of_one(term, made, teacher, number, **arguments):
    """The loss with teacher `number` alone, in the state that it has in the ensemble."""
    shown = [shows(network, torch.zeros(2, 3, 32, 32)) for network in (made.student, teacher)]
    ctx = losses.Context(*shown, teacher, tiny.CLASSES, tiny.dataset().train.labels, 2)
    alone = losses.build(term, ctx, **arguments)
    alone.load_state_dict(made.losses[term].teachers[number].state_dict())
    return alone


def test_the_mean_of_logits_is_the_geometric_mean_of_the_distributions_at_any_temperature():
    made, networks = built("kd")
    batch = tiny.batch(made)
    shown = made.teacher.features(batch)
    for temperature in (1.0, 4.0):
        each = [F.softmax(net(batch.images).detach() / temperature, dim=1) for net in networks]
        product = (each[0] * each[1]).sqrt()
        expected = product / product.sum(1, keepdim=True)
        torch.testing.assert_close(F.softmax(shown.logits / temperature, dim=1), expected)


def test_pooled_features_side_by_side_give_the_averaged_logits_through_one_linear_layer():
    made, networks = built("kd")
    shown = made.teacher.features(tiny.batch(made))
    weight = torch.cat([network.head.weight for network in networks], dim=1) / 2
    bias = sum(network.head.bias for network in networks) / 2
    torch.testing.assert_close(F.linear(shown.pooled, weight, bias), shown.logits)
    assert shown.stages == () and [len(one.stages) for one in shown.members] == [4, 4]


def test_further_views_are_answered_by_all_members():
    one, two = (models.build("tiny16", classes=8).eval() for _ in range(2))
    images = torch.randn(2, 3, 32, 32)
    shown = [net.features(images)._replace(others=(net.features(-images),)) for net in (one, two)]
    told = together(shown)
    torch.testing.assert_close(told.others[0].logits, (one(-images) + two(-images)) / 2)
    assert len(told.others[0].members) == 2


def test_kd_follows_the_averaged_answer():
    made, networks = built("kd", temperature=3.0)
    batch = tiny.batch(made)
    logits, terms = made(batch)
    taught = sum(network(batch.images) for network in networks) / 2
    torch.testing.assert_close(terms["kd"], kl_divergence(logits, taught, 3.0))
    assert not isinstance(made.losses["kd"], EachTeacher)


@pytest.mark.parametrize(
    ("term", "arguments"),
    [("crd", {"negatives": 16}), ("fitnet", {}), ("at", {}), ("rkd", {}), ("ofd", {})],
)
def test_a_loss_of_features_is_the_sum_over_the_teachers(term, arguments):
    made, networks = built(term, **arguments)
    batch = tiny.batch(made)
    alone = [of_one(term, made, net, number, **arguments) for number, net in enumerate(networks)]
    torch.manual_seed(5)  # CRD draws negatives: for the first teacher, then for the second
    student = made.student.train().features(batch.images)
    pairs = zip(alone, networks, strict=True)
    expected = sum(loss(student, Frozen(net).features(batch), batch) for loss, net in pairs)
    torch.manual_seed(5)
    torch.testing.assert_close(made(batch)[1][term], expected)


def test_crd_keeps_a_memory_of_each_teacher_and_moves_them_all():
    made, _ = built("crd", negatives=16)
    own = made.losses["crd"].teachers
    assert [one.embed_teacher.in_features for one in own] == [96, 64]
    before = [one.memory_teacher.clone() for one in own]
    batch = tiny.batch(made)
    made(batch)
    made.after_step()
    for one, then in zip(own, before, strict=True):
        moved = (one.memory_teacher != then).any(1).nonzero().flatten()
        assert moved.tolist() == sorted(batch.index.tolist())


def test_a_loss_that_rebuilds_the_student_around_one_teacher_refuses_several():
    with pytest.raises(KdcliError, match="'simkd' rebuilds the student around one teacher"):
        built("simkd")


def test_members_are_counted_in_the_name():
    told = [{"model": name} for name in ("wrn_16_2", "resnet20", "wrn_16_2")]
    assert label(told) == "resnet20+2xwrn_16_2"
    assert members({"teacher": None}) == [] and members({"teacher": told[0]}) == told[:1]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return "folder:" + str(draw_folder(tmp_path_factory.mktemp("images")))


def teach(capsys, images, model, seed):
    answer = call(
        capsys, "teach", model, "--dataset", images, "--seed", seed, *QUICK, "--quiet", "--json"
    )
    assert answer.code == 0, answer.err
    return Path(json.loads(answer.out)["run"])


def distill(capsys, teachers, *more, recipe="crd+kd"):
    named = [part for teacher in teachers for part in ("--teacher", teacher)]
    return call(
        capsys, "distill", "--recipe", recipe, "--student", "tiny8", *named, *QUICK, *more,
        "--allow-weak-teacher",
    )  # fmt: skip


def test_an_ensemble_trains_and_resumes_to_the_same_bits_wherever_its_files_stand(
    capsys, images, tmp_path, monkeypatch
):
    taught = [teach(capsys, images, "tiny16", seed) for seed in (0, 1)]
    before = [path.joinpath("model.safetensors").read_bytes() for path in taught]
    answer = distill(capsys, [path.name for path in taught], "--json")
    assert answer.code == 0, answer.err
    whole = Run(Path(json.loads(answer.out)["run"]))
    assert whole.name.startswith("crd+kd-2xtiny16-tiny8-")
    assert [told["run"] for told in whole.config["teacher"]["members"]] == [p.name for p in taught]

    write_log, logs = Run.write_log, []

    def pulled(run, history):
        write_log(run, history)
        logs.append(1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Run, "write_log", pulled)
        distill(capsys, [path.name for path in taught], "--name", "broken")
    assert logs and not Run(whole.path.parent / "broken").finished
    moved = tmp_path / "elsewhere.safetensors"
    (taught[1] / "model.safetensors").rename(moved)
    answer = distill(capsys, [taught[0].name, moved], "--name", "broken", "--resume")
    assert answer.code == 0, answer.err
    resumed = whole.path.parent / "broken" / "model.safetensors"
    assert tiny.same(load_file(whole.model), load_file(resumed))
    assert [taught[0].joinpath("model.safetensors").read_bytes(), moved.read_bytes()] == before


@pytest.mark.parametrize("recipe", ["kd", "pkt", "sp"])  # logits, pooled features, maps
def test_members_may_answer_from_their_banks_and_show_only_what_is_read(recipe, capsys, images):
    taught = [teach(capsys, images, "tiny16", seed) for seed in (0, 1)]
    answer = distill(capsys, taught, "--epochs", "1", "--json", recipe=recipe)
    assert answer.code == 0, answer.err
    run = Run(Path(json.loads(answer.out)["run"]))
    assert {"ce", recipe} <= set(run.log()[0]["train"])


def test_every_member_must_beat_chance(capsys, images, tmp_path):
    taught = [teach(capsys, images, "tiny16", seed) for seed in (0, 1)]
    answer = distill(capsys, taught, "--dry-run", "--json", recipe="kd")
    told = json.loads(answer.out)
    assert set(told["parameters"]) == {"student", "teacher 1", "teacher 2", "losses"}
    config = {**Run(taught[0]).config, "student": "tiny8"}
    config["teacher"] = {"members": [{"model": "tiny16", "path": str(path)} for path in taught]}
    config["recipe"] = {**config["recipe"], "minimize": {"kd": 1.0}, "batch": 16}
    session = Session(config, tmp_path, "cpu", Report())
    scores = iter([{"top1": 90.0}, {"top1": 25.0}])
    session._evaluate = lambda network, images: next(scores)
    with pytest.raises(KdcliError, match=rf"{taught[1].name} scores 25.0 %"):
        session.check_teachers(allow_weak=False)


def test_a_teacher_of_two_classes_must_beat_a_coin_and_need_not_be_perfect(
    capsys, tmp_path, monkeypatch
):
    pictures = "folder:" + str(draw_folder(tmp_path / "two", classes=2))
    taught = teach(capsys, pictures, "tiny8", 0)
    config = {**Run(taught).config, "student": "tiny8"}
    config["teacher"] = {"model": "tiny8", "path": str(taught)}
    config["recipe"] = {**config["recipe"], "minimize": {"kd": 1.0}, "batch": 16}
    made = Session(config, tmp_path, "cpu", Report())
    top1, shown = iter([70.0, 60.0]), []

    def evaluate(network, split, *_):
        shown.append(split.labels.tolist())
        return SimpleNamespace(top1=next(top1), top5=100.0, loss=1.0)

    monkeypatch.setattr(session, "PROBED", 4)
    monkeypatch.setattr(session, "evaluate", evaluate)
    assert made.check_teachers(allow_weak=False) == [70.0]
    with pytest.raises(KdcliError, match=r"60.0 % on .*, hardly above chance"):
        made.check_teachers(allow_weak=False)
    assert shown == [[0, 0, 1, 1]] * 2, "of 16 images that are listed class by class"


def test_an_ensemble_of_the_same_weights_or_of_two_datasets_is_refused(capsys, images, tmp_path):
    taught = teach(capsys, images, "tiny16", 0)
    answer = distill(capsys, ["tiny16", taught])
    assert answer.code == 2 and "have the same weights" in answer.err
    other = "folder:" + str(draw_folder(tmp_path / "other"))
    answer = distill(capsys, [taught, teach(capsys, other, "tiny8", 0)])
    assert answer.code == 2 and "learn one dataset" in answer.err
