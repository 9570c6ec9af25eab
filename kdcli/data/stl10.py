"""STL-10 in its binary layout: labelled images only, 96x96, labels 1 to 10.

`X` files are uint8 [N, 3, 96, 96] with every channel stored column by column.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kdcli.data import TABLE
from kdcli.data.archives import broken, fewer, find, read_members
from kdcli.data.assemble import Arrays, Raw
from kdcli.data.download import obtain

URL = "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz"
ARCHIVE, FOLDER = "stl10_binary.tar.gz", "stl10_binary"
ARCHIVE_MD5 = "91f7769df0f17e558f3565bffb0c7dfb"
FILES = {  # name: MD5
    "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
    "train_y.bin": "5a34089d4802c674881badbb80307741",
    "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
    "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
}
LIMIT = 512 << 20  # bytes of one file; the largest labelled one has 221 MB
CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
IMAGE = 3 * 96 * 96  # bytes


def locate(name: str, root: Path) -> Path | None:
    """The archive or folder under `root` that `read` would take."""
    return find(root, FOLDER, ARCHIVE, name, FILES)


def read(
    name: str, root: Path, *, download: bool, size: int | None, train_per_class: int | None
) -> Raw:
    """The labelled splits, 5,000 and 8,000 images when complete.

    A copy with other checksums is taken when its structure is right, and a note says so. `size`
    and `train_per_class` are left to the caller.
    """
    place = locate(name, root) or obtain(
        name, root, FOLDER, ARCHIVE, URL, ARCHIVE_MD5, allowed=download
    )
    members = read_members(place, FOLDER, FILES, LIMIT)
    train, test = (_split(place, members.content, split) for split in ("train", "test"))
    notes = (
        *members.notes(name, place),
        *fewer(name, "train", len(train.labels), TABLE[name].train),
        *fewer(name, "test", len(test.labels), TABLE[name].test),
    )
    return Raw(train, test, CLASSES, str(place), notes)


def _split(place: Path, members: Mapping[str, bytes], split: str) -> Arrays:
    pixels = np.frombuffer(members[f"{split}_X.bin"], np.uint8)
    labels = np.frombuffer(members[f"{split}_y.bin"], np.uint8).astype(np.int64)
    if not len(labels) or len(pixels) != len(labels) * IMAGE:
        raise broken(
            place,
            f"{split}_X.bin has {len(pixels):,} bytes, {len(labels)} labels need "
            f"{len(labels) * IMAGE:,}",
        )
    if labels.min() < 1 or labels.max() > len(CLASSES):
        raise broken(
            place, f"{split}_y.bin has labels from {labels.min()} to {labels.max()}, not 1 to 10"
        )
    return Arrays(pixels.reshape(-1, 3, 96, 96).swapaxes(2, 3), labels - 1)
