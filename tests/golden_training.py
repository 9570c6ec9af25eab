"""Compare training with recorded numbers.

The folder holds `schedules.json` (learning rates and warm-ups by epoch), `optim/dot.safetensors`
(steps of an optimizer on given gradients) and `trajectory/` (steps of distillation, end to end).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from kdcli.engine import update
from kdcli.engine.phases import Phase
from kdcli.losses.ctkd import reversal
from tests.conformance_row import Row
from tests.golden_record import RELATIVE, Found, compare, error_of, read
from tests.golden_trajectory import trajectory


def check(directory: Path) -> Iterator[Row]:
    """One row an array or a schedule."""
    path = directory / "schedules.json"
    if path.is_file():
        yield from schedules(json.loads(path.read_text(encoding="utf-8")))
    for path in sorted((directory / "optim").glob("*.safetensors")):
        yield from optimizer(path)
    for path in sorted((directory / "trajectory").glob("*.safetensors")):
        yield from trajectory(read(path))


def schedules(recorded: Mapping[str, list[dict]]) -> Iterator[Row]:
    """Rates and warm-up factors; entry i of a list is that of the epoch i, from 0."""
    for plan in recorded.get("schedules", []):
        phase = Phase("main", plan["epochs"], {}, plan["base_lr"], tuple(plan["milestones"]))
        rates = [phase.rate(epoch) for epoch in range(plan["epochs"])]
        yield series(f"{plan['name']}: lr", rates, plan["lr"])
    for plan in recorded.get("loss_warmup", []):
        phase = Phase("main", 0, {"term": 1.0}, 0.0, warmup={"term": plan["warmup"]})
        factors = [phase.weigh(epoch)["term"] for epoch in range(len(plan["factor"]))]
        yield series(f"{plan['name']}: factor", factors, plan["factor"])
    for plan in recorded.get("ctkd_lambda", []):
        epochs = torch.arange(len(plan["cosine"]), dtype=torch.float64)
        factors = reversal(epochs, plan["decay_loops"]).tolist()
        yield series(f"{plan['name']}: cosine", factors, plan["cosine"])


def series(title: str, found: list[float], expected: list[float]) -> Row:
    """A row for a list of numbers, each compared by its own size."""
    mine, wanted = (torch.tensor(values, dtype=torch.float64) for values in (found, expected))
    error, tolerance = error_of(Found(mine, wanted.abs()), wanted), RELATIVE["float64"]
    return Row(f"schedules: {title}", error, tolerance, error <= tolerance, "")


def optimizer(path: Path) -> Iterator[Row]:
    """Parameters after each step of an optimizer that is fed recorded gradients."""
    record = read(path)
    if path.stem not in update.UPDATES:
        yield Row(record.title, float("inf"), 0.0, False, "no such optimizer")
        return
    names, meta, arrays = record.listed("parameters"), record.meta, record.arrays
    parameters = {name: nn.Parameter(arrays[f"param.0.{name}"].clone()) for name in names}
    stated = {"momentum": "base_momentum", "delta": "delta", "weight_decay": "weight_decay"}
    settings = {own: float(meta[key]) for own, key in stated.items()}
    made = update.build(parameters, path.stem, **settings)
    rate = torch.tensor(float(meta["lr"]), dtype=record.dtype)
    for step in range(int(meta["steps"])):
        # A term that is linear in the parameters has the gradient that is put into it.
        made.step(
            {
                "ce": linear(parameters, arrays, f"grad_task.{step}."),
                "kd": linear(parameters, arrays, f"grad_kd.{step}."),
            },
            rate,
        )
        found = {f"param.{step + 1}.{name}": Found(p) for name, p in parameters.items()}
        yield from compare(record, "", found, {})


def linear(parameters: Mapping[str, Tensor], arrays: Mapping[str, Tensor], head: str) -> Tensor:
    """Sum over parameters of <parameter, its recorded gradient>, for those that have one."""
    pairs = [(p, arrays[head + name]) for name, p in parameters.items() if head + name in arrays]
    return torch.stack([(parameter * gradient).sum() for parameter, gradient in pairs]).sum()
