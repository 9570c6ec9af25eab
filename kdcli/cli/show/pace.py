"""How fast a run goes, how long it has left, and an epoch of it in one line; needs no torch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any


class Pace:
    """The speed of a run of `epochs` x `steps` steps of `batch` images, from what it reports."""

    def __init__(self, epochs: int, steps: int, batch: int):
        self.epochs, self.steps, self.batch = epochs, steps, batch
        self.done = 0  # steps since the run began, a resume included
        self.speed = 0.0  # steps a second in this epoch, evaluation excluded; 0: not yet known
        self.mark: tuple[float, int] | None = None  # when it was seen at which step

    def step(self, epoch: int, step: int) -> float:
        """`step` steps of `epoch` (from 0) are done; seconds for which they have been watched."""
        now, self.done = time.monotonic(), epoch * self.steps + step
        if self.mark is None or self.done < self.mark[1]:
            self.mark = (now, self.done)
        seconds, taken = now - self.mark[0], self.done - self.mark[1]
        if taken and seconds > 0:
            self.speed = taken / seconds
        return seconds

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch is over; `record` is its line of the log."""
        self.done = record["epoch"] * self.steps
        self.speed = self.steps / max(record["seconds"], 1e-9)
        self.mark = (time.monotonic(), self.done)

    @property
    def total(self) -> float:
        """Seconds of the whole run at this speed; 0 while it is not known."""
        return self.epochs * self.steps / self.speed if self.speed else 0.0

    @property
    def left(self) -> float:
        """Seconds to the end at this speed; 0 while it is not known."""
        return (self.epochs * self.steps - self.done) / self.speed if self.speed else 0.0

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.speed * self.batch

    def line(self, record: Mapping[str, Any], best: float) -> str:
        """An epoch as a line of plain words; `best` is the best top-1 on the test images so far."""
        train = record["train"]
        terms = "  ".join(f"{k} {v:.3f}" for k, v in train.items() if k not in ("top1", "loss"))
        return (
            f"epoch {record['epoch']}/{self.epochs}  lr {record['lr']:g}  {terms}  "
            f"train {train['top1']:.2f} %  test {record['test']['top1']:.2f} %  "
            f"best {best:.2f} %  {self.steps * self.batch / max(record['seconds'], 1e-9):,.0f} "
            "images/s"
        )
