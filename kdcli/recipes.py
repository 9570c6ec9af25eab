"""Where recipes are found, a TOML file each, and how several compose to one."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from kdcli.errors import KdcliError, unknown
from kdcli.recipe import Pretrain, Recipe, from_dict

SCHEDULE = ("epochs", "lr", "milestones", "batch", "optimizer")


@cache
def folder() -> Path:
    """Where the shipped recipes stand: inside an installed package, or beside it in a checkout."""
    here = Path(__file__).parent
    inside = here / "_recipes"
    return inside if inside.is_dir() else here.parent / "recipes"


def names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def load(name: str) -> Recipe:
    """A shipped recipe by name, a file, or several joined by `+`.

    A file named `a+b` wins over the composition of `a` and `b`.
    """
    found = parts(name)
    return found[0] if len(found) == 1 else compose(name, found)


def parts(name: str) -> list[Recipe]:
    """The recipes that `name` composes; the one it is, if it is one itself."""
    if name.endswith(".toml") or "/" in name:
        return [read(Path(name))]
    if name in names():
        return [read(folder() / f"{name}.toml")]
    if "+" in name:
        return [load(part) for part in name.split("+")]
    raise unknown(
        "recipe", name, names(), "A file of your own is given by its path, ending in .toml."
    )


def read(path: Path) -> Recipe:
    """Read one recipe file; KdcliError names the file and the key that is wrong."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KdcliError(f"cannot read recipe {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise KdcliError(f"{path} is not TOML: {error}.") from error
    try:
        return from_dict({"name": path.stem, **values})
    except KdcliError as error:
        raise KdcliError(f"{path}: {error}", error.code) from error


def compose(name: str, parts: list[Recipe]) -> Recipe:
    """Add weighted objectives; where schedules differ, the first named one's stands."""
    first = parts[0]
    merged: dict[str, dict[str, Any]] = {
        key: {} for key in ("minimize", "losses", "warmup", "data")
    }
    pretrain: tuple[Pretrain, ...] = ()
    for part in parts:
        for key, table in merged.items():
            for term, value in getattr(part, key).items():
                if key == "minimize" and term == "ce":
                    table.setdefault(term, value)
                else:
                    table[term] = value + table.get(term, 0) if key == "minimize" else value
        pretrain += part.pretrain
    return replace(
        first,
        name=name,
        paper=" + ".join(part.paper for part in parts),
        summary=" + ".join(part.name for part in parts),
        freeze=tuple(dict.fromkeys(pattern for part in parts for pattern in part.freeze)),
        pairs=_merge_pairs(parts),
        datasets=_merge_datasets(parts),
        pretrain=pretrain,
        **merged,
    )


def _merge_pairs(parts: Iterable[Recipe]) -> dict[str, dict[str, Any]]:
    pairs: dict[str, dict[str, Any]] = {}
    before = 0  # phases of the parts that were merged: those of the next one come after them
    for part in parts:
        for pair, values in part.pairs.items():
            if "pretrain" in values:
                phases = {str(int(n) + before): phase for n, phase in values["pretrain"].items()}
                values = {**values, "pretrain": phases}
            pairs[pair] = _under(values, pairs.get(pair, {}))
        before += len(part.pretrain)
    return pairs


def _merge_datasets(parts: Iterable[Recipe]) -> dict[str, dict[str, Any]]:
    """What each part changes on a dataset; the schedule is the first one's, there as elsewhere."""
    datasets: dict[str, dict[str, Any]] = {}
    for number, part in enumerate(parts):
        for dataset, values in part.datasets.items():
            if number:
                values = {key: value for key, value in values.items() if key not in SCHEDULE}
            datasets[dataset] = _under(values, datasets.get(dataset, {}))
    return datasets


def _under(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested tables as one; where both have a value, that of `over`."""
    both = {**values, **over}
    for key in values.keys() & over.keys():
        if isinstance(values[key], Mapping) and isinstance(over[key], Mapping):
            both[key] = _under(values[key], over[key])
    return both


def conflicts(parts: list[Recipe]) -> list[str]:
    """Schedule keys in which composed recipes differ, each as a sentence."""
    first = parts[0]
    return [
        f"{key}: {getattr(first, key)} of {first.name} stands, "
        f"not {getattr(part, key)} of {part.name}"
        for part in parts[1:]
        for key in SCHEDULE
        if getattr(part, key) != getattr(first, key)
    ]
