"""CIFAR-100 and CIFAR-10 in the python layout: the official archive, or the folder inside it.

Pickles with `data` uint8 [N, 3072] (red, green and blue planes, row by row) and a list of labels.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kdcli.data import TABLE
from kdcli.data.archives import broken, fewer, find, read_members
from kdcli.data.assemble import Arrays, Raw
from kdcli.data.download import obtain
from kdcli.data.pickles import load_arrays

LIMIT = 512 << 20  # bytes of one member; the largest official one has 155 MB


class Layout(NamedTuple):
    """Where the parts of one CIFAR are, and the official MD5 of each."""

    url: str
    archive: str
    archive_md5: str
    folder: str
    train: dict[str, str]  # file: MD5
    test: dict[str, str]
    meta: dict[str, str]
    labels: str  # key of the labels in a batch file
    names: str  # key of the class names in the meta file

    @property
    def files(self) -> dict[str, str]:
        """Every file with its MD5, the order of reading."""
        return {**self.train, **self.test, **self.meta}


LAYOUTS = {
    "cifar100": Layout(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        archive="cifar-100-python.tar.gz",
        archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
        folder="cifar-100-python",
        train={"train": "16019d7e3df5f24257cddd939b257f8d"},
        test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        meta={"meta": "7973b15100ade9c7d40fb424638fde48"},
        labels="fine_labels",
        names="fine_label_names",
    ),
    "cifar10": Layout(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        archive="cifar-10-python.tar.gz",
        archive_md5="c58f30108f718f92721af3b95e74349a",
        folder="cifar-10-batches-py",
        train={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        test={"test_batch": "40351d587109b95175f43aff81a1287e"},
        meta={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
        labels="labels",
        names="label_names",
    ),
}


def locate(name: str, root: Path) -> Path | None:
    """The archive or folder under `root` that `read` would take."""
    layout = LAYOUTS[name]
    return find(root, layout.folder, layout.archive, name, layout.files)


def read(
    name: str, root: Path, *, download: bool, size: int | None, train_per_class: int | None
) -> Raw:
    """The whole dataset, from what lies under `root` or from its authors' server.

    A copy with other checksums than the official ones is taken when its structure is right, and a
    note says so. `size` and `train_per_class` are left to the caller.
    """
    layout = LAYOUTS[name]
    place = locate(name, root) or obtain(
        *(name, root, layout.folder, layout.archive, layout.url, layout.archive_md5),
        allowed=download,
    )
    members = read_members(place, layout.folder, layout.files, LIMIT)
    classes = _class_names(place, layout, members.content, TABLE[name].classes)
    train, test = (
        _split(place, members.content, files, layout.labels, len(classes))
        for files in (layout.train, layout.test)
    )
    notes = (
        *members.notes(name, place),
        *fewer(name, "train", len(train.labels), TABLE[name].train),
        *fewer(name, "test", len(test.labels), TABLE[name].test),
    )
    return Raw(train, test, classes, str(place), notes)


def _pickle(place: Path, file: str, members: Mapping[str, bytes]) -> dict[str, object]:
    try:
        content = load_arrays(members[file])
    except pickle.UnpicklingError as error:
        raise broken(place, f"{file}: {error}") from error
    if not isinstance(content, dict):
        raise broken(place, f"{file} holds no dictionary")
    return {_text(key): value for key, value in content.items()}


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _class_names(
    place: Path, layout: Layout, members: Mapping[str, bytes], count: int
) -> tuple[str, ...]:
    file = next(iter(layout.meta))
    names = _pickle(place, file, members).get(layout.names)
    if not isinstance(names, list) or len(set(map(_text, names))) != count:
        raise broken(place, f"{file} does not name {count} classes in {layout.names}")
    return tuple(map(_text, names))


def _split(
    place: Path, members: Mapping[str, bytes], files: Mapping[str, str], key: str, classes: int
) -> Arrays:
    parts = [_batch(place, file, _pickle(place, file, members), key, classes) for file in files]
    images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Arrays(images.reshape(-1, 3, 32, 32), labels)


def _batch(
    place: Path, file: str, content: Mapping[str, object], key: str, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    data = content.get("data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,):
        raise broken(place, f"{file} has no uint8 array 'data' of 3072 columns")
    try:
        labels = np.asarray(content.get(key, ()))
    except ValueError:  # lists of differing lengths
        labels = np.empty(0)
    if labels.shape != data.shape[:1] or labels.dtype.kind not in "iu" or not len(labels):
        raise broken(
            place, f"{file} needs one whole number in '{key}' for each of {len(data)} images"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise broken(
            place,
            f"{file} has labels from {labels.min()} to {labels.max()}, not 0 to {classes - 1}",
        )
    return data, labels.astype(np.int64)
