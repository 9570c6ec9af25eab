"""The difference of two groups of runs, judged by their answers to the same test images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from kdcli import data
from kdcli.analysis.answers import answers, dataset_of
from kdcli.analysis.groups import Group
from kdcli.analysis.paired import Difference, difference
from kdcli.analysis.shipped import image_size
from kdcli.data import Dataset
from kdcli.errors import KdcliError
from kdcli.runs import Run


class Rights:
    """Which test images each run gets right: every dataset read once, every run asked once.

    Nothing is downloaded. What cannot be judged is None, and `notes` has a sentence for it.
    """

    def __init__(
        self,
        data_dir: Path,
        device: torch.device | str,
        resamples: int,
        tell: Callable[[str], None],
    ):
        self.data_dir, self.device, self.resamples, self.tell = data_dir, device, resamples, tell
        self.datasets: dict[tuple[str, int | None], Dataset | None] = {}  # by name and size
        self.rights: dict[Path, Tensor | None] = {}
        self.notes: list[str] = []

    def __call__(self, ours: Group, theirs: Group) -> Difference | None:
        """The difference with its interval; None where an answer is missing."""
        if not self.resamples:
            return None
        rights = [[self._of(run) for run in group.runs] for group in (ours, theirs)]
        if any(right is None for side in rights for right in side):
            return None
        return difference(*rights, self.resamples)

    def _of(self, run: Run) -> Tensor | None:
        """[N] bool of one run."""
        if run.path not in self.rights:
            self.rights[run.path] = None
            dataset = self._dataset(run)
            if dataset is not None:
                self.tell(f"{run.name} on {len(dataset.test.labels):,} test images")
                try:
                    found = answers(run, self.data_dir, self.device, dataset)
                    self.rights[run.path] = found.right
                except KdcliError as error:
                    self.notes.append(f"{run.name} has no interval: {error}")
        return self.rights[run.path]

    def _dataset(self, run: Run) -> Dataset | None:
        name = run.config["dataset"]
        key = (name, image_size(run.config))
        if key not in self.datasets:
            self.datasets[key] = None
            try:
                status = data.inspect(name, self.data_dir)
                if status.ready:
                    self.tell(f"reading {name}")
                    self.datasets[key] = dataset_of(run, self.data_dir)
                else:
                    self.notes.append(f"no intervals on {name}: it is not in {self.data_dir}.")
            except KdcliError as error:
                self.notes.append(f"no intervals on {name}: {error}")
        return self.datasets[key]
