"""An ONNX file against torch, and what must never become a file."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from kdcli import models
from kdcli.data import Split
from kdcli.engine.evaluate import evaluate
from kdcli.errors import KdcliError
from kdcli.export import graph, parity
from kdcli.export.onnx import ExportReport, export_onnx
from kdcli.export.provenance import weights_sha256
from kdcli.export.runtime import evaluate_onnx
from kdcli.models.network import Network

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CLASSES = tuple(f"class {n}" for n in range(8))
INFO = {
    "dataset": "shapes",
    "class_names": list(CLASSES),
    "recipe": "kd",
    "teacher": "tiny16",
    "seed": 3,
    "top1": 75.25,
}


def network() -> Network:
    """A network with statistics of its own, as training leaves it: channels last, training mode."""
    torch.manual_seed(0)
    made = models.build("tiny8", classes=8)
    made.train()(torch.randn(64, 3, 32, 32))
    torch.nn.init.normal_(made.head.weight)
    return made.to(memory_format=torch.channels_last)


def images(count: int = 100) -> Split:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return Split(pixels, torch.arange(count) % 8)


@dataclass
class Exported:
    network: Network
    before: dict[str, torch.Tensor]
    path: Path
    report: ExportReport
    printed: str


def export(path: Path, **changed: object) -> ExportReport:
    split = images()
    given = {"dataset_images": split.images, "labels": split.labels, "mean": MEAN, "std": STD}
    return export_onnx(changed.pop("network", network()), path, info=INFO, **given | changed)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Exported:
    path = tmp_path_factory.mktemp("exported") / "student.onnx"
    made = network()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        report = export(path, network=made)
    return Exported(made, before, path, report, printed.getvalue())


@pytest.fixture
def translated(exported, monkeypatch) -> None:
    """Exports after the first take its graph, so that a test need not wait for the exporter."""

    def again(*_: object) -> onnx.ModelProto:
        proto = onnx.load(exported.path)
        del proto.metadata_props[:]
        return proto

    monkeypatch.setattr(graph, "build", again)


def test_the_file_answers_as_torch_does_on_raw_pixels(exported):
    session = onnxruntime.InferenceSession(exported.path)
    pixels = images(5).images
    (logits,) = session.run(None, {"images": pixels.numpy()})
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (MEAN, STD))
    with torch.no_grad():
        expected = exported.network.eval()((pixels.float() / 255 - mean) / std)
    exported.network.train()
    assert expected.abs().max() > 0.5
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)
    assert exported.report.max_difference <= 1e-5
    assert exported.report.agreement == 100.0
    assert exported.report.images == 100


def test_it_is_one_file_for_any_batch_at_the_opset_asked_for(exported):
    assert [path.name for path in exported.path.parent.iterdir()] == ["student.onnx"]
    assert exported.report.bytes == exported.path.stat().st_size
    proto = onnx.load(exported.path)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 18)]
    session = onnxruntime.InferenceSession(exported.path)
    (given,), (answered,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == (
        "images", "tensor(uint8)", ["batch", 3, 32, 32],
    )  # fmt: skip
    assert (answered.name, answered.type, answered.shape) == (
        "logits", "tensor(float)", ["batch", 8],
    )  # fmt: skip


def test_the_file_says_what_it_is(exported):
    told = onnxruntime.InferenceSession(exported.path).get_modelmeta().custom_metadata_map
    assert json.loads(told["kdcli.classes"]) == list(CLASSES)
    assert json.loads(told["kdcli.mean"]) == [0.5, 0.4, 0.3]
    assert json.loads(told["kdcli.std"]) == [0.2, 0.25, 0.3]
    assert (told["kdcli.model"], told["kdcli.dataset"]) == ("tiny8", "shapes")
    assert (told["kdcli.recipe"], told["kdcli.teacher"], told["kdcli.seed"]) == (
        "kd", "tiny16", "3",
    )  # fmt: skip
    assert told["kdcli.sha_weights"] == weights_sha256(exported.before)
    given = json.loads(told["kdcli.input"])
    assert (given["type"], given["layout"], given["range"]) == ("uint8", "NCHW", [0, 255])
    assert (given["height"], given["width"]) == (32, 32)
    accuracy = json.loads(told["kdcli.accuracy"])
    assert accuracy["training"] == {"top1": 75.25}
    assert accuracy["top1"] == pytest.approx(exported.report.top1_file)
    assert json.loads(told["kdcli.parity"])["agreement"] == 100.0
    assert "Apache-2.0" in told["license"]


def test_the_file_holds_nothing_of_the_machine_that_made_it(exported):
    content = exported.path.read_bytes()
    assert str(Path(models.__file__).parent).encode() not in content
    assert b"stack_trace" not in content


def test_the_network_that_was_exported_is_left_as_it_was(exported):
    assert exported.network.training
    after = exported.network.state_dict()
    assert all(torch.equal(exported.before[name], after[name]) for name in after)
    weight = next(exported.network.parameters())
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_the_exporter_says_nothing(exported):
    assert exported.printed == ""


def test_the_file_scores_what_torch_scores(exported):
    split = images()
    ours = evaluate(exported.network, split, MEAN, STD, "cpu")
    scores = evaluate_onnx(exported.path, split, batch=33, classes=CLASSES)
    assert (scores.top1, scores.top5, scores.per_class) == (ours.top1, ours.top5, ours.per_class)
    assert scores.loss == pytest.approx(ours.loss, abs=1e-5)
    assert exported.report.top1_file == exported.report.top1_torch == pytest.approx(ours.top1)


def test_a_file_is_not_scored_on_what_it_was_not_made_for(exported, tmp_path):
    split = images()
    with pytest.raises(KdcliError, match="other classes"):
        evaluate_onnx(exported.path, split, classes=["cat", *CLASSES[1:]])
    with pytest.raises(KdcliError, match=r"takes images of 3x32x32, not 3x16x16"):
        evaluate_onnx(exported.path, Split(split.images[:, :, :16, :16], split.labels))
    stranger = onnx.load(exported.path)
    del stranger.metadata_props[:]
    onnx.save(stranger, tmp_path / "stranger.onnx")
    with pytest.raises(KdcliError, match=r"no kdcli\.input"):
        evaluate_onnx(tmp_path / "stranger.onnx", split)
    (tmp_path / "torn.onnx").write_bytes(exported.path.read_bytes()[:1000])
    with pytest.raises(KdcliError, match=r"cannot read .*torn\.onnx"):
        evaluate_onnx(tmp_path / "torn.onnx", split)
    with pytest.raises(KdcliError, match="there is no file"):
        evaluate_onnx(tmp_path / "absent.onnx", split)


def wrong_once(change, batch: int):
    """onnxruntime, except that the answers to batches of one size are changed."""
    honest = onnxruntime.InferenceSession.run

    def run(self, names, values, *rest):
        (logits,) = honest(self, names, values, *rest)
        return [change(logits) if len(logits) == batch else logits]

    return run


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
@pytest.mark.parametrize(
    "change", [lambda logits: logits + 0.01, lambda logits: logits * np.nan], ids=["off", "nan"]
)
def test_a_file_that_differs_from_torch_at_one_batch_size_is_not_written(
    translated, monkeypatch, tmp_path, change, batch
):
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", wrong_once(change, batch))
    path = tmp_path / "student.onnx"
    with pytest.raises(KdcliError, match="does not answer as torch does") as caught:
        export(path)
    assert caught.value.code == 4
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"an older file")
    with pytest.raises(KdcliError):
        export(path)
    assert path.read_bytes() == b"an older file"
    assert list(tmp_path.iterdir()) == [path]


def test_a_whole_export_replaces_an_older_file(translated, tmp_path):
    path = tmp_path / "new folder" / "student.onnx"
    path.parent.mkdir()
    path.write_bytes(b"an older file")
    report = export(path)
    assert path.stat().st_size == report.bytes > 80_000
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.gpu
def test_a_network_on_a_gpu_is_exported_and_stays_there(translated, tmp_path):
    made = network().cuda()
    report = export(tmp_path / "student.onnx", network=made)
    assert report.agreement == 100.0
    assert all(tensor.is_cuda for tensor in made.state_dict().values())


def test_weights_that_are_nan_are_refused(tmp_path):
    broken = network()
    with torch.no_grad():
        broken.block2[0].weight[1, 2, 0, 0] = float("nan")
    with pytest.raises(KdcliError, match=r"block2\.0\.weight .* 1 values") as caught:
        export(tmp_path / "student.onnx", network=broken)
    assert caught.value.code == 4
    assert list(tmp_path.iterdir()) == []


def test_an_opset_that_the_exporter_did_not_keep_is_noticed(translated, tmp_path):
    with pytest.raises(KdcliError, match="its opset is 18, not 20"):
        export(tmp_path / "student.onnx", opset=20)
    with pytest.raises(KdcliError, match="opset 13 cannot be written; choose 18"):
        export(tmp_path / "student.onnx", opset=13)
    assert list(tmp_path.iterdir()) == []


def test_other_mistakes_are_named_before_anything_is_done(tmp_path, monkeypatch):
    with pytest.raises(KdcliError, match="uint8 or float, not 'int4'"):
        export(tmp_path / "student.onnx", input_kind="int4")
    with pytest.raises(KdcliError, match="is a folder"):
        export(tmp_path)
    with pytest.raises(KdcliError, match=r"8 outputs .* names 3 classes"):
        split = images()
        export_onnx(
            network(), tmp_path / "student.onnx", dataset_images=split.images, mean=MEAN, std=STD,
            info=INFO | {"class_names": ["a", "b", "c"]},
        )  # fmt: skip
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(KdcliError, match="pip install onnxscript") as caught:
        export(tmp_path / "student.onnx")
    assert caught.value.code == 6


def test_a_float_input_takes_pixels_between_zero_and_one(tmp_path):
    path = tmp_path / "student.onnx"
    report = export(path, input_kind="float", opset=20, labels=None)
    assert (report.top1_file, report.top1_torch, report.opset) == (None, None, 20)
    assert report.agreement == 100.0
    session = onnxruntime.InferenceSession(path)
    assert session.get_inputs()[0].type == "tensor(float)"
    scores = evaluate(network(), images(), MEAN, STD, "cpu")
    assert evaluate_onnx(path, images()).top1 == scores.top1


def test_only_a_near_tie_may_change_the_answer():
    torch_ = torch.tensor([[2.0, 1.9995, 0.0], [5.0, 1.0, 0.0]])
    swapped = torch.tensor([[1.9999, 2.0, 0.0], [5.0, 1.0, 0.0]])
    tie = parity.compare(swapped, torch_, 2, torch.tensor([0, 0]))
    assert (tie.agreement, tie.disagreements) == (50.0, 0)
    assert (tie.top1_file, tie.top1_torch) == (50.0, 100.0)
    assert tie.tolerance == pytest.approx(5e-4)
    assert tie.max_difference == pytest.approx(5e-4, rel=1e-3)
    clear = parity.compare(torch_.flip(1), torch_, 2, None)
    assert clear.disagreements == 1
    assert clear.top1_file is None
    with pytest.raises(KdcliError, match="1 of 2 images"):
        parity.check(clear)
