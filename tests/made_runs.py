"""Finished runs that took no training: a teacher, a student of it, and the student alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from kdcli import data, models, recipes
from kdcli.engine.evaluate import evaluate
from kdcli.files import digest
from kdcli.models import weights
from kdcli.runs import Run


def make(folder: Path, name: str, model: str, dataset: str, teacher: Run | None = None) -> Run:
    """A run of `model`, its head fitted to the training images in one step; kd under `teacher`."""
    loaded = data.load(dataset, folder)
    run = Run(folder / name)
    network = _fitted(model, loaded, seed=len(name))
    recipe = recipes.load("kd" if teacher else "ce" if model == "tiny8" else "teach")
    recipe = json.loads(json.dumps(recipe.to_dict())) | {"epochs": 3}
    kind = "teach" if recipe["name"] == "teach" else "distill"
    told: dict[str, Any] = {"kind": kind, "student": model, "dataset": dataset, "recipe": recipe}
    if teacher:
        told["teacher"] = {"model": "tiny16", "path": str(teacher.model), "run": teacher.name,
                           "blake2b": digest(teacher.model), "dataset": dataset}  # fmt: skip
    machine = {"device": "cpu", "device_name": "any", "threads": 1, "torch": "2", "python": "3"}
    run.begin({**told, "seed": 0, "kdcli": "0.1.0", "machine": {"threads": 1}})
    weights.save(network, run.model, {"mean": loaded.mean, "std": loaded.std})
    scores = evaluate(network, loaded.test, loaded.mean, loaded.std, "cpu")
    run.write_log([_epoch(n, scores.top1, bool(teacher)) for n in (1, 2, 3)])
    run.finish({
        "top1": scores.top1, "top5": scores.top5, "loss": scores.loss, "epochs": 3,
        "best": {"top1": scores.top1, "epoch": 3}, "train_seconds": 6.0, "wall_seconds": 7.0,
        "machine": machine,
    })  # fmt: skip
    return run


def _epoch(number: int, top1: float, taught: bool) -> dict[str, Any]:
    terms = {"ce": 2 / number} | ({"kd": 1 / number} if taught else {})
    return {
        "epoch": number,
        "phase": "main",
        "lr": 0.05,
        "train": {"loss": sum(terms.values()), **terms, "top1": 10.0 * number},
        "test": {"top1": top1 * number / 3, "top5": 90.0, "loss": 2 / number},
        "seconds": 2.0,
    }


def _fitted(model: str, loaded: data.Dataset, seed: int) -> torch.nn.Module:
    """Drawn weights, their norms settled on the images, and a head by least squares."""
    torch.manual_seed(seed)
    network = models.build(model, classes=len(loaded.classes)).train()
    images = (loaded.train.images.float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        for _ in range(30):
            network(images)
        pooled = network.eval().features(images).pooled
        wanted = torch.eye(len(loaded.classes))[loaded.train.labels]
        network.head.weight.copy_(torch.linalg.lstsq(pooled, wanted).solution.T * 4)
    return network


def store(folder: Path, dataset: str) -> tuple[Run, Run, Run]:
    """The teacher, its student and the undistilled student."""
    teacher = make(folder, "teacher", "tiny16", dataset)
    student = make(folder, "student", "tiny8", dataset, teacher)
    return teacher, student, make(folder, "alone", "tiny8", dataset)
