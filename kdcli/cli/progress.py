"""What a person sees of a run: bars on a terminal, one plain line an epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kdcli.cli.screen import console, duration
from kdcli.engine.train import Report

SETTLED = 5.0  # seconds of training after which the whole run's length is guessed
DAY = 86400.0


class Screen(Report):
    """Draws epochs, steps, speed, time left, terms and accuracy; use it as a context."""

    def __init__(self, title: str):
        self.title, self.best, self.last = title, 0.0, None
        self.live = console.is_terminal and not console.quiet
        self.bars = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not self.live,
            transient=True,
        )
        self.guessed = False

    def expect(self, epochs: int, steps: int, batch: int) -> None:
        """How long the run is."""
        self.epochs, self.steps, self.batch = epochs, steps, batch
        self.by_epoch = self.bars.add_task(escape(self.title), total=epochs, text="")
        self.by_step = self.bars.add_task("  step", total=steps, text="")
        self.mark: tuple[float, int] | None = None

    def __enter__(self) -> Screen:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def note(self, text: str) -> None:
        console.print(f"[yellow]{escape(text)}[/yellow]")

    def step(self, epoch: int, step: int, means: Mapping[str, float]) -> None:
        now, done = time.monotonic(), epoch * self.steps + step
        if self.mark is None or done < self.mark[1]:
            self.mark = (now, done)
        seconds, taken = now - self.mark[0], done - self.mark[1]
        speed = taken / seconds if seconds > 0 else 0.0
        left = (self.epochs * self.steps - done) / speed if speed else 0.0
        terms = "  ".join(f"{name} {value:.3f}" for name, value in means.items() if name != "top1")
        accuracy = f"train {means['top1']:.1f} %" + (
            f"  test {self.last:.2f} % (best {self.best:.2f})" if self.last is not None else ""
        )
        rate = f"{speed * self.batch:,.0f} images/s  {duration(left)} left" if speed else ""
        self.bars.update(self.by_epoch, completed=epoch, text=f"{rate}  {accuracy}")
        self.bars.update(self.by_step, completed=step, text=terms)
        if not self.guessed and seconds > SETTLED:
            self.guessed = True
            self._guess(self.epochs * self.steps / speed)

    def _guess(self, total: float) -> None:
        text = f"About {duration(total)} for the whole run of {self.epochs} epochs."
        if total > DAY:
            self.note(
                f"{text} That is days: a GPU (--device cuda), fewer --epochs or a smaller network "
                "help. Ctrl-C stops it, --resume goes on."
            )
        else:
            console.print(f"[dim]{text}[/dim]")

    def epoch(self, record: Mapping[str, Any]) -> None:
        number, test, train = record["epoch"], record["test"], record["train"]
        self.last, self.best = test["top1"], max(self.best, test["top1"])
        self.mark = None if self.mark is None else (time.monotonic(), number * self.steps)
        self.bars.update(self.by_epoch, completed=number)
        self.bars.update(self.by_step, completed=0)
        speed = self.steps * self.batch / max(record["seconds"], 1e-9)
        terms = "  ".join(f"{k} {v:.3f}" for k, v in train.items() if k not in ("top1", "loss"))
        if not self.live or number == self.epochs or number % max(1, self.epochs // 20) == 0:
            console.print(
                f"epoch {number}/{self.epochs}  lr {record['lr']:g}  {terms}  "
                f"train {train['top1']:.2f} %  test {test['top1']:.2f} %  best {self.best:.2f} %  "
                f"{speed:,.0f} images/s"
            )
