"""The textbook loop and kdcli's, in one run, side by side."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import profile

from kdcli.bench import memory, ours
from kdcli.bench.literal_crd import LiteralCRD, Negatives
from kdcli.bench.ours import Setting
from kdcli.bench.pillow import PillowDataset
from kdcli.bench.rates import Meter, Rates
from kdcli.bench.textbook import AHEAD, Textbook
from kdcli.bench.timing import Timed, Variant, steps_for
from kdcli.bench.work import Work
from kdcli.engine.device import device_of

SHARED = Path("/dev/shm")  # where worker processes leave their batches
Tell = Callable[[str, float], None]  # what is done now, the share of all that is behind it


@dataclass(frozen=True)
class Comparison:
    """What was measured."""

    setting: Setting
    timed: list[Timed]  # the textbook loop first
    rates: Rates
    step: Work  # of kdcli's plain step
    teacher: Work  # its part of it
    steps: int  # of the published main phase
    prepared: dict[str, dict[str, float]]  # by variant: what was computed before its steps

    def floor(self, one: Timed) -> float:
        """Seconds that the variant's step takes at the rates measured here."""
        work = self.step if one.variant.teacher_runs else self.step.without(self.teacher)
        return work.floor(self.rates)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each variant, in seconds, bytes and images a second."""
        batch, slowest = self.setting.recipe.batch, self.timed[0].median
        return [
            {
                "name": one.variant.name,
                "what": one.variant.what,
                "images_per_second": batch / one.median,
                "seconds_per_step": one.median,
                "fastest": min(one.seconds),
                "slowest": max(one.seconds),
                "rounds": one.seconds,
                "steps_timed": one.steps * len(one.seconds),
                "step_memory_bytes": one.memory,
                "published_run_seconds": one.median * self.steps,
                "speed_up": slowest / one.median,
                "floor_seconds": self.floor(one),
                "share_of_floor": self.floor(one) / one.median,
                **self.prepared.get(one.variant.name, {}),
            }
            for one in self.timed
        ]


def textbook(setting: Setting, workers: int) -> Variant:
    """The loop of the public toolkits over the same recipe; fewer workers where they cannot be."""
    parts = ours.parts(setting)
    literal = [loss for loss in parts.losses.values() if isinstance(loss, LiteralCRD)]
    labels = setting.dataset.train.labels.numpy()
    contrast = Negatives(labels, literal[0].negatives) if literal else None
    image = 4 * 3 * setting.dataset.size**2 * parts.views
    row = image + 8 * (1 + contrast.count if contrast else 0)
    workers = min(workers, room(row * setting.recipe.batch))
    pictures = PillowDataset(setting.dataset, parts.views, contrast)
    loop = Textbook(parts, pictures, setting.recipe.batch, workers, device_of(setting.device))
    kind = "processes" if workers != 1 else "process"
    return Variant(
        "textbook",
        f"PIL in {workers} worker {kind}, .item() every step, one optimizer call a tensor"
        + (", CRD with gathered vectors" if literal else "")
        + (", the second view only cropped and flipped" if parts.views > 1 else ""),
        loop.seconds_per_step,
        close=loop.close,
    )


def room(size: int) -> int:
    """Workers whose batches of `size` bytes fit into the memory that processes share.

    A container may have 64 MB of it; a worker that finds it full is killed.
    """
    if not SHARED.is_dir():
        return sys.maxsize
    return shutil.disk_usage(SHARED).free // (size * (AHEAD + 1))  # one is in the loop's hands


def start(variant: Variant, steps: int | None, most: int, device: torch.device) -> Timed:
    """The first steps of a variant: what they hold, and how many of them fill a turn."""
    if variant.prepare:
        variant.prepare(variant.warm + 1)
    held = memory.peak(lambda: variant.seconds_per_step(1, variant.warm), device)
    first = variant.seconds_per_step(1, 0)
    return Timed(
        variant, held, min(steps, most) if steps else steps_for(first, most, variant.period)
    )


def compare(
    setting: Setting,
    rounds: int,
    steps: int | None,
    workers: int,
    tell: Tell = lambda text, share: None,
    trace: Path | None = None,
) -> Comparison:
    """Time every variant in turns; `steps` a turn, or as many as fill a few seconds.

    `trace`: where to write a Chrome trace of one step of the fastest.
    """
    device = device_of(setting.device)
    with ExitStack() as stack:
        tell("building", 0.0)
        variants = [textbook(setting, workers), *ours.variants(setting)]
        for variant in variants:
            stack.callback(variant.close or (lambda: None))
        most = max(1, len(setting.dataset.train.labels) // setting.recipe.batch - 2)
        timed, prepared = [], {}
        total = len(variants) * (1 + rounds)
        for number, variant in enumerate(variants):
            tell(f"first steps: {variant.name}", number / total)
            timed.append(start(variant, steps, most, device))
            if variant.prepare:
                prepared[variant.name] = variant.prepare(timed[-1].steps + 1)
        step, teacher = ours.step_work(variants[1]), ours.teacher_work(setting)
        meter = Meter(device)

        for number in range(rounds):
            meter.measure()
            for place, one in enumerate(timed, (1 + number) * len(timed)):
                tell(f"round {number + 1} of {rounds}: {one.variant.name}", place / total)
                one.seconds.append(one.variant.seconds_per_step(one.steps, 1))
        if trace:
            fastest = min(timed, key=lambda one: one.median).variant
            with profile() as seen:
                fastest.seconds_per_step(1, 0)
            seen.export_chrome_trace(str(trace))
    recipe = setting.recipe
    published = recipe.epochs * -(-len(setting.dataset.train.labels) // recipe.batch)
    return Comparison(setting, timed, meter.rates, step, teacher, published, prepared)
