"""Several recipes as one: weighted losses add up, and of what differs the first named stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from kdcli.recipe import Recipe

SCHEDULE = ("epochs", "lr", "milestones", "batch", "optimizer")
OF_TERMS = ("losses", "warmup")  # tables of a recipe with something on each term


def terms(recipe: Recipe) -> list[str]:
    """Every term of the recipe, those of its pre-training phases too."""
    tables = [recipe.minimize, *(phase.minimize for phase in recipe.pretrain)]
    return list(dict.fromkeys(term for table in tables for term in table))


def compose(name: str, parts: list[Recipe]) -> Recipe:
    """Add weighted objectives; where schedules differ, the first named one's stands.

    So it is with cross-entropy's weight, and with the settings of a term that several parts have.
    """
    merged: dict[str, dict[str, Any]] = {"minimize": {}, **{kind: {} for kind in OF_TERMS}}
    data: dict[str, Any] = {}
    for part, taken in _walk(parts):
        for term, weight in part.minimize.items():
            before = merged["minimize"].get(term)
            if before is None:
                merged["minimize"][term] = weight
            elif term != "ce":
                merged["minimize"][term] = before + weight
        for kind in OF_TERMS:
            new = {key: value for key, value in getattr(part, kind).items() if key not in taken}
            merged[kind] |= new
        data = {**part.data, **data}
    return replace(
        parts[0],
        name=name,
        paper=" + ".join(part.paper for part in parts),
        summary=" + ".join(part.name for part in parts),
        teacher=next((part.teacher for part in parts if part.teacher), ""),
        freeze=tuple(dict.fromkeys(pattern for part in parts for pattern in part.freeze)),
        pairs=_elsewhere(parts, "pairs"),
        datasets=_elsewhere(parts, "datasets"),
        pretrain=tuple(phase for part in parts for phase in part.pretrain),
        data=data,
        **merged,
    )


def _walk(parts: list[Recipe]) -> Iterator[tuple[Recipe, set[str]]]:
    """Each part, with the terms of those before it: their settings are not its to say."""
    taken: set[str] = set()
    for part in parts:
        yield part, set(taken)
        taken |= set(terms(part))


def _elsewhere(parts: list[Recipe], kind: str) -> dict[str, dict[str, Any]]:
    """What the parts change for each pair, or on each dataset; the schedule is the first's."""
    merged: dict[str, dict[str, Any]] = {}
    phases = 0  # of the parts before: those of this one come after them
    for number, (part, taken) in enumerate(_walk(parts)):
        for name, values in getattr(part, kind).items():
            if number:
                values = _later(values, taken)
            if "pretrain" in values:
                moved = {str(int(n) + phases): phase for n, phase in values["pretrain"].items()}
                values = {**values, "pretrain": moved}
            both = _under(values, merged.get(name, {}))
            if both:
                merged[name] = both
        phases += len(part.pretrain)
    return merged


def _later(values: Mapping[str, Any], taken: set[str]) -> dict[str, Any]:
    """What a later part still has to say: no schedule, and nothing on terms before it."""
    kept = {key: value for key, value in values.items() if key not in SCHEDULE}
    for kind in ("minimize", *OF_TERMS):
        if kind in kept:
            kept[kind] = {term: value for term, value in kept[kind].items() if term not in taken}
    return {key: value for key, value in kept.items() if value != {}}


def _under(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested tables as one; where both have a value, that of `over`."""
    both = {**values, **over}
    for key in values.keys() & over.keys():
        if isinstance(values[key], Mapping) and isinstance(over[key], Mapping):
            both[key] = _under(values[key], over[key])
    return both


def conflicts(parts: list[Recipe]) -> list[str]:
    """What composed recipes do not agree on, each as a sentence that says whose value stands."""
    found: dict[str, tuple[Any, str]] = {}  # who said it first
    sentences = []
    for number, part in enumerate(parts):
        for key, value in _said(part).items():
            if number and key in SCHEDULE:
                stands, owner = getattr(parts[0], key), parts[0].name
            else:
                stands, owner = found.setdefault(key, (value, part.name))
            if stands != value:
                sentences.append(
                    f"{key}: {_text(key, stands)} of {owner} stands, "
                    f"not {_text(key, value)} of {part.name}"
                )
    return sentences


def _said(part: Recipe) -> dict[str, Any]:
    """What a part has of everything that only one of them can have."""
    said = {key: getattr(part, key) for key in SCHEDULE}
    said |= {f"data.{key}": value for key, value in part.data.items()}
    for term in terms(part):
        said |= {f"{kind}.{term}": getattr(part, kind).get(term) for kind in OF_TERMS}
    if "ce" in part.minimize:
        said["minimize.ce"] = part.minimize["ce"]
    return said


def _text(key: str, value: object) -> str:
    if value is None:
        return "the student's published rate" if key == "lr" else "the default"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} = {one}" for name, one in value.items())
    return str(value)
