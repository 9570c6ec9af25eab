"""The teachers of a configuration: none, one, or the members of an ensemble."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def members(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a configuration says of each of its teachers; an ensemble names them in `members`."""
    teacher = config.get("teacher")
    return teacher.get("members", [teacher]) if teacher else []


def label(teachers: Sequence[Mapping[str, Any]]) -> str:
    """One name for several teachers, from their models in alphabetical order.

    >>> label([{"model": "resnet20"}, {"model": "vgg8"}, {"model": "resnet20"}])
    '2xresnet20+vgg8'
    """
    counts = Counter(sorted(told["model"] for told in teachers))
    return "+".join(f"{n}x{model}" if n > 1 else model for model, n in counts.items())
