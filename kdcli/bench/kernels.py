"""Single kernels timed: of a graph and launched singly, convolutions, and those of CRD."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from kdcli import models
from kdcli.bench.rates import synchronize
from kdcli.engine.capture import Recorder

TURN = 0.05  # seconds of calls between two looks at the clock
ROUNDS = 5


class Shape(NamedTuple):
    """A convolution as a network has it."""

    inputs: int
    width: int
    size: int
    stride: int
    groups: int
    side: int  # of the map that comes in

    def flops(self, batch: int) -> int:
        """Of a forward pass, 2 for each multiply-add."""
        out = -(-self.side // self.stride)
        return 2 * batch * self.width * out**2 * self.size**2 * self.inputs // self.groups


def seconds(call: Callable[[], object], device: torch.device, calls: int | None = None) -> float:
    """Median over rounds of a call's mean time; `calls` a round, or as many as fill a turn."""
    for _ in range(3):
        call()
    synchronize(device)
    began = time.perf_counter()
    call()
    synchronize(device)
    number = calls or max(1, round(TURN / (time.perf_counter() - began)))
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(number):
            call()
        synchronize(device)
        taken.append((time.perf_counter() - began) / number)
    return median(taken)


def node(device: torch.device, count: int = 500) -> float:
    """Seconds of one of many tiny kernels in a graph."""
    tensor = torch.zeros(1, device=device)

    def body() -> None:
        for _ in range(count):
            tensor.add_(1)

    body()  # loads the kernel, which a capture may not
    return seconds(Recorder(torch.cuda.Stream(device))(body), device) / count


def operator(device: torch.device, count: int = 500) -> float:
    """Seconds of one of many tiny kernels, launched by itself."""
    tensor = torch.zeros(1, device=device)

    def body() -> None:
        for _ in range(count):
            tensor.add_(1)

    return seconds(body, device, 1) / count


def block(device: torch.device, batch: int = 64) -> float:
    """Seconds of a block of convolution, norm and ReLU, forward and backward, launched singly."""
    layers = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())
    layers = layers.to(device, memory_format=torch.channels_last)
    maps = torch.randn(batch, 64, 32, 32, device=device).contiguous(
        memory_format=torch.channels_last
    )
    return seconds(lambda: layers(maps).sum().backward(), device)


def shapes(names: tuple[str, ...], side: int = 32) -> list[Shape]:
    """The distinct convolutions of these networks."""
    found: dict[Shape, None] = {}

    def see(conv: nn.Conv2d, inputs: tuple[torch.Tensor]) -> None:
        sizes = conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0]
        found[Shape(*sizes, conv.groups, inputs[0].shape[2])] = None

    for name in names:
        with torch.device("meta"):
            network = models.build(name, classes=100)
            for module in network.modules():
                if isinstance(module, nn.Conv2d):
                    module.register_forward_pre_hook(see)
            network(torch.empty(2, 3, side, side))
    return list(found)


def convolution(shape: Shape, batch: int, dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of one forward pass."""
    on = {"dtype": dtype, "device": device}
    maps = torch.randn(batch, shape.inputs, shape.side, shape.side, **on)
    size = shape.size
    weight = torch.randn(shape.width, shape.inputs // shape.groups, size, size, **on)
    maps, weight = (x.contiguous(memory_format=torch.channels_last) for x in (maps, weight))

    def call() -> None:
        F.conv2d(maps, weight, None, shape.stride, size // 2, 1, shape.groups)

    return shape.flops(batch) / seconds(call, device)


def answered(network: nn.Module, batch: int, device: torch.device, side: int = 32) -> float:
    """Images a second that a teacher answers, so many at once."""
    images = torch.randn(batch, 3, side, side, device=device).contiguous(
        memory_format=torch.channels_last
    )
    with torch.no_grad():
        return batch / seconds(lambda: network(images), device)


def contrast(device: torch.device, batch: int, images: int, negatives: int) -> dict[str, float]:
    """Seconds of CRD's draw, and of its scores by one product and by gathered vectors."""
    rows = torch.randn(batch, 128, device=device)
    memory = torch.randn(images, 128, device=device)
    drawn = torch.randint(images, (batch, 1 + negatives), device=device)

    def draw() -> None:
        torch.rand(batch, images, device=device).topk(negatives, sorted=False)

    def product() -> None:
        (rows @ memory.T).gather(1, drawn)

    def gathered() -> None:
        torch.bmm(memory[drawn], rows[:, :, None])

    return {call.__name__: seconds(call, device) for call in (draw, product, gathered)}
