"""eval, probe and export as a person types them: the newest student, a run, a file."""

import json

import pytest
import torch

from kdcli import models
from kdcli.cli.show import screen
from kdcli.data import load
from kdcli.engine.evaluate import evaluate
from kdcli.export.session import metadata, open_session
from kdcli.models import weights
from tests.command import call, draw_folder

QUICK = ("--epochs", "2", "--batch-size", "16", "--device", "cpu", "--threads", "1", "--quiet")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return "folder:" + str(draw_folder(tmp_path_factory.mktemp("images"), test=20))


@pytest.fixture
def student(capsys, images, tmp_path):
    """A finished run, the only one."""
    answer = call(capsys, "teach", "tiny8", "--dataset", images, *QUICK, "--name", "one")
    assert answer.code == 0, answer.err
    return tmp_path / "runs" / "one"


def test_eval_of_the_newest_run_agrees_with_its_own_result_and_with_a_second_count(
    capsys, student, images
):
    told = json.loads(call(capsys, "eval", "--json", "--device", "cpu").out)
    result = json.loads((student / "result.json").read_text())
    assert told["top1"] == result["top1"]
    network, info = weights.read(student / "model.safetensors")
    loaded = load(images, "unused")
    scores = evaluate(network, loaded.test, info["mean"], info["std"], "cpu", batch=7)
    assert told["top1"] == scores.top1 and told["images"] == 80
    assert told["parameters"] == sum(p.numel() for p in network.parameters())


def test_eval_per_class_averages_to_the_whole(capsys, student):
    told = json.loads(call(capsys, "eval", "one", "--per-class", "--json").out)
    assert sum(told["per_class"]) / 4 == pytest.approx(told["top1"])
    assert "class0" in call(capsys, "eval", "one", "--per-class").out


def test_a_checkpoint_of_others_is_evaluated_by_name(capsys, images, tmp_path):
    torch.manual_seed(0)
    torch.save({"model": models.build("tiny8", classes=4).state_dict()}, tmp_path / "a.pth")
    answer = call(capsys, "eval", tmp_path / "a.pth", "--model", "tiny8", "--dataset", images)
    assert answer.code == 0 and "top-1" in answer.out
    answer = call(capsys, "eval", tmp_path / "a.pth", "--dataset", images)
    assert answer.code == 4 and "--model" in answer.err
    answer = call(capsys, "eval", tmp_path / "a.pth", "--model", "tiny8")
    assert answer.code == 2 and "--dataset" in answer.err


def test_without_a_run_the_first_command_is_named(capsys):
    for command in (("eval",), ("probe", "shapes"), ("export", "onnx")):
        answer = call(capsys, *command)
        assert answer.code == 2 and "kdcli teach resnet32x4" in answer.err


def test_onnx_is_written_verified_and_evaluated_to_the_same_accuracy(capsys, student, images):
    answer = call(capsys, "export", "onnx", "--json")
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert told["agreement"] == 100 and told["max_difference"] <= told["tolerance"]
    assert told["path"].endswith("one.onnx")
    scored = json.loads(call(capsys, "eval", told["path"], "--dataset", images, "--json").out)
    assert scored["top1"] == json.loads((student / "result.json").read_text())["top1"]


def test_other_precisions_and_pt2_have_names_of_their_own_and_tell_their_speed(capsys, student):
    for words, name in [
        (("onnx", "--precision", "int8", "--max-drop", "100"), "one.int8.onnx"),
        (("pt2",), "one.pt2"),
    ]:
        answer = call(capsys, "export", *words, "--images", "40", "--threads", "1")
        assert answer.code == 0, answer.err
        assert "ms a batch, median" in answer.out and "latency, 1 thread" in answer.out
        assert "top-1 before" in answer.out and (student / name).is_file()
    assert not (student / "one.onnx").exists()
    answer = call(capsys, "eval", student / "one.pt2")
    assert answer.code == 4 and "an exported graph" in answer.err and "safetensors" in answer.err
    told = metadata(open_session(student / "one.int8.onnx"))
    assert json.loads(told["calibration"])["images"] == 64, "all there are"
    assert json.loads(told["parity"])["images"] == 40
    assert told["command"].startswith("kdcli teach tiny8 --dataset folder:images")


def test_safetensors_is_a_folder_that_evaluates_without_its_recipe(
    capsys, student, images, tmp_path
):
    answer = call(capsys, "export", "safetensors", "one", "-o", tmp_path / "given")
    assert answer.code == 0, answer.err
    names = {path.name for path in (tmp_path / "given").iterdir()}
    assert names == {"model.safetensors", "config.json", "README.md"}
    asked = call(capsys, "eval", tmp_path / "given")
    assert asked.code == 2 and "--dataset folder:PATH" in asked.err, "no path of the maker's"
    scored = json.loads(call(capsys, "eval", tmp_path / "given", "--dataset", images, "--json").out)
    assert scored["top1"] == json.loads((student / "result.json").read_text())["top1"]


def test_probe_trains_on_other_images_and_leaves_the_network_alone(capsys, student, images):
    before = (student / "model.safetensors").read_bytes()
    told = json.loads(
        call(capsys, "probe", images, "--epochs", "5", "--device", "cpu", "--json").out
    )
    assert told["classes"] == 4 and told["epochs"] == 5 and told["train_images"] == 64
    assert (student / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("export", "onyx"), 2, "Did you mean 'onnx'"),
        (("export", "onnx", "--opset", "3"), 2, "opset 3"),
        (("export", "onnx", "--precision", "int4"), 2, "unknown precision 'int4'"),
        (("export", "pt2", "--precision", "int8"), 2, "pt2 is written in fp32"),
        (("export", "onnx", "--run", "two"), 2, "unknown run 'two'"),
        (("probe", "stl11"), 2, "Did you mean 'stl10'"),
        (("eval", "one.onnx"), 2, "there is no file one.onnx"),
        (("export", "onnx", "one", "--run", "two"), 2, "two networks"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(capsys, student, arguments, code, said):
    answer = call(capsys, *arguments)
    line = answer.err.strip().splitlines()[-1]
    assert answer.code == code and said in line and line.startswith("kdcli: ")


def test_names_in_brackets_are_names(capsys, images, tmp_path):
    folder = draw_folder(tmp_path / "[bold] images", classes=2, train=4, test=2)
    for split in ("train", "test"):
        (folder / split / "class0").rename(folder / split / "cat [red]")
    made = call(capsys, "teach", "tiny8", "--dataset", f"folder:{folder}", *QUICK)
    assert made.code == 0, made.err
    answer = call(capsys, "eval", "--per-class")
    assert answer.code == 0 and "cat [red]" in answer.out and "[bold] images" in answer.out
    assert "[bold] images" in answer.err
    answer = call(capsys, "export", "onnx", "-o", tmp_path / "[dim] a.onnx")
    assert answer.code == 0, answer.err
    assert "[dim] a.onnx" in answer.out and "[dim] a.onnx IMAGE" in answer.err


def test_json_has_no_number_that_json_has_not(capsys):
    screen.emit({"a": [1.5, float("nan")], "b": (float("inf"), {"c": -float("inf")}, True, None)})
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told == {"a": [1.5, None], "b": [None, {"c": None}, True, None]}


def test_images_of_other_classes_are_no_measure(capsys, student, images, tmp_path):
    others = draw_folder(tmp_path / "others", classes=3)
    (others / "train" / "class0").rename(others / "train" / "cat")
    (others / "test" / "class0").rename(others / "test" / "cat")
    for words in (("eval", "one", "--per-class"), ("export", "onnx", "one")):
        answer = call(capsys, *words, "--dataset", f"folder:{others}", "--quiet")
        assert (answer.code, answer.out) == (3, "") and "made for other classes" in answer.err
    torch.save({"model": models.build("tiny8", classes=9).state_dict()}, tmp_path / "a.pth")
    answer = call(capsys, "eval", tmp_path / "a.pth", "--model", "tiny8", "--dataset", images)
    assert answer.code == 3 and "tells 9 classes apart, and these are 4" in answer.err


def test_the_end_of_a_files_name_may_be_in_capitals(capsys, student, images):
    path = student / "ONE.ONNX"
    assert call(capsys, "export", "onnx", "one", "-o", path, "--images", "9").code == 0
    answer = call(capsys, "eval", path, "--dataset", images)
    assert answer.code == 0 and "onnxruntime" in answer.out, answer.err


def test_a_damaged_run_is_refused(capsys, student):
    path = student / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-50] ^= 4
    path.write_bytes(content)
    answer = call(capsys, "eval")
    assert answer.code == 4 and "model.safetensors" in answer.err
