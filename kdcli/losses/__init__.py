"""The contract of a loss, and the losses by name: one file a paper, named like its loss."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from kdcli.contracts import Batch, Features
from kdcli.errors import KdcliError, unknown

POSITIVE = ("temperature", "dim")  # how settings end that are above 0 in every loss


class Context(NamedTuple):
    """All that a loss may know when it is built; widths come from probing two images."""

    student: Features  # of two images, in evaluation mode
    teacher: Features | None  # the same; None when the recipe has no teacher
    teacher_net: nn.Module | None  # read it, never keep it as a submodule; an nn.ModuleList of an
    # ensemble's, whose Features `teacher.members` holds
    classes: int
    labels: Tensor  # [N] int64, of the training set, on the device
    epochs: int  # of the main phase


class Loss(nn.Module):
    """One term of an objective.

    Side modules are submodules and memories are buffers, so that the optimizer, `.to()` and the
    checkpoint find them unaided. What a batch leaves behind passes through `kdcli.ranks.gather`
    before it is remembered.
    """

    views = 1  # 2: the batch carries a second augmented view, answered in `Features.others`
    reads = frozenset({"stages"})  # fields of the teacher's Features that `forward` looks at. A
    # bank can hold logits and pooled; empty: the loss needs no teacher, and may be given None
    limits: tuple[tuple[str, float, float], ...] = ()  # settings, the least and most of each
    capturable = True  # False: a step with it waits for the device, which a CUDA graph cannot hold

    def __init__(self, ctx: Context):
        super().__init__()

    def forward(self, student: Features, teacher: Features, batch: Batch) -> Tensor:
        """A scalar, before the weight that the recipe puts on it."""
        raise NotImplementedError

    def wrap(self, student: nn.Module) -> nn.Module:
        """The network to train and deploy in place of `student`; called once, at build time."""
        return student

    def begin(self, main: bool) -> None:
        """Called when a phase begins that computes this loss, also on a resume.

        `main` is false in pre-training: a loss that prepares a part of its own there, FT's
        paraphraser, answers both phases with one object. Others need not know.
        """

    def after_step(self) -> None:
        """Called after the optimizer's step: queues, memories, moving averages."""


class EachTeacher(Loss):
    """A loss of an ensemble's features: one for each teacher, side modules and memory its own.

        L = sum_i L(T_i, S)

    as Tian et al. have it for CRD (arXiv:1910.10699, section 3.4). A loss that
    reads logits alone needs none of this: it sees the mean of the teachers' answers.
    """

    def __init__(self, name: str, ctx: Context, arguments: Mapping[str, object]):
        super().__init__(ctx)
        kind, count = load(name), len(ctx.teacher.members)
        if kind.wrap is not Loss.wrap:
            raise KdcliError(
                f"loss '{name}' rebuilds the student around one teacher and cannot learn from "
                f"{count}; name one --teacher, or take another recipe."
            )
        self.views, self.reads, self.capturable = kind.views, kind.reads, kind.capturable
        pairs = zip(ctx.teacher.members, ctx.teacher_net, strict=True)
        contexts = [ctx._replace(teacher=shown, teacher_net=network) for shown, network in pairs]
        self.teachers = nn.ModuleList(kind(context, **arguments) for context in contexts)

    def forward(self, student: Features, teacher: Features, batch: Batch) -> Tensor:
        pairs = zip(self.teachers, teacher.members, strict=True)
        return sum(loss(student, shown, batch) for loss, shown in pairs)

    def begin(self, main: bool) -> None:
        for loss in self.teachers:
            loss.begin(main)

    def after_step(self) -> None:
        for loss in self.teachers:
            loss.after_step()


def names() -> list[str]:
    """Every loss, by listing the folder; imports none of them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> type[Loss]:
    """The one Loss that the file `name` defines; KdcliError for a name that is not there."""
    if name not in names():
        raise unknown("loss", name, names())
    module = importlib.import_module(f"{__name__}.{name}")
    found = [
        item
        for item in vars(module).values()
        if inspect.isclass(item) and issubclass(item, Loss) and item.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{module.__name__} must define exactly one Loss, found {found}"
    return found[0]


def hyperparameters(name: str) -> dict[str, object]:
    """Constructor arguments of a loss with their defaults, as a recipe may set them."""
    parameters = list(inspect.signature(load(name).__init__).parameters.values())[2:]
    return {parameter.name: parameter.default for parameter in parameters}


def check(settings: Mapping[str, Mapping[str, object]]) -> None:
    """KdcliError for a setting, by term, that its loss does not have, or of another kind."""
    for term, arguments in settings.items():
        name = str(arguments.get("use", term))
        known = hyperparameters(name)
        for argument, value in arguments.items():
            if argument == "use":
                continue
            if argument not in known:
                raise unknown(f"setting of loss '{name}'", argument, known)
            wanted = _kind(argument, value, known[argument])
            wanted = wanted or _range(load(name), argument, value)
            if wanted:
                raise KdcliError(f"{argument} of loss '{name}' is {value!r}, but must be {wanted}.")


def _kind(argument: str, value: object, default: object) -> str:
    """What `value` should be, which its default shows; empty where it is that."""
    number = type(value) in (int, float) and math.isfinite(value)
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "true or false"
    if isinstance(default, str):
        return "" if isinstance(value, str) else "text"
    if (default is None and value is None) or not isinstance(default, int | float | None):
        return ""
    if not number or (isinstance(default, int) and not isinstance(value, int)):
        return "a whole number" if isinstance(default, int) else "a number"
    return "above 0" if value <= 0 and argument.endswith(POSITIVE) else ""


def _range(loss: type[Loss], argument: str, value: float) -> str:
    """The limits that `value` should keep, which the loss declares; empty where it does."""
    for key, least, most in loss.limits:
        if key == argument and not least <= value <= most:
            return f"at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
    return ""


def build(name: str, ctx: Context, **arguments: object) -> Loss:
    """Construct the loss `name`; an argument it does not have is an error, with the nearest.

    For an ensemble of teachers, one that reads more of them than logits is an `EachTeacher`.
    """
    check({name: arguments})
    known = hyperparameters(name)
    missing = [
        key
        for key, value in known.items()
        if value is inspect.Parameter.empty and key not in arguments
    ]
    if missing:
        raise KdcliError(
            f"loss '{name}' needs {', '.join(missing)}; set it in the recipe's [losses.{name}]."
        )
    several = ctx.teacher is not None and ctx.teacher.members
    if several and not load(name).reads <= {"logits"}:
        return EachTeacher(name, ctx, arguments)
    return load(name)(ctx, **arguments)
