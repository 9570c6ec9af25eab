"""Files of every kind in, classes out: from the exported file alone, or from a run."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from kdcli import models
from kdcli.data.augment import normalise
from kdcli.data.crops import square
from kdcli.data.decode import rgb
from kdcli.errors import KdcliError
from kdcli.export import classify
from kdcli.export.onnx import export_onnx
from kdcli.models import weights
from tests.command import call

NAMES = ["ant", "bee", "[red]fox", "猫"]
INFO = {
    "dataset": "shapes",
    "class_names": NAMES,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.25, 0.3],
    "size": 32,
    "top1": 25.0,
}


def network() -> models.network.Network:
    torch.manual_seed(0)
    made = models.build("tiny8", classes=4).eval()
    torch.nn.init.normal_(made.head.weight)
    return made


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "student.onnx"
    pixels = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    export_onnx(
        network(), path, dataset_images=pixels, mean=INFO["mean"], std=INFO["std"], info=INFO
    )
    return path


def picture(width: int = 32, height: int = 32, seed: int = 0) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def by_hand(image: Image.Image) -> list[float]:
    """Probabilities of an RGB image, in torch, without the code under test."""
    image = image.resize((32, 32), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).unsqueeze(0)
    with torch.no_grad():
        return network()(normalise(pixels, INFO["mean"], INFO["std"])).softmax(1)[0].tolist()


def predicted(capsys, *arguments: object) -> dict[str, dict[str, float]]:
    """Probability by class by file name."""
    answer = call(capsys, "predict", *arguments, "--json")
    assert answer.code in (0, 3), answer.err
    return {
        Path(one["file"]).name: {g["class"]: g["probability"] for g in one["predictions"]}
        for one in json.loads(answer.out)["images"]
    }


@pytest.mark.parametrize("size", [(32, 32), (50, 20), (7, 90)])
def test_probabilities_are_those_of_torch_on_the_stretched_image(capsys, exported, tmp_path, size):
    picture(*size).save(tmp_path / "a.png")
    found = predicted(capsys, exported, tmp_path / "a.png")["a.png"]
    expected = by_hand(picture(*size))
    assert [found[name] for name in NAMES] == pytest.approx(expected, abs=1e-6)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_every_kind_of_image_is_read(capsys, exported, tmp_path):
    colour, grey = picture(), picture().convert("L")
    clear = colour.convert("RGBA")
    clear.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    kinds = {
        "a.png": colour, "b.bmp": colour, "c.webp": colour, "d.tiff": colour, "clear.png": clear,
        "grey.png": grey, "deep.png": deep, "palette.gif": colour.quantize(64),
    }  # fmt: skip
    for name, image in kinds.items():
        image.save(tmp_path / name, **({"lossless": True} if name == "c.webp" else {}))
    found = predicted(capsys, exported, tmp_path)
    assert set(found) == set(kinds)
    for name in ("a.png", "b.bmp", "c.webp", "d.tiff", "clear.png"):
        assert [found[name][k] for k in NAMES] == pytest.approx(by_hand(colour), abs=1e-6), name
    for name in ("grey.png", "deep.png"):
        expected = by_hand(grey.convert("RGB"))
        assert [found[name][k] for k in NAMES] == pytest.approx(expected, abs=1e-6), name


def test_sixteen_bits_keep_their_shades():
    shades = np.array([[0, 257, 32896, 65535]], np.uint16)
    assert np.asarray(rgb(Image.fromarray(shades)))[0, :, 0].tolist() == [0, 1, 128, 255]
    wide = Image.fromarray(shades.astype(np.int32))
    assert np.asarray(rgb(wide))[0, :, 1].tolist() == [0, 1, 128, 255]
    narrow = Image.fromarray(np.array([[0, 7, 255]], np.int32))
    assert np.asarray(rgb(narrow))[0, :, 2].tolist() == [0, 7, 255]


def test_pixels_of_floating_point_are_refused_and_never_black(tmp_path):
    path = tmp_path / "float.tiff"
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(path)
    with pytest.raises(KdcliError, match="save 8 or 16 bits"):
        square(path, 4, "stretch")


def test_a_photograph_is_turned_as_the_camera_was(capsys, exported, tmp_path):
    lying = picture(40, 20)
    told = lying.getexif()
    told[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    lying.save(tmp_path / "a.png", exif=told)
    found = predicted(capsys, exported, tmp_path / "a.png")["a.png"]
    expected = by_hand(lying.transpose(Image.Transpose.ROTATE_270))
    assert [found[name] for name in NAMES] == pytest.approx(expected, abs=1e-6)
    assert expected != pytest.approx(by_hand(lying), abs=1e-3)


def test_a_network_trained_on_crops_is_given_the_centre(exported, tmp_path):
    wide = picture(80, 40)
    wide.save(tmp_path / "a.png")
    given = []

    def answer(images: np.ndarray) -> np.ndarray:
        given.append(images)
        return np.zeros((len(images), 4), np.float32)

    cropping = classify.Classifier(answer, 28, "crop", tuple(NAMES), "nothing")
    (one,) = classify.classify(cropping, [tmp_path / "a.png"], top=4)
    assert [guess.probability for guess in one.guesses] == [0.25] * 4
    middle = wide.resize((64, 32), Image.Resampling.BILINEAR).crop((18, 2, 46, 30))
    np.testing.assert_array_equal(given[0][0], np.asarray(middle).transpose(2, 0, 1))


def test_bad_files_are_named_and_passed_over(capsys, exported, tmp_path):
    picture().save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:900])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "notes.txt").write_text("not looked at")
    answer = call(capsys, "predict", exported, tmp_path, "--json")
    told = json.loads(answer.out)
    assert answer.code == 3 and "2 of 3 images could not be read" in answer.err
    assert [Path(one["file"]).name for one in told["images"]] == ["good.png"]
    assert [Path(one["file"]).name for one in told["failed"]] == ["cut.png", "text.jpg"]
    assert all(one["error"] in answer.err.replace("\n", " ") for one in told["failed"])
    answer = call(capsys, "predict", exported, tmp_path / "text.jpg")
    assert answer.code == 3 and answer.out.split() == ["image", "class", "probability"]


def test_broken_camera_data_is_no_reason_to_stop(capsys, exported, tmp_path):
    picture().save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    answer = call(capsys, "predict", exported, tmp_path / "a.jpg", "--csv")
    assert answer.code in (0, 3) and "fault" not in answer.err


def test_more_images_than_a_batch_come_in_order(capsys, exported, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for number in range(150):
        below = tmp_path / ("deep/er" if number % 2 else "deep")
        picture(seed=number).save(below / f"{number:03d}.PNG")
    picture().save(tmp_path / ".hidden" / "a.png")
    answer = call(capsys, "predict", exported, tmp_path, "--csv", "--top", "1")
    rows = list(csv.DictReader(answer.out.splitlines()))
    assert len(rows) == 150
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
    for row in rows[::37]:
        number = int(Path(row["file"]).stem)
        chances = by_hand(picture(seed=number))
        assert float(row["probability"]) == pytest.approx(max(chances), rel=1e-4)
        assert row["class"] == NAMES[int(row["index"])] == NAMES[chances.index(max(chances))]


def test_the_table_shows_names_as_they_are(capsys, exported, tmp_path):
    picture().save(tmp_path / "a [b].png")
    lines = call(capsys, "predict", exported, tmp_path / "a [b].png", "--top", "9").out.splitlines()
    assert len(lines) == 5 and sum("a [b].png" in line for line in lines) == 1
    assert all(any(name in line for line in lines) for name in NAMES)
    shares = [float(re.search(r"([\d.]+) %$", line)[1]) for line in lines[1:]]
    assert sum(shares) == pytest.approx(100, abs=0.05)


def test_an_onnx_file_needs_no_torch(exported, tmp_path):
    picture().save(tmp_path / "a.png")
    code = (
        "import sys; from kdcli.cli.main import app\n"
        f"app(['predict', {str(exported)!r}, {str(tmp_path / 'a.png')!r}], standalone_mode=False)\n"
        "assert not {'torch', 'torchvision', 'onnx'} & set(sys.modules)\n"
        "assert 'onnxruntime' in sys.modules"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "a.png" in told.stdout


@pytest.fixture
def run(tmp_path) -> Path:
    """A finished run, the only one."""
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    weights.save(network(), folder / "model.safetensors", INFO)
    config = {"kind": "distill", "student": "tiny8", "dataset": "shapes"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "result.json").write_text('{"top1": 25.0}')
    return folder


def test_a_run_answers_by_torch_until_it_is_exported(capsys, exported, run, tmp_path):
    picture(20, 50).save(tmp_path / "a.png")
    expected = pytest.approx(by_hand(picture(20, 50)), abs=1e-6)
    for arguments in (("one",), (run,), (run / "model.safetensors",), ()):
        answer = call(capsys, "predict", *arguments, tmp_path / "a.png", "--csv")
        assert answer.code == 0 and "torch on cpu" in answer.err
        rows = {row["class"]: row for row in csv.DictReader(answer.out.splitlines())}
        assert [float(rows[name]["probability"]) for name in NAMES] == expected
    beside = run / "one.onnx"
    beside.write_bytes(exported.read_bytes())
    assert "onnxruntime" in call(capsys, "predict", tmp_path / "a.png").err
    os.utime(beside, (0, 0))  # exported before the run was trained again
    assert "torch on cpu" in call(capsys, "predict", tmp_path / "a.png").err


def test_mistakes_are_one_line_and_an_exit_code(capsys, exported, run, tmp_path):
    picture().save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    stranger = onnx.load(exported)
    del stranger.metadata_props[:]
    onnx.save(stranger, tmp_path / "stranger.onnx")
    torch.save({"model": network().state_dict()}, tmp_path / "bare.pth")
    image = tmp_path / "a.png"
    for arguments, code, said in [
        ((exported,), 2, "no image was named"),
        ((exported, tmp_path / "b.png"), 3, "there is no image or folder"),
        ((exported, tmp_path / "empty"), 3, "there is no image in"),
        ((tmp_path / "absent.onnx", image), 4, "there is no file"),
        ((tmp_path / "stranger.onnx", image), 4, "no kdcli.input"),
        ((tmp_path / "bare.pth", image), 4, "does not say its architecture"),
        ((tmp_path / "student.pt2", image), 2, "torch.export.load"),
        (("two", image), 2, "unknown run 'two'"),
        ((exported, image, "--json", "--csv"), 2, "exclude each other"),
        ((exported, image, "--top", "0"), 2, "--top"),
    ]:
        answer = call(capsys, "predict", *arguments)
        assert answer.code == code and said in answer.err, answer.err
        assert "Traceback" not in answer.err and answer.out == ""


def test_weights_that_do_not_say_their_image_size_name_the_way_out(tmp_path):
    with pytest.raises(KdcliError, match=r"kdcli export onnx --run .* --dataset") as caught:
        classify.of_network(network(), {"architecture": {}}, tmp_path / "bare.pth")
    assert caught.value.code == 4
