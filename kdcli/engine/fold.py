"""Batch norms of a frozen network folded into the convolutions before them.

In evaluation mode a batch norm is g (x - m) / sqrt(v + eps) + b, constants for each channel. So a
convolution with weight W g / sqrt(v + eps) and bias b + g (c - m) / sqrt(v + eps), c being its bias
if it has one, computes both: a kernel less, and the map is read and written once less.

Which norm follows which convolution is seen in one pass: it is given the very tensor that the
convolution returned. Whether folding it changes what the network shows, as it does where that
tensor is a stage or a shortcut too (the stem of a wide residual network), is tried out.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval, parametrize

from kdcli.contracts import Features
from kdcli.models.network import Network

CLOSE = {torch.float64: 1e-9, torch.float32: 1e-4}  # of a tensor's largest value


class Pair(NamedTuple):
    """The names of a convolution and of the norm that its output goes to."""

    conv: str
    norm: str


@torch.no_grad()
def folded(network: Network, images: Tensor) -> Network:
    """A copy in evaluation mode, in which every norm that can be folded is an identity.

    It shows the same Features up to rounding. Of `images` [B, 3, H, W] only shape and device
    matter; what is tried out is noise. The `norms` of the copy are no norms any more: a loss that
    reads them (OFD) is built from the original, which is left alone.
    """
    wide = torch.float32 if images.device.type == "mps" else torch.float64
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    noise = noise.to(images.device, wide)
    result = copy.deepcopy(network).eval().to(wide)
    pairs, shown = _pairs(result, noise)
    _fold(result, pairs, lambda: _agree(result.features(noise), shown, CLOSE[wide]))
    return result.to(next(network.parameters()).dtype)


def _pairs(network: Network, images: Tensor) -> tuple[list[Pair], Features]:
    """What one pass shows: convolutions with the norms behind them, and the Features.

    A module that is called twice, or known by two names, is left out: folding would change it in
    both places.
    """
    names = {module: name for name, module in _alone(network)}
    returned: dict[int, tuple[str, Tensor]] = {}  # kept alive, so that no number is given twice
    calls: Counter[str] = Counter()
    found: list[Pair] = []

    def see_output(conv: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        calls[names[conv]] += 1
        returned[id(output)] = names[conv], output

    def see_input(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        calls[names[norm]] += 1
        if id(inputs[0]) in returned:
            found.append(Pair(returned[id(inputs[0])][0], names[norm]))

    handles = []
    for module in names:
        if type(module) is nn.Conv2d and not parametrize.is_parametrized(module):
            handles.append(module.register_forward_hook(see_output))
        elif type(module) is nn.BatchNorm2d and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(see_input))
    try:
        shown = network.features(images)
    finally:
        for handle in handles:
            handle.remove()
    norms = Counter(pair.conv for pair in found)
    return [p for p in found if norms[p.conv] == calls[p.conv] == calls[p.norm] == 1], shown


def _alone(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that have one name."""
    named = list(network.named_modules(remove_duplicate=False))
    names = Counter(id(module) for _, module in named)
    return ((name, module) for name, module in named if names[id(module)] == 1)


def _fold(network: Network, pairs: list[Pair], unchanged: Callable[[], bool]) -> None:
    """Fold those pairs that leave what is shown `unchanged`: all at once, else each half alone."""
    before = [(name, network.get_submodule(name)) for pair in pairs for name in pair]
    for pair in pairs:
        conv, norm = (network.get_submodule(name) for name in pair)
        network.set_submodule(pair.conv, fuse_conv_bn_eval(conv, norm))
        network.set_submodule(pair.norm, nn.Identity())
    if unchanged():
        return
    for name, module in before:
        network.set_submodule(name, module)
    half = len(pairs) // 2
    if half:
        _fold(network, pairs[:half], unchanged)
        _fold(network, pairs[half:], unchanged)


def _agree(one: Features, other: Features, close: float) -> bool:
    """Whether two Features are equal, up to `close` of each tensor's largest value."""
    pairs = zip(_tensors(one), _tensors(other), strict=True)
    return all(bool((a - b).abs().max() <= close * b.abs().max()) for a, b in pairs)


def _tensors(features: Features) -> list[Tensor]:
    """Everything that a network shows."""
    return [
        tensor
        for value in features
        for tensor in (value if isinstance(value, tuple) else (value,))
        if tensor is not None
    ]
