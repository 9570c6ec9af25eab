"""A weights file comes back bit for bit, or is refused in one sentence; nothing in it is run."""

import argparse
import json
import os
import pickle
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kdcli import models
from kdcli.errors import CHECKPOINT, DIVERGED, ENVIRONMENT, KdcliError
from kdcli.models import state, weights
from kdcli.models.network import Network


@pytest.fixture
def network() -> Network:
    """A small network that has seen a batch."""
    torch.manual_seed(0)
    network = models.build("tiny8", classes=7)
    network(torch.randn(4, 3, 32, 32))
    return network.eval()


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks hold the same names and bits."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def refused(path: Path, model: str | None = None, classes: int | None = None) -> str:
    """The sentence with which `path` is not read."""
    with pytest.raises(KdcliError) as caught:
        weights.read(path, model, classes)
    assert caught.value.code == CHECKPOINT
    assert str(path.name) in str(caught.value)
    return str(caught.value)


def test_what_is_saved_is_read_back(network, tmp_path):
    told = {"dataset": "cifar100", "class_names": ["apple", "Äpfel"], "top1": 71.25}
    weights.save(network, tmp_path / "model.safetensors", told)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        again, info = weights.read(path)
        assert same(again, network)
        assert not again.training
        assert info == {**told, "architecture": {"name": "tiny8", "classes": 7}}
        assert weights.info(path) == info


def test_any_safetensors_reader_sees_plain_contiguous_weights(network, tmp_path):
    path = tmp_path / "model.safetensors"
    weights.save(network.to(memory_format=torch.channels_last), path, {})
    plain = load_file(path)
    assert plain.keys() == network.state_dict().keys()
    assert all(value.is_contiguous() for value in plain.values())
    assert all(torch.equal(plain[key], value) for key, value in network.state_dict().items())
    assert state.metadata(path)["format"] == "pt"


def test_the_same_content_is_the_same_bytes(network, tmp_path):
    for name in ("a", "b"):
        weights.save(network, tmp_path / name, {"seed": 0, "dataset": "x", "top1": 1.0})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    metadata = state.metadata(tmp_path / "a")
    assert list(metadata) == ["format", "kdcli", "sha256"]  # the library would shuffle them


def test_reading_leaves_the_random_state_alone(network, tmp_path):
    weights.save(network, tmp_path / "model.safetensors", {})
    before = torch.get_rng_state()
    weights.read(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_weights_are_not_saved_and_not_read(network, tmp_path, bad):
    path = tmp_path / "model.safetensors"
    network.fc.bias.data[3] = bad
    with pytest.raises(KdcliError, match=r"fc\.bias holds NaN or infinity") as caught:
        weights.save(network, path, {})
    assert caught.value.code == DIVERGED
    assert list(tmp_path.iterdir()) == []
    save_file(network.state_dict(), path)
    assert "fc.bias holds NaN or infinity" in refused(path, "tiny8")


def test_a_disk_that_refuses_is_one_sentence(network, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(KdcliError, match="cannot write") as caught:
        weights.save(network, tmp_path / "file" / "model.safetensors", {})
    assert caught.value.code == ENVIRONMENT


@pytest.mark.parametrize("part", [0.05, 0.3, 0.6, 0.95])
def test_one_flipped_bit_is_found(network, tmp_path, part):
    path = tmp_path / "model.safetensors"
    weights.save(network, path, {"dataset": "cifar100"})
    raw = bytearray(path.read_bytes())
    raw[int(part * len(raw))] ^= 1
    path.write_bytes(raw)
    refused(path)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("kept", [0, 5, 200, 20_000])
def test_a_file_cut_short_is_one_sentence(network, tmp_path, suffix, kept):
    path = tmp_path / f"model.{suffix}"
    if suffix == "pth":
        torch.save(network.state_dict(), path)
    else:
        weights.save(network, path, {})
    path.write_bytes(path.read_bytes()[:kept])
    assert "is cut short, damaged" in refused(path, "tiny8")


def test_garbage_and_absence_are_one_sentence(tmp_path):
    path = tmp_path / "garbage.pt"
    path.write_bytes(bytes(range(256)) * 8)
    assert "neither a safetensors nor a torch file" in refused(path, "tiny8")
    torch.save([1, 2], path)
    assert "holds no state dict" in refused(path, "tiny8")
    assert "there is no weights file" in refused(tmp_path / "absent.pt", "tiny8")
    (tmp_path / "empty").mkdir()
    assert "there is no weights file" in refused(tmp_path / "empty", "tiny8")


@pytest.mark.parametrize("nest", ["", "model", "state_dict", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_a_checkpoint_of_others_is_read(network, tmp_path, nest, prefix):
    path = tmp_path / "ckpt_epoch_240.pth"
    plain = {prefix + key: value for key, value in network.state_dict().items()}
    torch.save({nest: plain, "epoch": 240} if nest else plain, path)
    again, info = weights.read(path, model="Tiny-8")
    assert same(again, network)  # and so it found the seven classes by itself
    assert info == {"architecture": {"name": "tiny8", "classes": 7}}


def test_the_final_file_of_repdistiller_is_read(network, tmp_path):
    options = argparse.Namespace(model_s="tiny8", lr_decay_epochs=[150, 180, 210])
    old = {k: v for k, v in network.state_dict().items() if not k.endswith("batches_tracked")}
    checkpoint = {"opt": options, "model": old, "best_acc": torch.tensor(75.0)}
    torch.save(checkpoint, tmp_path / "last.pth", _use_new_zipfile_serialization=False)
    again, _ = weights.read(tmp_path / "last.pth", model="tiny8", classes=7)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(images), network(images))


def test_a_plain_safetensors_file_needs_a_model(network, tmp_path):
    save_file(network.state_dict(), tmp_path / "plain.safetensors")
    assert weights.info(tmp_path / "plain.safetensors") == {}
    assert "name it" in refused(tmp_path / "plain.safetensors")
    again, _ = weights.read(tmp_path / "plain.safetensors", model="tiny8")
    assert same(again, network)


class Touch:
    """Unpickling it would make a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path):
    torch.save({"model": Touch(tmp_path / "made")}, tmp_path / "hostile.pth")
    assert "mkdir, and weights need no code" in refused(tmp_path / "hostile.pth", "tiny8")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Touch(tmp_path / "made"), protocol=2))
    refused(tmp_path / "bare.pth", "tiny8")
    assert not (tmp_path / "made").exists()


def test_keys_that_do_not_fit_are_named(network, tmp_path):
    path = tmp_path / "plain.safetensors"
    content = network.state_dict()
    del content["fc.bias"]
    content["fc.extra"] = torch.zeros(1)
    content["block0.0.weight"] = torch.zeros(8, 3, 1, 1)
    save_file(content, path)
    told = refused(path, "tiny8")
    assert "does not fit tiny8. missing: fc.bias; not known: fc.extra; misshapen" in told
    assert "block0.0.weight is [8, 3, 1, 1] for [8, 3, 3, 3]" in told
    left_over = sorted(key for key in content if not key.startswith("fc.w"))
    some = ", ".join(left_over[:5])
    assert f"not known: {some} and {len(left_over) - 5} more;" in refused(path, "resnet8")


def test_another_number_of_classes_is_named(network, tmp_path):
    weights.save(network, tmp_path / "ours.safetensors", {})
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    for path in (tmp_path / "ours.safetensors", tmp_path / "theirs.pth"):
        assert "knows 7 classes, but 100 are needed" in refused(path, "tiny8", classes=100)


def test_another_model_than_the_file_holds_is_refused(network, tmp_path):
    weights.save(network, tmp_path / "model.safetensors", {})
    assert "holds tiny8, not resnet20" in refused(tmp_path / "model.safetensors", "resnet20")


def rewritten(path: Path, told: object) -> Path:
    """`path` with other words about itself, their checksum in order."""
    path.write_bytes(state.encode(load_file(path), json.dumps(told)))
    return path


@pytest.mark.parametrize("told", [3, {}, {"architecture": 3}, {"architecture": {"name": 3}}])
def test_a_file_that_does_not_say_what_it_is_is_refused(network, tmp_path, told):
    weights.save(network, tmp_path / "model.safetensors", {})
    assert "does not say what it is" in refused(rewritten(tmp_path / "model.safetensors", told))


@pytest.mark.parametrize(
    ("architecture", "part"),
    [
        ({"name": "os:mkdir", "classes": 7}, "not run on a file's word"),
        ({"name": "torchvision:resnet18", "classes": 7}, "--model torchvision:resnet18"),
        ({"name": "kdcli.losses.kd:Tensor", "classes": 7}, "not defined there"),
        ({"name": "tiny8", "classes": 10**9}, "1 to 100,000 classes"),
        ({"name": "tiny9000", "classes": 7}, "(written by kdcli 9.9): unknown model"),
        ({"name": "tiny8", "classes": 7, "student": {"name": "os:mkdir"}}, "a file's word"),
    ],
)
def test_a_file_cannot_choose_the_code_that_is_run(network, tmp_path, architecture, part):
    weights.save(network, tmp_path / "model.safetensors", {})
    told = {"kdcli": "9.9", "architecture": architecture}
    assert part in refused(rewritten(tmp_path / "model.safetensors", told))


def test_a_foreign_network_is_read_when_it_is_named(tmp_path):
    name = "torchvision:shufflenet_v2_x0_5"
    torch.manual_seed(0)
    network = models.build(name, classes=7)
    weights.save(network, tmp_path / "model.safetensors", {})
    again, info = weights.read(tmp_path / "model.safetensors", model=name)
    assert same(again, network)
    assert info["architecture"] == {"name": name, "classes": 7}
    assert "fc.weight" in load_file(tmp_path / "model.safetensors")  # as torchvision calls it


class Wrapped(nn.Module):
    """A student with a part of its own, as a loss may put in its place."""

    def __init__(self, num_classes: int, student: Network, width: int):
        super().__init__()
        self.student, self.extra = student, nn.Linear(width, num_classes)
        inner = {"student": student.architecture, "width": width}
        self.architecture = {"name": "kdcli.losses.pretend:Wrapped", "classes": num_classes} | inner

    @property
    def head(self) -> nn.Linear:
        return self.extra

    def features(self, images: torch.Tensor) -> object:
        return self.student.features(images)


def test_a_student_wrapped_by_a_loss_is_built_again_from_its_file(network, tmp_path, monkeypatch):
    monkeypatch.setattr(Wrapped, "__module__", "kdcli.losses.pretend")
    pretend = types.ModuleType("kdcli.losses.pretend")
    pretend.Wrapped = Wrapped
    monkeypatch.setitem(sys.modules, "kdcli.losses.pretend", pretend)
    wrapped = Wrapped(7, network, width=5)
    weights.save(wrapped, tmp_path / "model.safetensors", {})
    for model in (None, "tiny8"):  # a run remembers the student that was asked for
        again, _ = weights.read(tmp_path, model=model, classes=7)
        assert isinstance(again, Wrapped)
        assert same(again, wrapped)
        assert again.architecture == wrapped.architecture
