"""Compare a few steps of distillation, end to end, with recorded numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from kdcli import losses, models
from kdcli.contracts import Batch
from kdcli.engine import update
from kdcli.models.network import Network
from tests.conformance_row import Row
from tests.golden_fill import COUNTER, Fill, apply, fills
from tests.golden_record import Found, Record, checksums, compare, missed


def trajectory(record: Record) -> Iterator[Row]:
    """Losses of every step, sums over the parameters after it, the logits at both ends."""
    unknown = {record.meta[side] for side in ("student", "teacher")} - set(models.TABLE)
    if unknown:
        yield Row(record.title, float("inf"), 0.0, False, "no such model")
        return
    stated = json.loads(record.meta.get("float64_noise", "{}"))
    seen: set[str] = set()
    for fill in fills(record.meta):
        found = run(record, fill)
        noise = stated.get("hash" if fill.prefix else "sin", {})
        worst = max((noise.get(key, 0.0) for key in ("loss", "final_logits")), default=0.0)
        yield from compare(record, fill.prefix, found, dict.fromkeys(found, worst))
        seen |= {fill.prefix + name for name in found}
    yield from missed(record, [""], seen)


def run(record: Record, fill: Fill) -> dict[str, Found]:
    """Train as the file says; every recorded array by its name."""
    student, teacher = (build(record, side, fill) for side in ("student", "teacher"))
    parameters = dict(student.named_parameters())
    settings = {key: float(record.meta[key]) for key in ("momentum", "weight_decay")}
    optimizer = update.build(parameters, "sgd", **settings)
    rate = torch.tensor(float(record.meta["lr"]), dtype=record.dtype)
    terms = build_terms(record, teacher, fill)
    steps: list[dict[str, Tensor]] = []
    for number in range(int(record.meta["steps"])):
        weighted, told = forward(record, student, teacher, terms, batch_of(record, fill, number))
        optimizer.step(weighted, rate)
        flat = torch.cat([p.detach().flatten() for p in parameters.values()])
        steps.append(told | {"param_sum": flat.sum(), "param_sumsq": flat.square().sum()})
    told = {name: torch.stack([step[name] for step in steps]) for name in steps[0]}
    found = {name: Found(value) for name, value in told.items() if "logits" not in name}
    found["param_sum"] = Found(told["param_sum"], (flat.numel() * told["param_sumsq"]).sqrt())
    found["first_student_logits"] = Found(told["student_logits"][0])
    found["teacher_logits_0"] = Found(told["teacher_logits"][0])
    with torch.no_grad():
        found["final_logits"] = Found(student.eval()(batch_of(record, fill, 0).images))
    entries = [v for key, v in student.state_dict().items() if not key.endswith(COUNTER)]
    return found | checksums("final_state", entries)


def build(record: Record, side: str, fill: Fill) -> Network:
    """The student in training mode or the teacher in evaluation mode, filled."""
    network = models.build(record.meta[side], int(record.meta["num_classes"])).to(record.dtype)
    apply(fill, network)
    return network.train(side == "student")


def batch_of(record: Record, fill: Fill, step: int) -> Batch:
    """Images and labels of one step."""
    meta, rows = record.meta, torch.arange(int(record.meta["batch"]))
    images = fill.images(len(rows), step).to(record.dtype)
    labels = int(meta["target_mul"]) * rows + int(meta["target_step"]) * step
    zeros = torch.zeros_like(rows)
    return Batch(images, labels % int(meta["num_classes"]), rows, zeros, torch.tensor(0))


def build_terms(record: Record, teacher: Network, fill: Fill) -> dict[str, losses.Loss]:
    """Cross-entropy and KD, as a recipe would build them."""
    batch = batch_of(record, fill, 0)
    with torch.no_grad():
        shown = teacher.features(batch.images)
    classes = int(record.meta["num_classes"])
    context = losses.Context(shown, shown, None, classes, batch.labels, 1)
    temperature = float(record.meta["temperature"])
    return {
        "ce": losses.build("ce", context),
        "kd": losses.build("kd", context, temperature=temperature),
    }


def forward(
    record: Record,
    student: Network,
    teacher: Network,
    terms: Mapping[str, losses.Loss],
    batch: Batch,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weighted terms of one step, and what is recorded of it."""
    with torch.no_grad():
        taught = teacher.features(batch.images)
    shown = student.features(batch.images)
    values = {name: term(shown, taught, batch) for name, term in terms.items()}
    weights = {"ce": float(record.meta["gamma_ce"]), "kd": float(record.meta["alpha_kd"])}
    weighted = {name: weights[name] * value for name, value in values.items()}
    told = {f"loss_{name}": value.detach() for name, value in values.items()}
    told["loss"] = sum(value.detach() for value in weighted.values())
    told["student_logits"], told["teacher_logits"] = shown.logits.detach(), taught.logits
    return weighted, told
