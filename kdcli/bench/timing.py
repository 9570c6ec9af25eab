"""Loops timed in turns, so that the noise of a shared machine hits all of them alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

BLOCK = 4.0  # seconds that a loop trains before the next one has its turn
FEWEST = 2  # steps a turn


@dataclass(frozen=True)
class Variant:
    """One way to train the recipe."""

    name: str
    what: str  # one line
    # (steps, warm): trains `warm` steps, then `steps` for the seconds of one; waits for the device.
    seconds_per_step: Callable[[int, int], float]
    warm: int = 0  # steps before the loop runs as it will from then on
    period: int = 1  # steps after which the same work comes again
    teacher_runs: bool = True  # in the step; with a bank it has answered before
    prepare: Callable[[int], dict[str, float]] | None = None  # so many steps; what that cost
    close: Callable[[], None] | None = None


@dataclass
class Timed:
    """What was measured of a variant."""

    variant: Variant
    memory: int | None  # bytes, see `kdcli.bench.memory`
    steps: int  # a turn
    seconds: list[float] = field(default_factory=list)  # of a step, one number a turn

    @property
    def median(self) -> float:
        return median(self.seconds)


def steps_for(seconds: float, most: int, period: int = 1) -> int:
    """Steps that fill a turn if one takes `seconds`: whole periods, `most` if that allows one.

    >>> steps_for(3.0, 700), steps_for(0.02, 700), steps_for(0.001, 700), steps_for(3.0, 1)
    (2, 200, 700, 1)
    >>> steps_for(0.02, 700, period=16), steps_for(0.001, 700, period=16)
    (208, 688)
    """
    wanted = min(most, max(FEWEST, round(BLOCK / seconds)))
    return min(-(-wanted // period), max(most // period, 1)) * period
