"""What floors are computed from, measured here: `python -m kdcli.bench.constants [--device cuda]`.

Prints a line of JSON for each constant as soon as it is known: seconds of a graph's node and of an
operator launched singly, operations a second of the convolutions of a pair, images a second of a
teacher by batch and of graphs side by side, seconds of drawing and scoring CRD's negatives.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from kdcli import models, recipes
from kdcli.bench import kernels, stand_in
from kdcli.bench.ours import Setting, Untrained
from kdcli.bench.rates import Meter
from kdcli.engine.capture import Captured
from kdcli.engine.device import device_of
from kdcli.engine.speed import Speed, set_numerics

PAIR = ("resnet32x4", "resnet8x4")
CRD = (64, 50_000, 16_384)  # batch, images, negatives


def side_by_side(setting: Setting, count: int) -> float:
    """Images a second of `count` captured runs of a recipe, replayed on a stream each."""
    sessions = [Untrained(setting, Speed(bank="off", look_ahead=1)) for _ in range(count)]
    device, batch = sessions[0].device, setting.recipe.batch
    replays = []
    for session in sessions:
        trainer = session.ready()
        trainer.seconds_per_step(1, Captured.warm)
        replays.append((trainer, trainer.runner.replays[batch], torch.cuda.Stream(device)))

    def call() -> None:
        for _, replay, stream in replays:
            with torch.cuda.stream(stream):
                replay()

    return count * batch / kernels.seconds(call, device)


def measured(device: torch.device, dataset: str, data_dir: Path) -> Iterator[tuple[str, Any]]:
    """Every constant by its name, the quick ones first."""
    set_numerics(device, "tf32", deterministic=False)
    cuda = device.type == "cuda"
    meter = Meter(device)
    meter.measure()
    yield "rates", meter.rates._asdict()
    yield "operator", kernels.operator(device)
    yield "block", kernels.block(device)
    if cuda:
        yield "node", kernels.node(device)
    yield "contrast", kernels.contrast(device, *CRD)
    teacher = models.build(PAIR[0], classes=100).eval().to(device)
    teacher = teacher.to(memory_format=torch.channels_last)
    for batch in (64, 512, 1024, 2048, 4096) if cuda else (64,):
        yield f"teacher, {batch} at once", kernels.answered(teacher, batch, device)
    for dtype in (torch.float32, torch.bfloat16):
        for batch in (64, 1024) if cuda else (64,):
            how = batch, dtype, device
            rates = {str(tuple(s)): kernels.convolution(s, *how) for s in kernels.shapes(PAIR)}
            yield f"convolutions, {batch}, {dtype}", rates
    if cuda:
        data = stand_in.dataset(dataset, data_dir)
        setting = Setting(recipes.load("kd"), *PAIR, data, str(device))
        for count in (1, 2, 4, 8):
            yield f"graphs, {count} side by side", side_by_side(setting, count)


def main() -> None:
    """Print a line of JSON for each constant."""
    parser = argparse.ArgumentParser(prog="python -m kdcli.bench.constants", description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dataset", default="cifar100")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    options = parser.parse_args()
    for name, value in measured(device_of(options.device), options.dataset, options.data_dir):
        print(json.dumps({name: value}), flush=True)


if __name__ == "__main__":
    main()
