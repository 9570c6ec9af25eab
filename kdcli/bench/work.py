"""What a step must do: floating-point operations and bytes, counted while it runs.

FLOPs are those of convolutions and products, forward and backward, 2 for each multiply-add. For the
bytes every operation reads each input once and writes each output once: what an unfused program
moves if no cache helps. Look-ups read the rows they return. The floor of a step is the larger of
FLOPs / measured product rate and bytes / measured copy rate. It is an estimate, not a bound: a
cache or a fusion saves bytes, and Winograd's convolutions multiply less than is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from kdcli.bench.rates import Rates

LOOK_UPS = {"index", "gather", "index_select", "embedding", "take"}
SCATTERS = {"index_copy_", "index_put_", "_index_put_impl_", "scatter_", "index_add_"}
UNWRITTEN = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


class Work(NamedTuple):
    """Of one training step."""

    flops: int
    bytes: int

    def without(self, other: Work) -> Work:
        """This work less a part of it."""
        return Work(self.flops - other.flops, self.bytes - other.bytes)

    def floor(self, rates: Rates) -> float:
        """Seconds that this work takes at `rates`, computing and moving at the same time."""
        return max(self.flops / rates.flops, self.bytes / rates.bytes)


def count(call: Callable[[], object]) -> Work:
    """What `call` does."""
    with FlopCounterMode(display=False) as flops, Traffic() as traffic:
        call()
    return Work(flops.get_total_flops(), traffic.bytes)


class Traffic(TorchDispatchMode):
    """Adds up the bytes that operations read and write while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.bytes += moved(func, _tensors((args, kwargs)), _tensors(out))
        return out


def moved(func: Any, inputs: list[Tensor], outputs: list[Tensor]) -> int:
    """Bytes that one operation reads and writes."""
    name = func.overloadpacket.__name__
    if func.is_view or name in UNWRITTEN:
        return 0
    if name in LOOK_UPS:
        return sum(map(_nbytes, inputs[1:])) + 2 * sum(map(_nbytes, outputs))
    if name in SCATTERS:  # the rows written, their source and their numbers; not the whole table
        return 2 * sum(map(_nbytes, inputs[1:]))
    return sum(map(_nbytes, inputs)) + sum(map(_nbytes, outputs))


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _nbytes(tensor: Tensor) -> int:
    """Bytes of its elements, each place in memory once: a sliding view repeats them."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())
