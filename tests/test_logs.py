"""Logs for other services: the same epochs as log.jsonl, each once, and never at the run's cost."""

import json
import sys
import tomllib
from pathlib import Path

import pytest

from kdcli import logs
from kdcli.errors import KdcliError
from kdcli.logs import Logs
from kdcli.runs import Run
from tests import services
from tests.command import call, draw_folder

CONFIG = {
    "kind": "distill", "student": "tiny8", "teacher": None, "dataset": "made", "seed": 3,
    "recipe": {"name": "kd", "milestones": [1, 2], "losses": {"kd": {"temperature": 4.0}},
               "pairs": {"a->b": {"lr": 1}}, "lr": 0.1},
}  # fmt: skip
RESULT = {
    "top1": 30.0, "top5": 60.0, "loss": 1.5, "epochs": 3, "train_seconds": 6.0,
    "best": {"top1": 30.0, "epoch": 3}, "machine": {"device": "cpu"},
}  # fmt: skip


def record(epoch):
    train = {"ce": 2.0 / epoch, "kd": 1.0, "loss": 2.0 / epoch + 1, "top1": 8.0 * epoch}
    test = {"top1": 10.0 * epoch, "top5": 20.0 * epoch, "loss": 1.5}
    return {
        "epoch": epoch,
        "phase": "main",
        "lr": 0.1,
        "train": train,
        "test": test,
        "seconds": 2.0,
    }


HISTORY = [record(epoch) for epoch in (1, 2, 3)]


@pytest.fixture
def run(tmp_path):
    made = Run(tmp_path / "runs" / "kd-s3")
    made.begin(CONFIG)
    return made


@pytest.fixture
def mlflow(monkeypatch):
    return services.mlflow(monkeypatch)


@pytest.fixture
def wandb(monkeypatch):
    return services.wandb(monkeypatch)


def told(name, run, note=pytest.fail, quiet=False):
    return Logs((name,), run, 100, note, quiet)


def stopped(name, run, history):
    """A run that is logged up to `history` and stopped then."""
    with pytest.raises(KdcliError), told(name, run) as log:
        for epoch in range(len(history)):
            log(history[: epoch + 1])
            run.write_log(history[: epoch + 1])
        raise KdcliError("stopped", 75)


def finished(name, run, history):
    """The same run, resumed and finished."""
    with told(name, run) as log:
        log(history)
        run.finish(RESULT)


def test_mlflow_goes_on_with_its_run_and_hears_of_each_epoch_once(run, mlflow):
    stopped("mlflow", run, HISTORY[:2])
    assert mlflow.ends == ["KILLED"]
    finished("mlflow", run, HISTORY)
    assert mlflow.ends == ["KILLED", "FINISHED"]
    ((_, metrics),) = mlflow.metrics.items()
    assert [step for step, _ in metrics] == [1, 2, 3, None]
    assert metrics[1][1] == {
        "train/ce": 1.0, "train/kd": 1.0, "train/loss": 2.0, "train/top1": 16.0, "test/top1": 20.0,
        "test/top5": 40.0, "test/loss": 1.5, "lr": 0.1, "seconds": 2.0, "images_per_second": 50.0,
    }  # fmt: skip
    assert metrics[-1][1]["result/top1"] == 30.0
    params = mlflow.params["id0"]
    assert params["recipe.losses.kd.temperature"] == 4.0 and params["seed"] == 3
    assert ("config.json", run.config) in mlflow.calls


@pytest.mark.parametrize(
    ("environment", "chosen"),
    [({}, ("kdcli", None)), ({"MLFLOW_EXPERIMENT_NAME": "mine"}, ("mine", None)),
     ({"MLFLOW_EXPERIMENT_ID": "7"}, (None, "7"))],
)  # fmt: skip
def test_mlflow_s_own_variables_name_the_experiment(run, mlflow, environment, chosen, monkeypatch):
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    finished("mlflow", run, HISTORY)
    assert mlflow.calls[0] == ("set_experiment", *chosen)


def test_wandb_goes_on_with_its_run_and_hears_of_each_epoch_once(run, wandb):
    stopped("wandb", run, HISTORY[:2])
    assert wandb.calls == ["preempting"] and wandb.ends[0][0] == 75
    finished("wandb", run, HISTORY)
    ((_, metrics),) = wandb.metrics.items()
    assert [step for step, _ in metrics] == [1, 2, 3]
    assert wandb.ends[1][0] == 0 and wandb.ends[1][1]["result/top1"] == 30.0
    assert wandb.params["kd-s3"] == run.config


def test_a_log_that_begins_late_hears_of_the_epochs_before(run, wandb):
    run.write_log(HISTORY[:2])
    finished("wandb", run, HISTORY)
    assert [step for step, _ in wandb.metrics["id0"]] == [1, 2, 3]


def test_a_run_that_fell_back_to_an_older_checkpoint_repeats_no_epoch(run, wandb):
    stopped("wandb", run, HISTORY)
    with told("wandb", run) as log:
        log(HISTORY[:2])
        log(HISTORY)
    assert [step for step, _ in wandb.metrics["id0"]] == [1, 2, 3]


def test_a_service_that_fails_costs_its_log_and_not_the_run(run, wandb, mlflow, monkeypatch):
    def refuse(metrics, step=None):
        raise ConnectionError("no route to the server\nand a long trace")

    monkeypatch.setattr(sys.modules["mlflow"], "log_metrics", refuse)
    notes = []
    with Logs(("mlflow", "wandb"), run, 100, notes.append) as log:
        log(HISTORY[:1])
        log(HISTORY)
    assert notes == [
        "The log to mlflow failed (no route to the server); training goes on without it."
    ]
    assert [step for step, _ in wandb.metrics["id0"]] == [1, 2, 3]
    with Logs(("mlflow",), run, 100, notes.append):
        pass
    assert mlflow.ends[0] == "FAILED", "the run left open does not block the next"


def test_what_a_service_prints_is_never_taken_for_a_result(run, wandb, capsys):
    with told("wandb", run):
        pass
    assert capsys.readouterr() == ("", "wandb: Tracking run\n")
    with told("wandb", run, quiet=True):
        pass
    assert capsys.readouterr() == ("", "")


def test_a_damaged_memory_of_services_is_no_error(run, wandb):
    (run.path / "logs.json").write_text("{")
    finished("wandb", run, HISTORY)
    assert json.loads((run.path / "logs.json").read_text())["wandb"] == {"id": "id0", "epoch": 3}


def shown(run):
    """What TensorBoard shows: (step, wall time, value) by name, and texts."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(run.path / "tensorboard")).Reload()
    numbers, texts = (read.Tags()[kind] for kind in ("scalars", "tensors"))
    return (
        {tag: [(e.step, e.wall_time, e.value) for e in read.Scalars(tag)] for tag in numbers},
        {tag: read.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in texts},
    )


def test_tensorboard_shows_every_epoch_once_also_after_a_resume(run):
    pytest.importorskip("tensorboard")
    stopped("tensorboard", run, HISTORY[:2])
    numbers, texts = shown(run)
    assert [step for step, _, _ in numbers["test/top1"]] == [1, 2]
    assert '"temperature": 4.0' in texts["config/text_summary"]
    assert "result/text_summary" not in texts

    finished("tensorboard", run, HISTORY)
    numbers, texts = shown(run)
    assert [(step, top1) for step, _, top1 in numbers["test/top1"]] == [(1, 10), (2, 20), (3, 30)]
    by_epoch = {tag for tag in numbers if not tag.startswith("result/")}
    assert by_epoch == set(logs.scalars(HISTORY[0], 100))
    times = [when for _, when, _ in numbers["lr"]]
    assert times[1] - times[0] == pytest.approx(2.0, abs=1e-3), "the axis is time of training"
    assert '"top1": 30.0' in texts["result/text_summary"]
    assert numbers["result/top1"][0][2] == 30.0
    assert not (run.path / "logs.json").exists()


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [("tensorbord", 2, "Did you mean 'tensorboard'?"), ("wandb", 6, "pip install 'kdcli[wandb]'")],
)
def test_what_cannot_be_logged_to_is_said_before_anything_begins(
    asked, code, said, capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr(logs.importlib.util, "find_spec", lambda name: None)
    answer = call(capsys, "teach", "tiny8", "--dataset", "shapes", "--log", asked)
    assert answer.code == code and said in answer.err and len(answer.err.splitlines()) == 1
    assert not list((tmp_path / "runs").glob("*"))


def test_the_folder_is_the_list_and_each_has_an_extra_of_its_name():
    metadata = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert logs.names() == ["mlflow", "tensorboard", "wandb"]
    assert set(logs.names()) <= set(metadata["project"]["optional-dependencies"])


def test_teach_and_resume_log_where_they_are_told(capsys, tmp_path, mlflow, wandb):
    images = f"folder:{draw_folder(tmp_path / 'images')}"
    words = ("teach", "tiny8", "--dataset", images, "--epochs", "2", "--batch-size", "16",
             "--threads", "1", "--device", "cpu", "--name", "one", "--json")  # fmt: skip
    answer = call(capsys, *words, "--log", "mlflow,wandb")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    assert mlflow.metrics["id0"][-1][1]["result/top1"] == result["top1"]
    assert [step for step, _ in wandb.metrics["id0"]] == [1, 2]
    assert set(wandb.metrics["id0"][0][1]) >= {"train/ce", "test/top5", "lr", "images_per_second"}
    path = tmp_path / "runs" / "one"
    assert "log" not in Run(path).config, "no part of what makes two runs the same"

    (path / "result.json").unlink()  # as if it had been killed between the last epoch and its end
    assert call(capsys, "resume", "one", "--log", "wandb").code == 0
    assert [step for step, _ in wandb.metrics["id0"]] == [1, 2]
    assert wandb.ends[-1][1]["result/top1"] == result["top1"]
