"""How the steps of an epoch are run: eagerly, or captured as one CUDA graph and replayed.

A training step at a batch of 64 is hundreds of kernels of a few microseconds each; launching them
one by one takes longer than they do. A graph launches all of them at once.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from kdcli.contracts import Batch
from kdcli.data.loader import Loader as DeviceLoader
from kdcli.data.plan import Plan
from kdcli.errors import ENVIRONMENT, KdcliError

WARM = 3  # real steps before a capture: libraries choose their kernels, lazy state is made

Body = Callable[[], None]


class Loader(Protocol):
    """Where batches come from: rows and views are functions of (seed, epoch) alone."""

    @property
    def steps(self) -> int: ...

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]: ...


class Eager:
    """Every kernel launched by itself.

    `step` trains one batch; `before(epoch, number)` is the host's part of it, which comes first.
    """

    warm = 1  # steps until it is as fast as it will be

    def __init__(
        self,
        loader: Loader,
        step: Callable[[Batch], None],
        before: Callable[[int, int], None],
    ):
        self.loader, self.step, self.before = loader, step, before

    def run(self, epoch: int, first: int) -> Iterator[None]:
        """The steps of an epoch from `first` on, one each time it is asked."""
        for number, batch in enumerate(self.loader.batches(epoch, first), first):
            self.before(epoch, number)
            self.step(batch)
            yield


class Captured:
    """The first steps eagerly, then a graph for each length of a batch, replayed.

    The graph reads its rows of the plan through `position` and everything that a schedule moves
    through device tensors, so that one graph serves a whole phase. `record` turns a body into what
    replays it.
    """

    warm = WARM + 1

    def __init__(
        self,
        loader: DeviceLoader,
        step: Callable[[Batch], None],
        before: Callable[[int, int], None],
        record: Callable[[Body], Body] | None = None,
    ):
        self.loader, self.step, self.before = loader, step, before
        self.side = torch.cuda.Stream(loader.device) if loader.device.type == "cuda" else None
        self.record = record or Recorder(self.side)
        self.plan: Plan | None = None
        self.position = torch.zeros((), dtype=torch.int64, device=loader.device)
        self.offsets = torch.arange(loader.rows.batch, device=loader.device)
        self.replays: dict[int, Body] = {}
        self.eager: Counter[int] = Counter()

    def run(self, epoch: int, first: int) -> Iterator[None]:
        """The steps of an epoch from `first` on, one each time it is asked."""
        self._show(self.loader.plan(epoch))
        for number in range(first, self.loader.steps):
            rows = self.loader.rows.of(number)
            self.before(epoch, number)
            self.position.fill_(rows.start)
            self._run(rows.stop - rows.start)
            yield

    def _show(self, plan: Plan) -> None:
        """Put an epoch's plan where the graph looks for it."""
        if self.plan is None:
            self.plan = Plan(*(tensor.clone() for tensor in plan))
        for shown, tensor in zip(self.plan, plan, strict=True):
            shown.copy_(tensor)

    def _run(self, length: int) -> None:
        if length not in self.replays and self.eager[length] < WARM:
            self.eager[length] += 1
            on_stream(self.side, self._body(length))
            return
        if length not in self.replays:
            self.replays[length] = self.record(self._body(length))
        self.replays[length]()

    def _body(self, length: int) -> Body:
        def body() -> None:
            positions: Tensor = self.position + self.offsets[:length]
            self.step(self.loader.gather(self.plan, positions))

        return body


class Recorder:
    """Captures bodies on `stream` as CUDA graphs that share one memory pool."""

    def __init__(self, stream: torch.cuda.Stream | None) -> None:
        self.stream, self.pool = stream, None

    def __call__(self, body: Body) -> Body:
        gc.collect()  # of a forgotten run's memory now, and not in the middle of the capture
        graph, failed = torch.cuda.CUDAGraph(), []
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                try:
                    body()
                except Exception as error:
                    failed.append(error)  # the end of the capture then fails too, and hides it
                    raise
        except RuntimeError as error:
            first, *_ = [*failed, error]
            raise _told(first) from first
        self.pool = self.pool or graph.pool()
        return graph.replay


def _told(error: Exception) -> Exception:
    """What a person is told of a capture that failed by `error`."""
    if not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError):
        return error
    reason = str(error).partition("\n")[0]
    return KdcliError(
        f"a step cannot be captured as a CUDA graph ({reason}); --eager trains without one.",
        ENVIRONMENT,
    )


def on_stream(stream: torch.cuda.Stream | None, body: Body) -> None:
    """Run a body as a capture will, on its stream, of which libraries keep a workspace each."""
    if stream is None:
        body()
        return
    here = torch.cuda.current_stream(stream.device)
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        body()
    here.wait_stream(stream)
