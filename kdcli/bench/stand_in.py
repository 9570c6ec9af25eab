"""What stands in for data and for a trained teacher: the speed depends on neither's content."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from kdcli import data, models
from kdcli.data import TABLE, Dataset, Split
from kdcli.data.augment import normalise
from kdcli.errors import KdcliError
from kdcli.models.network import Network

ORIGIN = "made: random pixels of its shape"
MOST = 1 << 31  # bytes of pixels
SHOWN = 64  # images that a random teacher's norms are set from


def dataset(name: str, data_dir: Path) -> Dataset:
    """The dataset if it can be read without the network, else random pixels of its shape.

    KdcliError for one that does not fit in memory.
    """
    name = data.canonical(name)
    if name not in TABLE or data.inspect(name, data_dir).ready:
        read = data.load(name, data_dir, download=False)
        if read.streamed:
            raise _too_large(name)
        return read
    entry = TABLE[name]
    if 3 * entry.size**2 * entry.train > MOST:
        raise _too_large(name)
    names = tuple(f"class {number}" for number in range(entry.classes))
    splits = [_noise(count, entry.size, entry.classes) for count in (entry.train, SHOWN)]
    return Dataset(
        name, names, entry.mean, entry.std, *splits, entry.size // 8, digest="", source=ORIGIN
    )


def _too_large(name: str) -> KdcliError:
    return KdcliError(
        f"{name} does not fit in memory, and only datasets that do are timed; try cifar100, "
        "tinyimagenet, stl10 or shapes."
    )


def _noise(count: int, size: int, classes: int) -> Split:
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, size, size)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return Split(pixels, torch.randperm(count, generator=generator) % classes)


def teacher(name: str, classes: int, split: Split, mean: Tensor, std: Tensor) -> Network:
    """A random network in evaluation mode whose norms know the data's statistics.

    Without that its logits could be so large that training diverges.
    """
    torch.manual_seed(1)
    network = models.build(name, classes=classes).train()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # the statistics of the next batch alone
    with torch.no_grad():
        network(normalise(split.images[:SHOWN], mean, std))
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    return network.eval()
