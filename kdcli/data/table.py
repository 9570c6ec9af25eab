"""Every dataset by name, as plain data: what it is, and which module reads it."""

from typing import NamedTuple

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
