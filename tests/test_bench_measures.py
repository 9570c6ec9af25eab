"""What `kdcli bench` measures: work and memory against sums done by hand, and a table of them."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdcli import models
from kdcli.analysis.cost import cost
from kdcli.bench import memory, ours, stand_in
from kdcli.bench.comparison import compare
from kdcli.bench.losses import alone
from kdcli.bench.rates import Meter, Rates
from kdcli.bench.work import Work, count
from kdcli.data import TABLE
from kdcli.engine.capture import Captured, Eager
from kdcli.errors import KdcliError
from tests import tiny
from tests.command import call, draw_folder
from tests.test_bench import CPU, setting
from tests.test_capture import again

ROW = {
    "name", "what", "images_per_second", "seconds_per_step", "fastest", "slowest", "rounds",
    "steps_timed", "step_memory_bytes", "published_run_seconds", "speed_up", "floor_seconds",
    "share_of_floor",
}  # fmt: skip


def runner(objective, loader, device, speed, note):
    return Captured if speed.capture else Eager


def test_work_of_a_linear_layer_forward_and_backward():
    layer, images = nn.Linear(5, 3, bias=False), torch.ones(7, 5)
    work = count(lambda: F.relu(layer(images)).sum().backward())
    assert work.flops == 2 * (2 * 7 * 5 * 3)  # the images ask for no gradient: one product less
    maps, weights, scalar = 4 * 7 * 3, 4 * 5 * 3, 4
    forward = [4 * 7 * 5 + weights + maps, 2 * maps, maps + scalar]  # product, ReLU, sum
    # A gradient of ones; the ReLU's, which sees it as one number expanded; the product.
    backward = [2 * scalar, scalar + 2 * maps, maps + 4 * 7 * 5 + weights]
    assert work.bytes == sum(forward + backward)


def test_a_look_up_moves_the_rows_it_returns_and_no_table():
    table, rows = torch.ones(1000, 8), torch.tensor([3, 1])
    assert count(lambda: table[rows]).bytes == 2 * 8 + 2 * (4 * 2 * 8)
    assert count(lambda: table.view(8, 1000).T).bytes == 0
    source = torch.zeros(2, 8)
    assert count(lambda: table.index_copy_(0, rows, source)).bytes == 2 * (2 * 8 + 4 * 2 * 8)
    assert count(lambda: torch.ones(1).expand(100) + source[0, 0]).bytes == 4 + 4 + 400 + 4


def test_the_floor_is_the_longer_of_computing_and_moving():
    step, teacher = Work(100, 30), Work(60, 20)
    assert step.floor(Rates(flops=50.0, bytes=10.0)) == 3.0
    assert step.floor(Rates(flops=20.0, bytes=10.0)) == 5.0
    assert step.without(teacher) == Work(40, 10)


def test_rates_are_measured_and_leave_the_precision_of_products_alone():
    before = torch.backends.cuda.matmul.allow_tf32
    meter = Meter(CPU)
    meter.measure(0.0)
    assert min(meter.rates) > 1e8
    assert torch.backends.cuda.matmul.allow_tf32 == before


def test_peak_memory_is_what_lives_at_once():
    def call() -> None:
        for _ in range(3):
            first = torch.empty(1000, 1000)
            second = torch.empty(500, 1000)
            del first, second

    assert memory.peak(call, CPU) == pytest.approx(6_000_000, rel=0.01)


@pytest.mark.parametrize(
    ("recipe", "teacher", "banked"),
    [("kd", "tiny16", True), ("at", "tiny16", False), ("ce", "", False)],
)
def test_loops_stand_side_by_side(recipe, teacher, banked, tmp_path):
    told, trace = [], tmp_path / "trace.json"
    chosen = replace(setting(recipe), teacher=teacher)
    compared = compare(chosen, 2, 1, 0, lambda text, share: told.append(share), trace)
    rows = compared.rows()
    names = ["textbook", "kdcli"] + ["view bank"] * banked
    assert [row["name"] for row in rows] == names
    assert rows[0]["speed_up"] == 1.0
    for row in rows:
        assert row.keys() >= ROW
        assert row["images_per_second"] == pytest.approx(16 / row["seconds_per_step"])
        assert row["fastest"] <= row["seconds_per_step"] <= row["slowest"]
        assert row["published_run_seconds"] == pytest.approx(240 * 4 * row["seconds_per_step"])
        assert row["step_memory_bytes"] > 0 and row["share_of_floor"] > 0
    assert told == sorted(told) and told[-1] < 1
    assert "traceEvents" in json.loads(trace.read_text())
    assert (compared.teacher == Work(0, 0)) == (not teacher)
    if banked:
        assert rows[2]["bank_images_per_second"] > 0
        assert rows[2]["bank_seconds"] > 0
        assert rows[2]["floor_seconds"] < rows[1]["floor_seconds"]


def test_what_a_gpu_has_more_is_timed_too(monkeypatch):
    """On the CPU, whose graphs run Python again."""
    monkeypatch.setattr(ours, "device_of", lambda name: torch.device("cuda"))
    monkeypatch.setattr("kdcli.engine.session.choose_runner", runner)
    monkeypatch.setattr("kdcli.engine.capture.Recorder", lambda stream: again)
    rows = compare(setting("kd"), 1, 2, 0).rows()
    assert [row["name"] for row in rows] == ["textbook", "kdcli", "captured", "view bank"]
    assert rows[3]["bank_images_per_second"] > 0


@pytest.mark.gpu
@pytest.mark.parametrize(("recipe", "banked"), [("kd", True), ("at", False)])
def test_a_gpu_also_has_a_graph_and_a_teacher_that_runs_ahead(recipe, banked):
    compared = compare(replace(setting(recipe), device="cuda"), 1, 2, 0)
    names = ["textbook", "kdcli", "captured", "look-ahead"] + ["view bank"] * banked
    assert [row["name"] for row in compared.rows()] == names
    assert all(row["step_memory_bytes"] > 0 for row in compared.rows())


def test_the_teacher_is_counted_once_in_the_step():
    compared = compare(setting("kd"), 1, 1, 0)
    student = compared.step.without(compared.teacher)
    teacher_pass, student_pass = (
        16 * cost(models.build(name, tiny.CLASSES)).flops_per_image for name in ("tiny16", "tiny8")
    )
    assert compared.teacher.flops == teacher_pass
    assert 2 * student_pass < student.flops < 3 * student_pass  # images need no gradient


def test_crd_alone_is_timed_in_two_parts_and_their_sum():
    twins = alone(setting("crd", **{"losses.crd.negatives": 20}), 1)
    drawn, computed, both = twins
    assert (drawn.part, computed.part) == ("draw the negatives", "forward, backward, update")
    assert both.literal == drawn.literal + computed.literal
    assert all(twin.literal > 0 and twin.speed_up == twin.literal / twin.kdcli for twin in twins)
    assert "16, 20 negatives of 64 images" in twins[0].sizes
    assert alone(setting("kd"), 1) == []


def test_pixels_are_made_where_there_is_no_data(tmp_path, monkeypatch):
    monkeypatch.setitem(TABLE, "cifar10", TABLE["cifar10"]._replace(train=32))
    made = stand_in.dataset("CIFAR-10", tmp_path)
    assert made.train.images.shape == (32, 3, 32, 32) and len(made.classes) == 10
    assert "made" in made.source and made.train.labels.max() == 9
    with pytest.raises(KdcliError, match="does not fit in memory"):
        stand_in.dataset("imagenet", tmp_path)


def test_a_random_teacher_says_numbers_of_ordinary_size():
    split = tiny.dataset().train
    network = stand_in.teacher("resnet56", 8, split, (0.5,) * 3, (0.25,) * 3)
    logits = network(stand_in.normalise(split.images, (0.5,) * 3, (0.25,) * 3))
    assert logits.isfinite().all() and 1e-3 < logits.std() < 10
    assert not network.training


def test_the_command_prints_json(capsys, tmp_path):
    folder = draw_folder(tmp_path / "photos")
    answer = call(
        capsys, "bench", "--recipe", "crd", "--teacher", "tiny16", "--student", "tiny8",
        "--dataset", f"folder:{folder}", "--batch-size", "8", "--steps", "1", "--rounds", "1",
        "--workers", "0", "--threads", "1", "--device", "cpu", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert [row["name"] for row in told["variants"]] == ["textbook", "kdcli", "view bank"]
    assert "gathered" in told["variants"][0]["what"]
    assert told.keys() >= {"recipe", "teacher", "student", "batch", "dataset", "machine", "rates",
                           "step", "teacher_in_step", "published_run", "losses_alone"}  # fmt: skip
    assert told["losses_alone"][1]["speed_up"] > 0
    assert told["published_run"] == {"epochs": 240, "steps": 240 * 8}


def test_mistakes_are_told_in_a_line(capsys, tmp_path):
    folder = draw_folder(tmp_path / "photos")
    common = ("bench", "--teacher", "tiny16", "--student", "tiny8", "--dataset", f"folder:{folder}")
    for arguments, said in (
        (("--batch-size", "60"), "too few for 4 batches of 60"),
        (("--profile", str(tmp_path / "none" / "x.json")), "there is no folder"),
        (("--losses-only", "--batch-size", "8"), "no loss of 'kd' has a literal form"),
    ):
        answer = call(capsys, *common, *arguments)
        assert answer.code == 2 and said in answer.err
        assert not answer.out
