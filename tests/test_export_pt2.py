"""A .pt2 file against torch, loaded as a stranger loads it."""

import json
import zipfile
from pathlib import Path

import pytest
import torch

from kdcli import models
from kdcli.errors import KdcliError
from kdcli.export import pt2
from kdcli.export.pt2 import export_pt2
from tests.test_export_onnx import CLASSES, INFO, MEAN, STD, images, network


def export(path: Path, **changed: object):
    split = images()
    given = {"dataset_images": split.images, "labels": split.labels, "mean": MEAN, "std": STD}
    return export_pt2(changed.pop("network", network()), path, info=INFO, **given | changed)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "student.pt2"
    return path, export(path)


@pytest.mark.parametrize("count", [1, 2, 65])
def test_the_file_answers_as_torch_does_on_raw_pixels_in_any_batch(exported, count):
    path, report = exported
    module = torch.export.load(path).module()
    pixels = images(count).images
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (MEAN, STD))
    with torch.no_grad():
        expected = network().eval()((pixels.float() / 255 - mean) / std)
        found = module(pixels)
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert report.agreement == 100.0 and report.opset is None
    assert report.bytes == path.stat().st_size


def test_the_file_says_what_it_is_and_nothing_of_the_machine_that_made_it(exported):
    path, _ = exported
    assert [found.name for found in path.parent.iterdir()] == ["student.pt2"]
    held = {"kdcli.json": ""}
    torch.export.load(path, extra_files=held)
    told = json.loads(held["kdcli.json"])
    assert json.loads(told["kdcli.classes"]) == list(CLASSES)
    assert (told["kdcli.model"], told["kdcli.precision"], told["kdcli.seed"]) == (
        "tiny8", "fp32", "3",
    )  # fmt: skip
    with zipfile.ZipFile(path) as archive:
        content = b"".join(map(archive.read, archive.namelist()))
    assert str(Path(models.__file__).parent.parent).encode() not in content


def test_a_float_input_takes_pixels_between_zero_and_one(tmp_path):
    path = tmp_path / "student.pt2"
    report = export(path, input_kind="float", timed=True)
    pixels = images(3).images
    with torch.no_grad():
        found = torch.export.load(path).module()(pixels.float() / 255)
    assert found.shape == (3, 8) and report.input_kind == "float"
    assert {line.runtime for line in report.latency} == {"torch eager fp32", "torch.export fp32"}


def test_a_file_that_differs_from_torch_once_loaded_is_not_written(tmp_path, monkeypatch):
    honest = torch.export.load

    def flips(stream):
        program = honest(stream)
        program.state_dict["network.fc.bias"].data.add_(0.01)
        return program

    monkeypatch.setattr(torch.export, "load", flips)
    with pytest.raises(KdcliError, match="does not answer as torch does") as caught:
        export(tmp_path / "student.pt2")
    assert caught.value.code == 4
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_looks_at_its_values_is_refused_in_one_line(tmp_path, monkeypatch):
    made = network()
    monkeypatch.setattr(
        type(made), "forward", lambda self, x: self.features(x if x.sum() > 0 else -x).logits
    )
    with pytest.raises(KdcliError, match="cannot be exported") as caught:
        export(tmp_path / "student.pt2", network=made)
    assert caught.value.code == 4 and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert pt2.TOLD == "kdcli.json"
