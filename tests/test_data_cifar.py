"""CIFAR is read from its archive or its folder, and its pickles run nothing."""

import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from typing import ClassVar

import numpy as np
import pytest
import torch

from kdcli import data
from kdcli.data.pickles import load_arrays
from kdcli.errors import DATA, USAGE, KdcliError


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes with the opcodes of Python 2's cPickle, as the official files have."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_text(self, value):
        content = value.encode("latin1") if isinstance(value, str) else value
        short = len(content) < 256
        head = pickle.SHORT_BINSTRING if short else pickle.BINSTRING
        self.write(head + len(content).to_bytes(1 if short else 4, "little") + content)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_text


def pickled(value, python=3, protocol=2):
    if python == 3:
        return pickle.dumps(value, protocol)
    buffer = io.BytesIO()
    Python2Pickler(buffer, 2).dump(value)
    return buffer.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


def cifar100(python=2, protocol=2, changes=()):
    """{file: bytes} of a small CIFAR-100, 300 + 200 images; all its pixels and labels."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (500, 3072), dtype=np.uint8)
    labels = [row * 7 % 100 for row in range(500)]
    parts = {"train": slice(0, 300), "test": slice(300, None)}
    files = {
        name: {"data": pixels[part], "fine_labels": labels[part], "filenames": ["x.png"]}
        for name, part in parts.items()
    }
    files["meta"] = {"fine_label_names": [f"class{number:02}" for number in range(100)]}
    for name, change in dict(changes).items():
        files[name].update(change)
    content = {name: pickled(value, python, protocol) for name, value in files.items()}
    return content, pixels, labels


def write_folder(path, content):
    path.mkdir(parents=True)
    for name, one in content.items():
        (path / name).write_bytes(one)
    return path


def write_tar(path, content, folder="cifar-100-python"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, one in content.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(one)
            tar.addfile(member, io.BytesIO(one))
    return path


def load(root, **options):
    return data.load("cifar100", root, download=False, **options)


@pytest.mark.parametrize("place", ["cifar-100-python", "cifar100/cifar-100-python"])
@pytest.mark.parametrize("packed", [True, False])
def test_archive_and_folder_are_found_and_read_alike(tmp_path, place, packed):
    content, pixels, labels = cifar100()
    if packed:
        expected = write_tar(tmp_path / f"{place}.tar.gz", content)
    else:
        expected = write_folder(tmp_path / place, content)
    before = sorted(tmp_path.rglob("*"))
    loaded = load(tmp_path)
    assert loaded.source == str(expected)
    images = torch.cat([loaded.train.images, loaded.test.images])
    assert torch.equal(images.flatten(1), torch.from_numpy(pixels))
    assert images[5, 1, 2, 3] == pixels[5, 1024 + 2 * 32 + 3]  # green, row 2, column 3
    assert torch.cat([loaded.train.labels, loaded.test.labels]).tolist() == labels
    assert loaded.classes[42] == "class42" and len(loaded.classes) == 100
    assert (loaded.size, loaded.padding, loaded.mean[0]) == (32, 4, 0.5071)
    assert sorted(tmp_path.rglob("*")) == before
    assert data.inspect("cifar100", tmp_path) == ("cifar100", True, str(expected), "ready", "ready")


def test_the_folder_itself_may_be_the_data_folder(tmp_path):
    folder = write_folder(tmp_path / "cifar-100-python", cifar100()[0])
    assert load(folder).source == str(folder)


@pytest.mark.parametrize(("python", "protocol"), [(2, 2), (3, 2), (3, 4), (3, 5)])
def test_pickles_of_every_age_hold_the_same(tmp_path, python, protocol):
    content, pixels, _ = cifar100(python=python, protocol=protocol)
    write_folder(tmp_path / "cifar-100-python", content)
    assert torch.equal(load(tmp_path).train.images.flatten(1), torch.from_numpy(pixels[:300]))


def test_another_copy_is_taken_and_named(tmp_path):
    content, _, _ = cifar100()
    write_tar(tmp_path / "cifar-100-python.tar.gz", content)
    checksums, train, test = load(tmp_path).notes
    assert str(tmp_path / "cifar-100-python.tar.gz") in checksums
    assert all(f"{file} (md5 " in checksums for file in ("train", "test", "meta"))
    assert "300 of 50,000 train" in train and "200 of 10,000 test" in test


def test_official_checksums_leave_no_note(tmp_path, monkeypatch):
    from kdcli.data import archives, cifar

    content, _, _ = cifar100()
    sums = {name: archives.md5(one) for name, one in content.items()}
    layout = cifar.LAYOUTS["cifar100"]._replace(
        train={"train": sums["train"]}, test={"test": sums["test"]}, meta={"meta": sums["meta"]}
    )
    monkeypatch.setitem(cifar.LAYOUTS, "cifar100", layout)
    counts = data.TABLE["cifar100"]._replace(train=300, test=200)
    monkeypatch.setitem(data.TABLE, "cifar100", counts)
    write_folder(tmp_path / "cifar-100-python", content)
    assert load(tmp_path).notes == ()


def test_cifar10_joins_its_five_batches(tmp_path):
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (60, 3072), dtype=np.uint8)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    content = {
        name: pickled({"data": pixels[10 * k : 10 * k + 10], "labels": list(range(10))}, 2)
        for k, name in enumerate(names)
    }
    words = [f"thing{number}" for number in range(10)]
    content["batches.meta"] = pickled({"label_names": words, "num_vis": 3072}, 2)
    write_folder(tmp_path / "cifar-10-batches-py", content)
    loaded = data.load("CIFAR-10", tmp_path, download=False)
    assert torch.equal(loaded.train.images.flatten(1), torch.from_numpy(pixels[:50]))
    assert torch.equal(loaded.test.images.flatten(1), torch.from_numpy(pixels[50:]))
    assert loaded.classes == tuple(words)


def test_a_subset_keeps_the_first_images_of_each_class(tmp_path):
    content, _, labels = cifar100()
    write_folder(tmp_path / "cifar-100-python", content)
    whole, part = load(tmp_path), load(tmp_path, train_per_class=2)
    kept = [row for row in range(300) if labels[:row].count(labels[row]) < 2]
    assert torch.equal(part.train.images, whole.train.images[kept])
    assert part.train.labels.bincount(minlength=100).tolist() == [2] * 100
    assert torch.equal(part.test.images, whole.test.images)
    assert part.digest != whole.digest
    assert "3 training images, not 9" in load(tmp_path, train_per_class=9).notes[-1]


def test_a_resized_dataset_is_what_pil_makes_of_it(tmp_path):
    from PIL import Image

    content, pixels, _ = cifar100()
    write_folder(tmp_path / "cifar-100-python", content)
    small = load(tmp_path, size=16)
    picture = Image.fromarray(pixels[3].reshape(3, 32, 32).transpose(1, 2, 0))
    expected = np.asarray(picture.resize((16, 16), Image.Resampling.BILINEAR))
    assert (small.size, small.padding) == (16, 2)
    assert np.array_equal(small.train.images[3].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("part", ["pixel", "label"])
def test_one_changed_byte_changes_the_digest(tmp_path, part):
    content, pixels, labels = cifar100()
    write_folder(tmp_path / "one" / "cifar-100-python", content)
    write_tar(tmp_path / "same" / "cifar-100-python.tar.gz", content)
    pixels, labels = pixels[:300].copy(), labels[:300]
    if part == "pixel":
        pixels[17, 99] ^= 1
    else:
        labels[17] = 99
    content["train"] = pickled({"data": pixels, "fine_labels": labels})
    write_folder(tmp_path / "other" / "cifar-100-python", content)
    one, same, other = (load(tmp_path / name).digest for name in ("one", "same", "other"))
    assert one == same != other


BROKEN = {
    "too few columns": ("train", {"data": np.zeros((300, 3071), np.uint8)}),
    "not bytes": ("train", {"data": np.zeros((300, 3072), np.float32)}),
    "no array": ("test", {"data": "pixels"}),
    "too few labels": ("train", {"fine_labels": [0] * 299}),
    "labels out of range": ("train", {"fine_labels": [0] * 299 + [100]}),
    "negative labels": ("test", {"fine_labels": [-1] * 200}),
    "labels that are words": ("test", {"fine_labels": ["cat"] * 200}),
    "ragged labels": ("test", {"fine_labels": [[1], [1, 2]] * 100}),
    "too few names": ("meta", {"fine_label_names": ["cat", "dog"]}),
    "twice the same name": ("meta", {"fine_label_names": ["cat"] * 100}),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_structure_is_an_error_of_the_data(tmp_path, case):
    file, change = BROKEN[case]
    folder = write_folder(tmp_path / "cifar-100-python", cifar100(changes={file: change})[0])
    with pytest.raises(KdcliError, match=f"{folder} is broken .*{file}") as caught:
        load(tmp_path)
    assert caught.value.code == DATA


@pytest.mark.parametrize("file", ["train", "meta"])
@pytest.mark.parametrize("length", [0, 1, 40, -1])
def test_a_truncated_pickle_is_an_error_of_the_data(tmp_path, file, length):
    content, _, _ = cifar100()
    content[file] = content[file][:length]
    write_folder(tmp_path / "cifar-100-python", content)
    with pytest.raises(KdcliError, match="is broken") as caught:
        load(tmp_path)
    assert caught.value.code == DATA


class Hostile:
    def __init__(self, function, *arguments):
        self.asked = function, arguments

    def __reduce__(self):
        return self.asked


@pytest.mark.parametrize("call", [(os.mkdir, "run"), (eval, "open('run', 'w')"), (getattr, 1, "x")])
def test_a_hostile_pickle_runs_nothing(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    content, _, _ = cifar100()
    for protocol in (0, 2, 4):
        content["train"] = pickle.dumps({"data": Hostile(*call)}, protocol)
        shutil.rmtree(tmp_path / "cifar-100-python", ignore_errors=True)
        write_folder(tmp_path / "cifar-100-python", content)
        with pytest.raises(KdcliError, match="which no dataset needs") as caught:
            load(tmp_path)
        assert caught.value.code == DATA
        assert not (tmp_path / "run").exists()


def test_no_codec_but_latin1_can_be_called():
    attack = b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR."
    with pytest.raises(pickle.UnpicklingError, match="rot13"):
        load_arrays(attack)


def test_a_folder_that_lacks_a_file_says_which(tmp_path):
    content, _, _ = cifar100()
    del content["test"]
    write_folder(tmp_path / "cifar-100-python", content)
    with pytest.raises(KdcliError, match="cifar-100-python lacks test:") as caught:
        load(tmp_path)
    assert caught.value.code == DATA
    status = data.inspect("cifar100", tmp_path)
    assert not status.ready and "lacks test" in status.detail


def test_a_missing_dataset_says_where_it_looked_and_what_to_do(tmp_path):
    with pytest.raises(KdcliError) as caught:
        load(tmp_path)
    said = str(caught.value)
    assert caught.value.code == DATA
    assert str(tmp_path) in said and str(tmp_path / "cifar100") in said
    assert all(word in said for word in ("cifar-100-python.tar.gz", "KDCLI_DATA_DIR", "--data-dir"))
    assert not data.inspect("cifar100", tmp_path).ready


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("cifra100", {}, "Did you mean 'cifar100'"),
        ("shapes", {"train_per_class": 0}, "train_per_class is 0"),
        ("shapes", {"size": 4}, "between 8 and 512"),
    ],
)
def test_what_cannot_be_asked_for_is_a_usage_error(tmp_path, name, options, said):
    with pytest.raises(KdcliError, match=said) as caught:
        data.load(name, tmp_path, **options)
    assert caught.value.code == USAGE


def test_the_table_needs_neither_torch_nor_numpy():
    script = (
        "import sys; from kdcli import data; data.canonical('CIFAR-100'); "
        "print({'torch', 'numpy', 'PIL', 'torchvision'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
