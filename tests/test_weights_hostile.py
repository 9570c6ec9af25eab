"""A file made to do harm, or that is no checkpoint at all, costs one sentence and nothing else."""

import os
import pickle
import struct
from pathlib import Path

import pytest
import torch

from kdcli import models
from kdcli.errors import CHECKPOINT, KdcliError
from kdcli.models import weights


def refused(path: Path) -> str:
    """The sentence with which `path` is not read."""
    with pytest.raises(KdcliError) as caught:
        weights.read(path, model="tiny8")
    assert caught.value.code == CHECKPOINT
    return str(caught.value)


class Touch:
    """Unpickling it would make a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
@pytest.mark.parametrize("nest", [(), ("model",), ("opt",), ("model", "fc.weight", "deep")])
@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_not_run_wherever_it_hides(tmp_path, name, nest, legacy):
    content: object = Touch(tmp_path / "made")
    for key in reversed(nest):
        content = {key: content}
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=not legacy)
    refused(tmp_path / name)
    assert not (tmp_path / "made").exists()


def test_the_trap_would_have_sprung(tmp_path):
    torch.save(Touch(tmp_path / "made"), tmp_path / "model.pth")
    torch.load(tmp_path / "model.pth", weights_only=False)
    assert (tmp_path / "made").is_dir()


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_bare_pickle_is_not_run_either(tmp_path, protocol):
    for name in ("model.pkl", "model.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Touch(tmp_path / "made"), protocol=protocol))
        refused(tmp_path / name)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("length", [50_000_000, 2**40, 2**64 - 1])
def test_a_header_that_is_longer_than_its_file_is_refused_without_making_room(tmp_path, length):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b'{"fc.weight"')
    assert "is cut short, damaged" in refused(path)


@pytest.mark.parametrize(
    "header",
    [
        b'{"x":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}',
        b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}',
        b'{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        b'{"x":{"dtype":"string","shape":[1],"data_offsets":[0,4]}}',
        b'{"__metadata__":["kdcli"]}',
        b'[{"x":1}]',
        b"{}",
        b'{"a":' * 50_000,
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, header):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    refused(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, that quantised tensors will go
def test_entries_that_are_no_plain_numbers_are_refused(tmp_path):
    bias = models.build("tiny8", classes=7).fc.bias.detach()
    for value in (
        bias.to_sparse(),
        bias.to("meta"),
        torch.quantize_per_tensor(bias, 0.1, 0, torch.qint8),
        bias.tolist(),
    ):
        content = models.build("tiny8", classes=7).state_dict()
        torch.save({**content, "fc.bias": value}, tmp_path / "model.pth")
        assert "holds no state dict" in refused(tmp_path / "model.pth")


@pytest.mark.parametrize("name", ["\x1b[2Jcleared", "line\nbreak", "x" * 10_000])
def test_a_name_that_would_spoil_the_terminal_is_not_shown(tmp_path, name):
    content = models.build("tiny8", classes=7).state_dict()
    torch.save({**content, name: torch.zeros(1)}, tmp_path / "model.pth")
    assert name not in refused(tmp_path / "model.pth")
