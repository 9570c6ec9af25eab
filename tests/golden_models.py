"""Compare networks with recorded numbers.

The folder holds `models/` and `models_mdistiller/`, a file a network. No weights are stored: they
come from a formula (`tests.golden_fill`), once a sine and once a hash, whose constants are in the
file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from kdcli import models
from kdcli.contracts import Features
from kdcli.models.network import Network
from tests.conformance_row import Row
from tests.golden_fill import COUNTER, Fill, apply, fills
from tests.golden_record import (
    Found,
    Record,
    checksums,
    compare,
    error_of,
    heads,
    missed,
    read,
)

FOLDERS = ("models", "models_mdistiller")
TARGET = re.compile(r"y\[b\] = \((\d+)\*b ?\+ ?(\d+)\) mod num_classes")  # labels, in words
# Norms that the other toolkit runs twice in a training step, by the metadata's name of their list.
TWICE = "bn_buffers_after_train_forward_differing_from_RepDistiller"


def check(directory: Path) -> Iterator[Row]:
    """One row an array, for every file of the two folders."""
    for folder in FOLDERS:
        for path in sorted((directory / folder).glob("*.safetensors")):
            try:
                yield from check_file(path)
            except Exception as error:  # one file that cannot be read must not hide the others
                note = f"{type(error).__name__}: {error}"
                yield Row(f"{folder}/{path.stem}", float("inf"), 0.0, False, note)


def check_file(path: Path) -> Iterator[Row]:
    """Names first, then each fill; with another fill the network's numbers would say nothing."""
    record = read(path)
    if record.meta["model"] not in models.TABLE:
        yield Row(record.title, float("inf"), 0.0, False, "no such model")
        return
    network = models.build(record.meta["model"], int(record.meta["num_classes"])).to(record.dtype)
    yield from names(record, network)
    seen = {"param_count"}
    recorded = [f for f in fills(record.meta) if f"{f.prefix}logits_eval" in record.arrays]
    for fill in recorded:
        apply(fill, network)
        images = fill.images(int(record.meta["batch"])).to(record.dtype)
        entries = [v for key, v in network.state_dict().items() if not key.endswith(COUNTER)]
        filled = {**checksums("fill", entries), **checksums("input", [images])}
        rows = list(compare(record, fill.prefix, filled, {}))
        yield from rows
        if not all(row.ok for row in rows):
            return
        found = observe(record, network, images)
        noise = recorded_noise(record, fill, found) or measured_noise(record, fill, network, found)
        yield from compare(record, fill.prefix, found, noise)
        seen |= {fill.prefix + name for name in (*filled, *found)}
    yield from missed(record, [""], seen)


def names(record: Record, network: Network) -> Iterator[Row]:
    """Keys, shapes and their order; the norms in front of a stage's ReLU."""
    parameters = dict(network.named_parameters())
    running = [key for key, value in network.named_buffers() if value.is_floating_point()]
    found = {
        "state_dict": [[key, list(value.shape)] for key, value in network.state_dict().items()],
        "param_keys": list(parameters),
        "bn_buffer_keys": running,
    }
    if record.meta.get("bn_before_relu", "").startswith("["):  # else a sentence: it has none
        modules = {module: name for name, module in network.named_modules()}
        found["bn_before_relu"] = [modules[norm] for norm in network.norms]
    for title, values in found.items():
        yield exact(record, title, values == record.listed(title), "keys or shapes differ")
    count = sum(value.numel() for value in parameters.values())
    yield exact(record, "param_count", count == record.arrays["param_count"].item(), str(count))


def exact(record: Record, title: str, agrees: bool, note: str) -> Row:
    """A row for what is right or wrong."""
    error = 0.0 if agrees else float("inf")
    return Row(f"{record.title}: {title}", error, 0.0, agrees, "" if agrees else note)


def observe(record: Record, network: Network, images: Tensor) -> dict[str, Found]:
    """All that a file records of one fill: evaluation, then one step of training."""
    with torch.no_grad():
        shown = network.eval().features(images)
    factor, shift = map(int, TARGET.fullmatch(record.meta["target"]).groups())
    targets = (factor * torch.arange(len(images)) + shift) % int(record.meta["num_classes"])
    logits = network.train()(images)
    loss = F.cross_entropy(logits, targets)
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    return {
        "logits_eval": Found(shown.logits),
        **features(record, shown),
        "logits_train": Found(logits.detach()),
        "train.ce": Found(loss.detach()),
        **checksums("train.grad", gradients, norms=True),
        **statistics(record, network),
    }


def features(record: Record, shown: Features) -> dict[str, Found]:
    """The lists of one toolkit, which end with the pooled vector, or those of the other."""
    pooled = (shown.pooled,)
    lists = {
        "feat": shown.stages + pooled,
        "feat_preact": shown.preacts + pooled,
        "feats": shown.stages,
        "preact_feats": shown.preacts,
        "pooled_feat": pooled,
    }
    length = next(x.shape[-1] for key, x in record.arrays.items() if key.endswith(".head"))
    found: dict[str, Found] = {}
    for name, maps in lists.items():
        shapes = record.meta.get(f"{name}_shapes") or record.meta.get(f"{name}_shape")
        if shapes is None:
            continue
        mine = [list(x.shape) for x in maps]
        if json.loads(shapes) in (mine, *mine):
            found |= {**checksums(name, maps), **heads(name, maps, length)}
        else:
            found[f"{name}.sum"] = Found(torch.empty(0))  # fits no recorded array
    return found


def statistics(record: Record, network: Network) -> dict[str, Found]:
    """Running statistics after the step, without those that the other toolkit moves twice."""
    twice = record.listed(TWICE)
    buffers = dict(network.named_buffers())
    counters = [key for key in buffers if key.endswith(COUNTER)]
    running = [key for key in buffers if key not in counters]
    found = checksums("bn_after", [buffers[key] for key in running])
    once = torch.tensor([key not in twice for key in running])
    found = {name: array._replace(keep=once) for name, array in found.items()}
    once = torch.tensor([key not in twice for key in counters])
    counts = torch.stack([buffers[key] for key in counters])
    return {**found, f"bn_after.{COUNTER}": Found(counts, keep=once)}


def recorded_noise(record: Record, fill: Fill, found: Iterable[str]) -> dict[str, float]:
    """The noise that the file states, by array; empty where it states none."""
    stated = record.meta.get("float64_noise.hash" if fill.prefix else "float64_noise.sin")
    if stated is None:
        return {}
    by_kind = json.loads(stated)
    kind_of = dict.fromkeys(("train.ce", "bn_after.sum", "bn_after.sumsq"), "logits_train")
    kind_of |= dict.fromkeys(("train.grad.sum", "train.grad.sumsq"), "train.grad.norm")
    kind_of |= {name: name for name in by_kind}
    return {name: by_kind.get(kind_of.get(name, "feat.sumsq"), 0.0) for name in found}


def measured_noise(
    record: Record, fill: Fill, network: Network, found: Mapping[str, Found]
) -> dict[str, float]:
    """How far every array moves when each number that goes in moves by one rounding unit."""
    apply(fill, network)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(nudged(tensor))
    images = fill.images(int(record.meta["batch"])).to(record.dtype)
    again = observe(record, network, nudged(images))
    return {name: error_of(again[name], array.value) for name, array in found.items()}


def nudged(tensor: Tensor) -> Tensor:
    """Every element moved to its neighbour, the even ones up and the odd ones down."""
    signs = 1 - 2 * (torch.arange(tensor.numel()) % 2).view(tensor.shape)
    return torch.nextafter(tensor, signs * torch.inf)
