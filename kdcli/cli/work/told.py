"""What a run in a process of its own tells its parent; see kdcli/cli/work/worker.py."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.markup import escape

from kdcli.cli.show.screen import console
from kdcli.cli.work.jobs import RECORD
from kdcli.engine.report import Report


class Told(Report):
    """Writes a record a line to standard output, and draws nothing."""

    def __init__(self, title: str):
        self.title = title

    def expect(self, epochs: int, steps: int, batch: int) -> None:
        """How long the run is."""
        self._tell("expect", epochs, steps, batch)

    def __enter__(self) -> Told:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def note(self, text: str) -> None:
        console.print(f"[yellow]{escape(text)}[/yellow]")

    def step(self, epoch: int, step: int, means: Mapping[str, float]) -> None:
        self._tell("step", epoch, step, dict(means))

    def epoch(self, record: Mapping[str, Any]) -> None:
        self._tell("epoch", dict(record))

    def _tell(self, kind: str, *values: object) -> None:
        line = f"{RECORD}{json.dumps([kind, *values])}\n".encode()
        with contextlib.suppress(OSError):  # the parent is gone: the worker's watch sees to that
            os.write(1, line)
