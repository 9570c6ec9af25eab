"""Datasets by name. A table of plain data: importing it imports neither torch nor numpy."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from kdcli.errors import DATA, KdcliError, unknown

if TYPE_CHECKING:
    from torch import Tensor

    from kdcli.data.pictures import Pictures

Triple = tuple[float, float, float]


class Entry(NamedTuple):
    """One line of the table. Counts are those of the official splits."""

    summary: str
    module: str  # kdcli.data.<module> reads it
    classes: int
    size: int  # height and width of the images as a network is given them, pixels
    train: int  # images
    test: int  # images
    mean: Triple  # of pixels in [0, 1], per channel
    std: Triple
    megabytes: int  # of the download; 0: nothing is downloaded
    licence: str
    citation: str


NOT_STATED = "none stated by the authors; research use, cite the paper"
TABLE: dict[str, Entry] = {
    "cifar100": Entry(
        "100 classes of 32x32 photographs",
        *("cifar", 100, 32, 50_000, 10_000),
        (0.5071, 0.4867, 0.4408),
        (0.2675, 0.2565, 0.2761),
        *(169, NOT_STATED),
        "Krizhevsky: Learning Multiple Layers of Features from Tiny Images. 2009",
    ),
    "cifar10": Entry(
        "10 classes of 32x32 photographs",
        *("cifar", 10, 32, 50_000, 10_000),
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
        *(170, NOT_STATED),
        "Krizhevsky: Learning Multiple Layers of Features from Tiny Images. 2009",
    ),
    "stl10": Entry(
        "10 classes of 96x96 photographs, the usual probe target at 32x32",
        *("stl10", 10, 96, 5_000, 8_000),
        (0.4467, 0.4398, 0.4066),
        (0.2603, 0.2566, 0.2712),
        *(2640, NOT_STATED + "; the images are from ImageNet"),
        "Coates, Lee, Ng: An Analysis of Single-Layer Networks in Unsupervised Feature Learning. "
        "AISTATS 2011",
    ),
    "tinyimagenet": Entry(
        "200 classes of 64x64 photographs",
        *("tinyimagenet", 200, 64, 100_000, 10_000),
        (0.4802, 0.4481, 0.3975),
        (0.2770, 0.2691, 0.2821),
        *(248, "ImageNet's terms: non-commercial research and education"),
        "Stanford CS231N, from Deng et al.: ImageNet. CVPR 2009",
    ),
    "imagenet": Entry(
        "1,000 classes of photographs, streamed from the disk (ILSVRC 2012)",
        *("imagenet", 1000, 224, 1_281_167, 50_000),
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
        *(0, "ImageNet's terms: non-commercial research and education"),
        "Russakovsky et al.: ImageNet Large Scale Visual Recognition Challenge. IJCV 2015, "
        "arXiv:1409.0575",
    ),
    "shapes": Entry(
        "10 classes of drawn shapes, embedded: rendered from a seed, nothing to download",
        *("shapes", 10, 32, 8_000, 2_000),
        (0.4977, 0.4976, 0.4960),
        (0.2887, 0.2870, 0.2853),
        *(0, "Apache-2.0, part of kdcli"),
        "kdcli",
    ),
}
SIZES = range(8, 513)  # pixels of a side
OPTIONS = {"second_view": ("weak", "strong"), "size": SIZES}  # what a recipe's [data] may say
FOLDER = "folder:"  # folder:PATH, with PATH/train/CLASS/*.png and PATH/test/CLASS/*.png


class Split(NamedTuple):
    """Images and their classes, on the host until somebody moves them."""

    images: Tensor | Pictures  # [N, 3, H, W] uint8, or the files that are decoded to it
    labels: Tensor  # [N] int64


@dataclass(frozen=True)
class Dataset:
    """A dataset in memory or, where it is `streamed`, on the disk, and what a run writes of it."""

    name: str
    classes: tuple[str, ...]
    mean: Triple
    std: Triple
    train: Split
    test: Split
    padding: int  # pixels of zeros on each side before a random crop: 4 at 32x32; 0: a resized one
    digest: str  # BLAKE2b, hex, of all image and label bytes; streamed: of the listing of files
    source: str  # the file or folder it was read from
    notes: tuple[str, ...] = ()  # what the reader should be told

    @property
    def size(self) -> int:
        """Height and width of the images in pixels."""
        return self.train.images.shape[-1]

    @property
    def streamed(self) -> bool:
        """Whether images are decoded when they are asked for, and never all in memory."""
        return hasattr(self.train.images, "files")

    @property
    def fit(self) -> str:
        """How an image file becomes a square: "stretch" or "crop", see `kdcli.data.crops`."""
        return getattr(self.train.images, "fit", "stretch")


class Status(NamedTuple):
    """What `kdcli datasets` and `kdcli doctor` say of one dataset."""

    name: str
    ready: bool  # can be loaded without the network
    place: str  # where it lies, or would be downloaded to
    detail: str
    state: str  # in a word or two: ready, to download, to be put there, broken


def check_options(options: Mapping[str, object]) -> None:
    """KdcliError for a key or value that a recipe's [data] does not have."""
    for key, value in options.items():
        if key not in OPTIONS:
            raise unknown("key of [data]", key, OPTIONS)
        if key == "size":
            check_size(value)
        elif value not in OPTIONS[key]:
            raise unknown(f"{key} of [data]", str(value), OPTIONS[key])


def check_size(size: object) -> None:
    """KdcliError for what cannot be the side of the images."""
    if type(size) is not int or size not in SIZES:
        raise KdcliError(
            f"image size is {size}; it must be between {SIZES[0]} and {SIZES[-1]} pixels."
        )


def canonical(name: str) -> str:
    """The name in the table that is meant ('CIFAR-100' -> 'cifar100'); `folder:PATH` made absolute.

    >>> canonical("Tiny-ImageNet")
    'tinyimagenet'
    """
    if name.startswith(FOLDER):
        return FOLDER + os.path.abspath(os.path.expanduser(name[len(FOLDER) :]))
    folded = name.lower().replace("-", "").replace("_", "").replace(" ", "")
    if folded not in TABLE:
        raise unknown("dataset", name, TABLE, "Images of your own: folder:PATH.")
    return folded


def reader(name: str) -> ModuleType:
    """The module that reads the dataset with this canonical name."""
    module = "folder" if name.startswith(FOLDER) else TABLE[name].module
    return importlib.import_module(f"{__name__}.{module}")


def load(
    name: str,
    data_dir: Path | str,
    *,
    download: bool = True,
    train_per_class: int | None = None,
    size: int | None = None,
) -> Dataset:
    """Read a dataset into memory, or only its listing where it is streamed.

    `train_per_class` keeps the first so many training images of each class. `size` stretches every
    image to size x size with PIL's bilinear filter. Raises KdcliError (data) when the dataset is
    missing or broken, (usage) for a name or number that cannot be.
    """
    from kdcli.data.assemble import assemble

    if train_per_class is not None and train_per_class < 1:
        raise KdcliError(f"train_per_class is {train_per_class}; it must be at least 1.")
    if size is not None:
        check_size(size)
    name = canonical(name)
    root = Path(data_dir).expanduser()
    options = {"download": download, "size": size, "train_per_class": train_per_class}
    try:
        raw = reader(name).read(name, root, **options)
    except OSError as error:
        where = error.filename or root
        raise KdcliError(
            f"{name}: cannot read {where}: {error.strerror or error}.", DATA
        ) from error
    return assemble(name, raw, size, train_per_class)


def inspect(name: str, data_dir: Path | str) -> Status:
    """Whether a dataset can be loaded without the network, and where it lies; reads no image."""
    name = canonical(name)
    root = Path(data_dir).expanduser()
    try:
        place = reader(name).locate(name, root)
    except (OSError, KdcliError) as error:
        return Status(name, False, str(root), str(error), "broken")
    if place is not None:
        return Status(name, True, str(place), "ready", "ready")
    if megabytes := TABLE[name].megabytes:
        detail = f"downloaded when first used, {megabytes:,} MB"
        return Status(name, False, str(root), detail, "to download")
    return Status(name, False, str(root), reader(name).ABSENT, "to be put there")
