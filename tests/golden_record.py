"""One file of recorded numbers of a network: reading it, and comparing arrays with it.

Errors are relative: to the largest expected value of an array, or for a sum of n elements to what
it can be at most, sqrt(n · sum of squares).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from tests.conformance_row import Row

RELATIVE = {"float64": 1e-9, "float32": 1e-5}
TINY = 1e-300  # a scale is never zero


class Record(NamedTuple):
    """What was recorded of one network."""

    title: str
    meta: dict[str, str]
    arrays: dict[str, Tensor]

    def listed(self, key: str) -> list:
        """A list of the metadata; empty where the file has none."""
        return json.loads(self.meta.get(key, "[]"))

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.meta["dtype"])

    @property
    def relative(self) -> float:
        """How far apart two numbers may be where rounding is not amplified."""
        return RELATIVE[self.meta["dtype"]]


class Found(NamedTuple):
    """An array computed here, and what its error is measured by."""

    value: Tensor
    scale: Tensor | None = None  # of each element; None: the largest expected value
    root: bool = False  # compare the square roots
    keep: Tensor | None = None  # bool, of each element: those that are compared; None: all


def read(path: Path) -> Record:
    """A safetensors file with its metadata."""
    with safe_open(path, "pt") as handle:
        there = torch.get_default_device()
        arrays = {name: handle.get_tensor(name).to(there) for name in handle.keys()}  # noqa: SIM118
        return Record(f"{path.parent.name}/{path.stem}", handle.metadata(), arrays)


def checksums(name: str, tensors: Iterable[Tensor], norms: bool = False) -> dict[str, Found]:
    """`name.sum` and `name.sumsq` of each tensor.

    With `norms`, the roots of the squares are compared, and all by the largest: a gradient that is
    zero but for rounding has no digits to agree in.
    """
    tensors = [tensor.detach().double() for tensor in tensors]
    sums = torch.stack([tensor.sum() for tensor in tensors])
    squares = torch.stack([tensor.square().sum() for tensor in tensors])
    largest = squares.max().expand_as(squares) if norms else squares
    counts = torch.tensor([tensor.numel() for tensor in tensors])
    return {
        f"{name}.sum": Found(sums, (counts * largest).sqrt()),
        f"{name}.sumsq": Found(squares, None if norms else squares, norms),
    }


def heads(name: str, tensors: Iterable[Tensor], length: int) -> dict[str, Found]:
    """`name.head`: the first elements of each tensor."""
    return {f"{name}.head": Found(torch.stack([x.flatten()[:length] for x in tensors]))}


def error_of(found: Found, expected: Tensor) -> float:
    """The largest relative error of one array; infinity for another number of elements."""
    if found.value.numel() != expected.numel():
        return float("inf")
    value, expected = (x.detach().double().reshape(-1) for x in (found.value, expected))
    if found.root:
        value, expected = value.sqrt(), expected.sqrt()
    scale = expected.abs().max() if found.scale is None else found.scale
    errors = (value - expected).abs() / scale.clamp_min(TINY)
    return (errors if found.keep is None else errors[found.keep]).max().item()


def compare(
    record: Record, prefix: str, found: Mapping[str, Found], noise: Mapping[str, float]
) -> Iterator[Row]:
    """A row for each recorded array among `found`; `noise`: of rounding, by array."""
    for name, mine in found.items():
        expected = record.arrays.get(prefix + name)
        if expected is not None:
            tolerance = max(record.relative, 100 * noise.get(name, 0.0))
            error = error_of(mine, expected)
            yield Row(f"{record.title}: {prefix}{name}", error, tolerance, error <= tolerance, "")


def missed(record: Record, prefixes: Iterable[str], found: Iterable[str]) -> Iterator[Row]:
    """A row for every recorded array that nothing was computed for."""
    known = {prefix + name for prefix in prefixes for name in found}
    for name in record.arrays:
        if name not in known:
            yield Row(f"{record.title}: {name}", float("inf"), 0.0, False, "not computed")
