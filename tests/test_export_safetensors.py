"""A folder to share holds the same bits, says what it is, and never takes the place of another."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file

from kdcli import models
from kdcli.errors import KdcliError
from kdcli.export.card import card
from kdcli.export.safetensors import FolderReport, export_safetensors
from kdcli.models import weights
from kdcli.models.network import Network

CLASSES = [f"class {n}" for n in range(10)]
INFO = {
    "dataset": "cifar10",
    "class_names": CLASSES,
    "recipe": "crd+kd",
    "teacher": "resnet32x4",
    "seed": 7,
    "epochs": 240,
    "top1": 91.5,
    "kdcli": "0.1.0",
}


def network() -> Network:
    torch.manual_seed(0)
    return models.build("tiny8", classes=10).to(memory_format=torch.channels_last).train()


def export(folder, made: Network | None = None, **info: object) -> FolderReport:
    return export_safetensors(
        made or network(), folder, mean=(0.5,) * 3, std=(0.25,) * 3, size=32, info=INFO | info
    )


def test_what_is_read_back_are_the_same_bits_in_both_ways(tmp_path):
    made = network()
    report = export(tmp_path / "student", made)
    assert sorted(os.listdir(tmp_path / "student")) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip
    again, info = weights.read(tmp_path / "student")
    plain = load_file(tmp_path / "student" / "model.safetensors")
    for name, tensor in made.state_dict().items():
        assert torch.equal(plain[name], tensor)
        assert torch.equal(again.state_dict()[name], tensor)
    assert info["recipe"] == "crd+kd"
    assert report.parameters == sum(parameter.numel() for parameter in made.parameters())
    assert made.training


def test_the_configuration_has_the_keys_of_timm_and_our_own_block(tmp_path):
    export(tmp_path / "student")
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert config["architecture"] == "tiny8"
    assert (config["num_classes"], config["num_features"]) == (10, 32)
    assert config["label_names"] == CLASSES
    assert config["global_pool"] == "avg"
    assert config["pretrained_cfg"] == {
        "input_size": [3, 32, 32],
        "fixed_input_size": False,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "num_classes": 10,
        "first_conv": "block0.0",
        "classifier": "fc",
        "custom_load": False,
    }
    assert config["kdcli"]["architecture"] == {"name": "tiny8", "classes": 10}
    assert (config["kdcli"]["recipe"], config["kdcli"]["seed"]) == ("crd+kd", 7)


def test_the_card_tells_data_recipe_teacher_accuracy_and_licence(tmp_path):
    export(tmp_path / "student")
    text = (tmp_path / "student" / "README.md").read_text()
    for told in (
        "tiny8 on cifar10", "**Recipe.** `crd+kd`", "**Teacher.** `resnet32x4`", "**Epochs.** 240",
        "**Seed.** 7", "Top-1 91.50 %", "after the last epoch", "load_file", "fc.bias [10]",
        "research use", "class 9", "the whole image stretched",
    ):  # fmt: skip
        assert told in text, told
    assert "None" not in text


def test_the_first_lines_of_the_card_are_what_a_hub_reads(tmp_path):
    export(tmp_path / "student", top5=99.5)
    start, front, _ = (tmp_path / "student" / "README.md").read_text().split("---\n", 2)
    told = {
        key: json.loads(text) for key, text in (line.split(": ", 1) for line in front.splitlines())
    }
    assert start == ""
    assert (told["library_name"], told["pipeline_tag"]) == ("kdcli", "image-classification")
    assert (told["datasets"], told["metrics"]) == (["cifar10"], ["accuracy"])
    (result,) = told["model-index"][0]["results"]
    assert [metric["value"] for metric in result["metrics"]] == [91.5, 99.5]


def test_the_command_is_told_without_places_of_the_machine_that_ran_it(tmp_path):
    command = "kdcli distill --recipe kd --teacher /home/me/big --dataset folder:/home/me/birds"
    export(
        tmp_path / "student", command=command, paper="Hinton 2015", dataset="folder:/home/me/birds"
    )
    text = (tmp_path / "student" / "README.md").read_text()
    assert "`kdcli distill --recipe kd --teacher big --dataset folder:birds`" in text
    assert "**Method.** Hinton 2015" in text and "datasets:" not in text
    for path in (tmp_path / "student").iterdir():
        assert b"/home/me" not in path.read_bytes()


def test_a_network_trained_on_crops_and_one_of_timm_say_so(tmp_path):
    export(tmp_path / "student", fit="crop")
    pixels = json.loads((tmp_path / "student" / "config.json").read_text())["pretrained_cfg"]
    assert (pixels["crop_mode"], pixels["crop_pct"]) == ("center", 0.875)
    known = {"architecture": {"name": "timm:resnet18"}, "sha_weights": "0"}
    text = card(known, network().state_dict(), None, pixels, "Unknown")
    assert 'library_name: "timm"' in text and 'create_model("local-dir:."' in text
    assert "the centre cut out" in text


def test_a_card_without_a_run_claims_nothing(tmp_path):
    made = network()
    export_safetensors(made, tmp_path / "bare", mean=(0.5,) * 3, std=(0.25,) * 3, size=32, info={})
    text = (tmp_path / "bare" / "README.md").read_text()
    assert "How it was trained is not known." in text
    assert "Not recorded." in text
    assert "None" not in text


def test_where_somebody_keeps_their_images_is_not_told(tmp_path):
    export(tmp_path / "student", dataset="folder:/home/somebody/birds")
    for path in (tmp_path / "student").iterdir():
        assert b"birds" in path.read_bytes()
        assert b"somebody" not in path.read_bytes()


def test_an_earlier_export_is_replaced_and_nothing_else_is(tmp_path):
    folder = tmp_path / "student"
    export(folder)
    torch.manual_seed(1)
    other = models.build("tiny8", classes=10)
    export(folder, other)
    assert torch.equal(load_file(folder / "model.safetensors")["fc.weight"], other.head.weight)
    assert os.listdir(tmp_path) == ["student"]

    (folder / "notes.txt").write_text("mine")
    with pytest.raises(KdcliError, match=r"also holds notes\.txt"):
        export(folder)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text('{"kdcli": "0.1.0", "kind": "distill"}')
    with pytest.raises(KdcliError, match="is not an export of kdcli"):
        export(run)
    with pytest.raises(KdcliError, match="is a file"):
        export(run / "config.json")
    assert sorted(os.listdir(tmp_path)) == ["run", "student"]
    assert (folder / "notes.txt").read_text() == "mine"


def test_weights_that_do_not_read_back_leave_what_was_there(tmp_path, monkeypatch):
    folder = tmp_path / "student"
    before = export(folder)
    honest = weights.save

    def flips_a_bit(made: Network, *rest: object) -> None:
        made.head.bias.data[0] += 1e-6
        honest(made, *rest)
        made.head.bias.data[0] += 1.0

    monkeypatch.setattr(weights, "save", flips_a_bit)
    with pytest.raises(KdcliError, match="do not read back") as caught:
        export(folder)
    assert caught.value.code == 4
    assert os.listdir(tmp_path) == ["student"]
    monkeypatch.undo()
    config = json.loads((folder / "config.json").read_text())
    assert config["kdcli"]["sha_weights"] == before.sha_weights


def test_a_failed_rename_puts_the_earlier_export_back(tmp_path, monkeypatch):
    folder = tmp_path / "student"
    export(folder)
    honest = os.rename

    def refuses(source, target) -> None:
        if ".tmp-student" in str(source):
            raise OSError(28, "No space left on device")
        honest(source, target)

    monkeypatch.setattr(os, "rename", refuses)
    with pytest.raises(KdcliError, match="No space left") as caught:
        export(folder)
    assert caught.value.code == 6
    assert os.listdir(tmp_path) == ["student"]
    assert len(os.listdir(folder)) == 3


def test_nan_weights_and_wrong_descriptions_are_refused(tmp_path):
    broken = network()
    broken.head.weight.data[3, 3] = float("inf")
    with pytest.raises(KdcliError, match=r"fc\.weight") as caught:
        export(tmp_path / "student", broken)
    assert caught.value.code == 4
    with pytest.raises(KdcliError, match=r"10 outputs .*names 2 classes"):
        export(tmp_path / "student", class_names=["a", "b"])
    assert os.listdir(tmp_path) == []
