"""ImageNet's folders are listed, not read; what is missing is said with what to put where."""

import os

import numpy as np
import pytest
from PIL import Image

from kdcli import data
from kdcli.data import TABLE
from kdcli.errors import DATA, KdcliError

WNIDS = [f"n{1440764 + number:08}" for number in range(1000)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An image in each of 1,000 classes and both splits: hard links to one file."""
    top = tmp_path_factory.mktemp("data") / "imagenet"
    top.mkdir()
    Image.fromarray(np.zeros((150, 180, 3), np.uint8)).save(top / "one.jpg")
    for split in ("train", "val"):
        for number, wnid in enumerate(WNIDS):
            (top / split / wnid).mkdir(parents=True)
            os.link(top / "one.jpg", top / split / wnid / f"{wnid}_{number}.JPEG")
    return top


def load(root, **options):
    return data.load("ImageNet", root, **options)


def test_both_splits_are_listed_by_sorted_id(whole):
    for root in (whole.parent, whole):
        dataset = load(root)
        assert dataset.train.labels.tolist() == dataset.test.labels.tolist() == list(range(1000))
        assert dataset.train.images.files[7].startswith(WNIDS[7])
        assert (dataset.size, dataset.fit, dataset.padding) == (224, "crop", 0)
        assert (dataset.mean, dataset.std) == (TABLE["imagenet"].mean, TABLE["imagenet"].std)
        assert dataset.source == str(whole) and dataset.streamed
        assert dataset.notes[0] == "imagenet: 1,000 of 1,281,167 train images."
    assert data.inspect("imagenet", whole.parent)[:3] == ("imagenet", True, str(whole))


def test_a_small_size_stretches(whole):
    dataset = load(whole, size=64)
    assert (dataset.size, dataset.fit, dataset.padding) == (64, "stretch", 8)
    assert dataset.test.images[:2].shape == (2, 3, 64, 64)


def test_classes_have_a_thousand_different_names(whole):
    names = load(whole).classes
    assert len(set(names)) == 1000 and all(name == name.strip() for name in names)
    assert [names[n] for n in (0, 1, 207, 999)] == [
        "tench", "goldfish", "golden retriever", "toilet tissue"
    ]  # fmt: skip


def test_what_is_absent_or_unsorted_or_only_a_part_is_told(whole, tmp_path):
    def refused(said, root):
        with pytest.raises(KdcliError, match=said) as caught:
            load(root)
        assert caught.value.code == DATA

    refused(r"put there imagenet/train/ and imagenet/val/ .* takes an account", tmp_path)
    status = data.inspect("imagenet", tmp_path)
    assert not status.ready and status.state == "to be put there"
    top = tmp_path / "imagenet"
    for wnid in WNIDS[:3]:
        (top / "train" / wnid).mkdir(parents=True)
        os.link(whole / "one.jpg", top / "train" / wnid / "1.JPEG")
    (top / "val").mkdir()
    os.link(whole / "one.jpg", top / "val" / "ILSVRC2012_val_00000001.JPEG")
    refused("val holds no class folders", tmp_path)
    assert data.inspect("imagenet", tmp_path).state == "broken"
    for wnid in WNIDS[:3]:
        (top / "val" / wnid).mkdir()
        os.link(whole / "one.jpg", top / "val" / wnid / "1.JPEG")
    refused(f"3 class folders, not 1,000: .* folder:{top}", tmp_path)
    assert len(data.load(f"folder:{top}", "/nowhere").classes) == 3
