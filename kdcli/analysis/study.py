"""What figures are drawn from: finished runs on one dataset, their answers and their teachers'."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import torch

from kdcli.analysis.answers import Answers, answers, dataset_of
from kdcli.analysis.compare import baseline
from kdcli.analysis.groups import Group
from kdcli.analysis.naming import names
from kdcli.analysis.shipped import image_size
from kdcli.analysis.teachers import Teacher, Teachers
from kdcli.data import Dataset
from kdcli.ensembles import members
from kdcli.errors import KdcliError
from kdcli.export.provenance import shareable
from kdcli.models import weights
from kdcli.models.network import Network
from kdcli.runs import Run, all_runs


@dataclass(frozen=True)
class Subject:
    """A run, what it answers, and what it was distilled under."""

    name: str  # short, and unique in its study
    run: Run
    answers: Answers
    teacher: Teacher | None
    why_not: str  # a sentence: why there is no teacher here; empty if there is
    alone: Answers | None  # of the same student trained without a teacher

    def network(self) -> Network:
        """The run's network, read from its file."""
        return weights.read(self.run.model, model=self.run.config["student"])[0]


@dataclass(frozen=True)
class Study:
    """Runs on one dataset that are looked at together."""

    subjects: tuple[Subject, ...]
    dataset: Dataset
    device: torch.device

    @property
    def place(self) -> str:
        """The dataset's name; of somebody's own images, no more than the folder's."""
        return shareable({"dataset": self.dataset.name})["dataset"]

    @property
    def distilled(self) -> tuple[Subject, ...]:
        """Those whose teacher is at hand."""
        return tuple(subject for subject in self.subjects if subject.teacher)

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """Each teacher once, in the order of the runs."""
        return tuple({s.teacher.files: s.teacher for s in self.distilled}.values())

    def everyone(self) -> dict[str, Answers]:
        """The answers of every network once, teachers first, by the name that figures show."""
        shown = {f"{teacher.name} (teacher)": teacher.answers for teacher in self.teachers}
        single = [teacher.files[0] for teacher in self.teachers if len(teacher.files) == 1]
        taken = {path.resolve() for path in single}
        rest = [s for s in self.subjects if s.run.model.resolve() not in taken]
        return shown | {subject.name: subject.answers for subject in rest}

    def placeless(self, text: str) -> str:
        """`text` without the folders of this machine in which runs, teachers and images are."""
        runs = [subject.run for subject in self.subjects]
        files = [self.dataset.source, *(run.path for run in runs)]
        files += [told["path"] for run in runs for told in members(run.config)]
        places = {PurePath(file).parent for file in files if PurePath(file).is_absolute()}
        for place in sorted(map(str, places), key=len, reverse=True):
            text = text.replace(place.rstrip(os.sep) + os.sep, "")
        return text


def study(
    runs: Sequence[Run],
    data_dir: Path,
    device: torch.device,
    report: Callable[[str], None] = lambda text: None,
) -> Study:
    """Read the dataset, and let every run and teacher answer it; `report` is told whose turn it is.

    KdcliError when a run is unfinished, they are of several datasets or sizes of images, or the
    dataset is missing.
    """
    for run in runs:
        if not run.finished:
            raise KdcliError(f"the run {run.path} is unfinished; kdcli resume {run.name} ends it.")
        if _images(run) != _images(runs[0]):
            raise KdcliError(
                f"{runs[0].name} is on {_images(runs[0])}, {run.name} on {_images(run)}; only runs "
                "on the same images are looked at together."
            )
    dataset = dataset_of(runs[0], data_dir)
    teachers = Teachers(dataset, data_dir, device)
    subjects = []
    for name, run in zip(names(runs), runs, strict=True):
        report(f"answers of {name}")
        own = answers(run, data_dir, device, dataset)
        alone = alone_of(run, runs)
        teacher, why_not = _teacher(name, run, teachers)
        plain = answers(alone, data_dir, device, dataset) if alone else None
        subjects.append(Subject(name, run, own, teacher, why_not, plain))
    return Study(tuple(subjects), dataset, device)


def _images(run: Run) -> str:
    """On what a run is: its dataset, and the size where it is another."""
    size = image_size(run.config)
    return run.config["dataset"] + (f" at {size}x{size}" if size else "")


def _teacher(name: str, run: Run, teachers: Teachers) -> tuple[Teacher | None, str]:
    if not run.config.get("teacher"):
        return None, f"{name} has no teacher."
    try:
        return teachers.of(run), ""
    except KdcliError as error:
        return None, f"{name}: {error}"


def alone_of(run: Run, others: Sequence[Run] = ()) -> Run | None:
    """The same student without a teacher: one of `others`, else beside `run`; of its seed first."""
    if not run.config.get("teacher"):
        return None
    pools = (others, reversed(all_runs(run.path.parent)))
    for pool in pools:
        fits = [Group((other,)) for other in pool if _comparable(other)]
        fits.sort(key=lambda group: group.config["seed"] != run.config["seed"])
        if found := baseline(Group((run,)), fits):
            return found.runs[0]
    return None


def _comparable(run: Run) -> bool:
    try:
        return run.finished and {"kind", "recipe", "seed"} <= run.config.keys()
    except KdcliError:  # a damaged run is no baseline, and hides no other
        return False
