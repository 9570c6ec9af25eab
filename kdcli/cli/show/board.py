"""What a person sees of several runs: one live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from subprocess import Popen
from types import TracebackType
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from kdcli.cli.show.pace import Pace
from kdcli.cli.show.screen import console, duration, table
from kdcli.cli.work.training import Cell
from kdcli.errors import KdcliError
from kdcli.runs import Run

WAITING, RUNNING, DONE, FAILED, STOPPING, HALTED = (
    "waiting", "running", "done", "failed", "stopping", "stopped",
)  # fmt: skip
FIRST = (RUNNING, STOPPING, FAILED, WAITING, HALTED, DONE)  # where not all fit on the terminal
COLOURS = {RUNNING: "bold", DONE: "green", FAILED: "red", STOPPING: "yellow", HALTED: "yellow"}
LEAST = ("step", "images/s", "train", "best", "epoch")  # left out in turn on a narrow terminal
AROUND = 6  # lines of the terminal that are not runs: title, header, sum, and room for a message


@dataclass(eq=False)
class Job:
    """One run, what it last told, and its process while it has one."""

    cell: Cell
    run: Run
    state: str = WAITING
    pace: Pace | None = None
    means: Mapping[str, float] = field(default_factory=dict)  # of the epoch it is in
    log: list[dict[str, Any]] = field(default_factory=list)  # a record an epoch
    process: Popen | None = None
    silent: bool = False  # its output has ended
    said: str = ""  # its own last sentence of what went wrong
    error: KdcliError | None = None

    def take(self, kind: str, *values: Any) -> None:
        """A record of the process, as `kdcli/cli/work/told.py` writes them."""
        if kind == "expect":
            self.pace = Pace(*values)
        elif kind == "step":
            epoch, step, self.means = values
            self.pace.step(epoch, step)
        elif kind == "epoch":
            (record,) = values
            self.pace.epoch(record)
            self.log = [told for told in self.log if told["epoch"] < record["epoch"]] + [record]
            self.means = record["train"]

    @property
    def best(self) -> float | None:
        """Best top-1 on the test images so far, in percent."""
        return max((record["test"]["top1"] for record in self.log), default=None)


class Board:
    """Draws all of `jobs`; use it as a context."""

    def __init__(self, jobs: list[Job]):
        self.jobs = jobs
        words = zip(*(job.run.name.split("-")[:-1] for job in jobs), strict=False)
        same = itertools.takewhile(lambda column: len(set(column)) == 1, words)
        self.common = "-".join(column[0] for column in same)
        self.live = console.is_terminal and not console.quiet
        self.view = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Board:
        if self.live:
            self.view.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.view.stop()

    def draw(self) -> None:
        """Show how things stand."""
        if self.live:
            self.view.update(self._shown(), refresh=True)

    def say(self, job: Job, words: str) -> None:
        """Words of a run for people."""
        console.print(f"[dim]{escape(job.run.name)}: {escape(words)}[/dim]")

    def epoch(self, job: Job) -> None:
        """An epoch of a run is over; where there is no table, it is a line."""
        if not self.live:
            line = job.pace.line(job.log[-1], job.best)
            console.print(f"{escape(job.run.name)}: {escape(line)}")

    def failed(self, job: Job) -> None:
        """A run has failed; the others go on."""
        console.print(f"[red]{escape(job.run.name)}: {escape(str(job.error))}[/red]")

    def _shown(self) -> RenderableType:
        room = max(1, console.height - AROUND)
        shown = self.jobs
        if len(shown) > room:
            chosen = sorted(shown, key=lambda job: FIRST.index(job.state))[:room]
            shown = [job for job in self.jobs if job in chosen]
        rows, unbounded = [self._row(job) for job in shown], console.options.update(width=10_000)
        for left_out in range(len(LEAST) + 1):
            columns = [name for name in rows[0] if name not in LEAST[:left_out]]
            made = table(escape(self.common), columns, [[row[c] for c in columns] for row in rows])
            if console.measure(made, options=unbounded).maximum <= console.width:
                break
        return Group(made, Text(self._sum(), style="dim"))

    def _row(self, job: Job) -> dict[str, str]:
        pace, colour = job.pace, COLOURS.get(job.state, "dim")
        state = "starting" if job.state == RUNNING and not pace else job.state
        at = job.log[-1]["epoch"] if job.log else 0
        row = {
            "": escape(job.run.name.removeprefix(f"{self.common}-")),
            "state": f"[{colour}]{state}[/{colour}]",
            "epoch": f"{at}/{pace.epochs}" if pace else str(at) if at else "",
        }
        if job.state == RUNNING and pace and pace.speed:
            row["step"] = f"{(pace.done - at * pace.steps) / pace.steps:4.0%}"
            row["images/s"] = f"{pace.rate:8,.0f}"
            row["left"] = duration(pace.left)
        else:
            row |= {"step": "", "images/s": "", "left": ""}
        row["train"] = f"{job.means['top1']:.1f}" if job.means else ""
        row["test"] = f"{job.log[-1]['test']['top1']:.2f}" if job.log else ""
        row["best"] = f"{job.best:.2f}" if job.log else ""
        return row

    def _sum(self) -> str:
        """How many runs are in which state, and when all are likely to be over."""
        counts = Counter(job.state for job in self.jobs)
        text = ", ".join(f"{counts[state]} {state}" for state in FIRST if counts[state])
        at_work = [job.pace for job in self.jobs if job.state == RUNNING]
        if not at_work or not all(pace and pace.speed for pace in at_work):
            return text
        typical = sum(pace.total for pace in at_work) / len(at_work)
        left = sum(pace.left for pace in at_work) + counts[WAITING] * typical
        return f"{text}; about {duration(left / len(at_work))} left for all"
