"""What a recipe's epochs are made of: phases, each with its objective, rate and frozen modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import filter as filter_names
from fnmatch import fnmatchcase

from kdcli.engine.objective import Objective
from kdcli.errors import unknown
from kdcli.recipe import Recipe

OWN = ("student.", "losses.")  # what the names of modules begin with
TOP = "student.top"  # in a freeze list: whatever the student's family has behind its last stage


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs with one objective and one learning-rate schedule."""

    name: str
    epochs: int
    weights: Mapping[str, float]  # by term; only these are computed
    lr: float
    milestones: tuple[float, ...] = ()  # epochs done when the rate falls by ten; fractions allowed
    warmup: Mapping[str, float] = field(default_factory=dict)  # epochs until the full weight
    freeze: tuple[str, ...] = ()  # patterns of modules in evaluation mode, not in the optimizer

    def rate(self, epoch: int) -> float:
        """Learning rate of `epoch`, from 0. A milestone of 150 acts from the 151st epoch on."""
        return self.lr * 0.1 ** sum(epoch >= milestone for milestone in self.milestones)

    def weigh(self, epoch: int) -> dict[str, float]:
        """Weights of `epoch`, from 0: a warm-up of W epochs starts at 1/W, not at 0."""
        reached = {name: min((epoch + 1) / span, 1.0) for name, span in self.warmup.items() if span}
        return {name: weight * reached.get(name, 1.0) for name, weight in self.weights.items()}

    def frozen(self, name: str) -> bool:
        """Whether the module or parameter `name` lies in a frozen module."""
        parts = name.split(".")
        heads = [".".join(parts[: end + 1]) for end in range(len(parts))]
        return any(fnmatchcase(head, pattern) for head in heads for pattern in self.freeze)


def locate(phases: Sequence[Phase], epoch: int) -> tuple[Phase, int]:
    """The phase that `epoch`, counted over all of them from 0, belongs to, and its first epoch."""
    start = 0
    for phase in phases:
        if epoch < start + phase.epochs:
            break
        start += phase.epochs
    return phase, start


def plan(recipe: Recipe, objective: Objective, rate: float) -> list[Phase]:
    """The recipe's pre-training phases, each at a constant rate, then its main one.

    `rate` is the main phase's learning rate, and that of the others where they have none of their
    own.
    """
    before = [
        Phase(
            f"pretrain {number}",
            phase.epochs,
            phase.minimize,
            rate if phase.lr is None else phase.lr,
            freeze=_spelt(phase.freeze, objective),
        )
        for number, phase in enumerate(recipe.pretrain, 1)
    ]
    main = Phase(
        "main",
        recipe.epochs,
        recipe.minimize,
        rate,
        recipe.milestones,
        recipe.warmup,
        _spelt(recipe.freeze, objective),
    )
    return [*before, main]


def _spelt(freeze: tuple[str, ...], objective: Objective) -> tuple[str, ...]:
    """The patterns with `student.top` replaced by the modules that it stands for.

    KdcliError for one that names a module which neither the student nor a loss has.
    """
    top = [f"student.{key}" for key in objective.student.top]
    parts = [*objective.named_modules(), *objective.named_parameters()]
    own = [name for name, _ in parts if "." in name]
    for pattern in freeze:
        if pattern.startswith(OWN) and pattern != TOP and not filter_names(own, pattern):
            raise unknown("module in freeze", pattern, own, most=8)
    return tuple(key for item in freeze for key in (top if item == TOP else [item]))
