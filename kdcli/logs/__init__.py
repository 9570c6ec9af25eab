"""Where else the log of a run goes: one file of this folder a service, named like its package.

`log.jsonl` in the run folder stays the truth; what a service shows is told from it. No service
is a dependency, none is part of what makes two runs the same, and none can end a run.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import pkgutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol

from kdcli.errors import ENVIRONMENT, STOPPED, KdcliError, unknown
from kdcli.files import write_json
from kdcli.runs import Run
from kdcli.settings import TABLES, flatten

LONGEST = 200  # characters of a service's error that are shown
PROJECT = "kdcli"  # the group of runs in a service, unless its own environment variable names one
FINISHED, INTERRUPTED, FAILED = "finished", "interrupted", "failed"


class Service(Protocol):
    """What a file of this folder defines as `Log`. Whatever it raises costs this log alone."""

    def begin(self, run: Run, known: str) -> str:
        """Open the log of `run`, or go on with the one of the id `known`.

        Returns the id by which a resume finds it again and tells only what is new; empty for a
        log that is written anew each time, and told everything.
        """

    def epoch(self, number: int, when: float, values: Mapping[str, float]) -> None:
        """`values` by name, as they were after epoch `number`, at `when` (seconds, Unix)."""

    def end(self, state: str, result: Mapping[str, Any]) -> None:
        """Close the log; `result` is empty unless `state` is FINISHED."""


def names() -> list[str]:
    """Every service, by listing the folder; imports none of them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def chosen(text: str) -> tuple[str, ...]:
    """The services of `--log a,b`; KdcliError for an unknown one, and (6) for a missing package."""
    asked = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in asked:
        if name not in names():
            raise unknown("log", name, names())
        if importlib.util.find_spec(name) is None:
            raise KdcliError(
                f"--log {name} needs a package that is not installed: pip install 'kdcli[{name}]'",
                ENVIRONMENT,
            )
    return asked


def scalars(record: Mapping[str, Any], images: int) -> dict[str, float]:
    """A line of the log as named numbers; `images` are trained on in an epoch.

    >>> record = {"epoch": 1, "lr": 0.1, "train": {"ce": 2.0}, "test": {"top1": 50.0}, "seconds": 2}
    >>> scalars(record, 10)
    {'train/ce': 2.0, 'test/top1': 50.0, 'lr': 0.1, 'seconds': 2, 'images_per_second': 5.0}
    """
    split = {f"{part}/{key}": value for part in ("train", "test") for key, value in
             record[part].items()}  # fmt: skip
    seconds = record["seconds"]
    rate = images / seconds if seconds else 0.0
    return split | {"lr": record["lr"], "seconds": seconds, "images_per_second": rate}


def hyperparameters(config: Mapping[str, Any]) -> dict[str, str | int | float]:
    """`config.json` as dotted names and plain values, without what a recipe would be elsewhere.

    >>> hyperparameters({"recipe": {"lr": 0.1, "datasets": {"imagenet": {"lr": 0.2}}}})
    {'recipe.lr': 0.1}
    """
    flat = flatten({**config, "recipe": {**config["recipe"], **dict.fromkeys(TABLES)}})
    return {
        key: value if isinstance(value, int | float) else str(value)
        for key, value in flat.items()
        if value not in (None, "", {}, [])
    }


class Logs:
    """The services that were asked for, as one; enter it around the training of `run`.

    Called with the history after each epoch, it passes on what is new. `logs.json` in the run
    folder remembers ids, and the last epoch that each service knows.
    """

    def __init__(
        self,
        asked: tuple[str, ...],
        run: Run,
        images: int,  # an epoch, for images_per_second
        note: Callable[[str], None],
        quiet: bool = False,
    ):
        self.out = io.StringIO() if quiet else None  # where services print; None: standard error
        self.run, self.images, self.note = Run(run.path), images, note  # its config is written now
        self.services: dict[str, Service] = {}
        self.told: dict[str, dict[str, Any]] = {}  # by service: its id, and the last epoch it knows
        self.asked = asked

    def __enter__(self) -> Logs:
        if not self.asked:
            return self
        with contextlib.suppress(OSError, ValueError):  # absent: nobody was told anything
            self.told = json.loads((self.run.path / "logs.json").read_text(encoding="utf-8"))
        for name in self.asked:
            with self._spared(name):
                service = importlib.import_module(f"{__name__}.{name}").Log()
                known = self.told.get(name, {"id": "", "epoch": 0})
                found = service.begin(self.run, known["id"])
                goes_on = found and found == known["id"]
                self.told[name] = known if goes_on else {"id": found, "epoch": 0}
                self.services[name] = service
        self(self.run.log())
        return self

    def __call__(self, history: list[dict[str, Any]]) -> None:
        ends = _ends(history)
        for name, service in list(self.services.items()):
            with self._spared(name):
                told = self.told[name]
                for record, when in zip(history, ends, strict=True):
                    if record["epoch"] > told["epoch"]:
                        service.epoch(record["epoch"], when, scalars(record, self.images))
                        told["epoch"] = record["epoch"]
                if told["id"]:
                    kept = {key: one for key, one in self.told.items() if one["id"]}
                    write_json(self.run.path / "logs.json", kept)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stopped = isinstance(error, KeyboardInterrupt) or getattr(error, "code", 0) == STOPPED
        state = FINISHED if error is None else INTERRUPTED if stopped else FAILED
        result = self.run.result if error is None else {}
        for name, service in list(self.services.items()):
            with self._spared(name):
                service.end(state, result)

    @contextlib.contextmanager
    def _spared(self, name: str) -> Iterator[None]:
        """A service that fails is left out from then on, and a person is told once.

        Standard output is for results alone: what a service prints goes to standard error.
        """
        out = self.out or sys.stderr
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                yield
        except Exception as error:
            self.services.pop(name, None)
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if len(reason) > LONGEST:
                reason = f"{reason[:LONGEST].rstrip()} ..."
            self.note(f"The log to {name} failed ({reason}); training goes on without it.")


def _ends(history: list[dict[str, Any]]) -> list[float]:
    """When each epoch ended, had the training gone on without a break until now; Unix seconds."""
    ends, when = [], time.time()
    for record in reversed(history):
        ends.append(when)
        when -= record["seconds"]
    return ends[::-1]
