"""kdcli's own loops as variants, and the parts it lends to the textbook loop.

Nothing else in this folder knows `Session` and `Trainer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kdcli.bench import stand_in
from kdcli.bench.literal_crd import LiteralCRD
from kdcli.bench.textbook import Parts
from kdcli.bench.timing import Variant
from kdcli.bench.work import Work, count
from kdcli.data import Dataset
from kdcli.engine import capture, update
from kdcli.engine.capture import Captured, Eager
from kdcli.engine.session import Session, device_of
from kdcli.engine.train import Report, Trainer
from kdcli.losses.crd import CRD
from kdcli.models.network import Network
from kdcli.recipes import Recipe


@dataclass(frozen=True)
class Setting:
    """What is timed."""

    recipe: Recipe
    teacher: str  # a model's name; empty: the recipe has none
    student: str
    dataset: Dataset
    device: str


class Untrained(Session):
    """A session over data that is already read and a teacher of random weights."""

    def __init__(self, setting: Setting):
        self.given = setting.dataset
        told = {"model": setting.teacher, "path": ""} if setting.teacher else None
        config = {
            "kind": "distill",
            "student": setting.student,
            "teacher": told,
            "dataset": setting.dataset.name,
            "recipe": setting.recipe.to_dict(),
            "seed": 0,
        }
        super().__init__(config, Path(), setting.device, Report())

    def _read_dataset(self, data_dir: Path) -> Dataset:
        return self.given

    def _read_teacher(self, told: Mapping[str, Any], classes: int) -> Network:
        known = self.given
        made = stand_in.teacher(told["model"], classes, known.train, known.mean, known.std)
        return self._place(made)

    def ready(self, runner: type[Eager] | type[Captured]) -> Trainer:
        """The loop, standing at the first epoch of the recipe's main phase."""
        trainer = self.trainer(runner=runner)
        trainer.epoch = sum(phase.epochs for phase in self.phases()[:-1])
        return trainer


def eager(session: Untrained) -> Variant:
    """The loop as it runs on any device."""
    return Variant(
        "kdcli",
        "data on the device, no word to the host inside an epoch, one fused optimizer",
        session.ready(Eager).seconds_per_step,
    )


def captured(session: Untrained) -> Variant:
    """The same steps as one CUDA graph."""
    return Variant(
        "kdcli, captured",
        "the same step, launched as one CUDA graph",
        session.ready(Captured).seconds_per_step,
        warm=capture.WARM + 1,
    )


def variants(setting: Setting) -> list[Variant]:
    """Every way in which kdcli can train this recipe on this device; the plain one first."""
    made = [eager(Untrained(setting))]
    if device_of(setting.device).type == "cuda":
        session = Untrained(setting)
        if all(loss.capturable for loss in session.objective.losses.values()):
            made.append(captured(session))
    return made


def step_work(variant: Variant) -> Work:
    """What one step does, counted while a plain variant trains it."""
    return count(lambda: variant.seconds_per_step(1, 0))


def teacher_work(setting: Setting) -> Work:
    """The teacher's part of a step."""
    if not setting.teacher:
        return Work(0, 0)
    session = Untrained(setting)
    batch = next(session.loader.batches(0))
    return count(lambda: session.objective.teacher.features(batch))


def parts(setting: Setting) -> Parts:
    """Student, teacher and losses for the textbook loop: contiguous, CRD in its literal form."""
    session = Untrained(setting)
    phase, made = session.phases()[-1], session.objective
    made.begin(phase.weights, main=True)
    literal = {name: LiteralCRD(loss) for name, loss in made.losses.items() if type(loss) is CRD}
    weights = phase.weigh(0)
    losses = {name: literal.get(name, made.losses[name]) for name in weights}
    named = {
        name: parameter
        for name, parameter in made.named_parameters()
        if parameter.requires_grad and not phase.frozen(name)
    }
    modules = [module for name, module in made.named_modules() if name and phase.frozen(name)]
    settings = session.recipe.optimizer
    plain = settings["name"] == "sgd"
    for network in (session.student, *session.teachers):
        network.to(memory_format=torch.contiguous_format)
    return Parts(
        student=session.student,
        teacher=session.teachers[0] if session.teachers else None,
        losses={name: loss.to(session.device) for name, loss in losses.items()},
        weights=weights,
        trained=list(named.values()),
        frozen=modules,
        lr=phase.rate(0),
        optimizer=settings,
        update=None if plain else update.build(named, **settings),
        views=made.views,
    )
