"""A training objective as a TOML file, read into a frozen dataclass; an unknown key is an error."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from kdcli.data import TABLE, check_options
from kdcli.errors import KdcliError, unknown

PROTOCOL = "SGD 0.9, 240 epochs, rate / 10 after 150, 180 and 210, batch 64"
OPTIMIZER = {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4, "nesterov": False}


@dataclass(frozen=True)
class Pretrain:
    """A phase before the main one: its own objective at a constant learning rate."""

    minimize: Mapping[str, float]
    epochs: int
    lr: float | None = None  # None: the main phase's
    freeze: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """One training objective. The defaults are the CIFAR-100 protocol of all four papers."""

    name: str
    paper: str
    minimize: Mapping[str, float]  # weight by term
    summary: str = ""
    group: str = "own"
    losses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # constructor arguments
    warmup: Mapping[str, float] = field(default_factory=dict)  # epochs until a term's full weight
    freeze: tuple[str, ...] = ()
    epochs: int = 240
    lr: float | None = None  # None: the published rate of the student's family
    milestones: tuple[float, ...] = (150, 180, 210)
    batch: int = 64
    teacher: str = ""
    optimizer: Mapping[str, Any] = field(default_factory=lambda: dict(OPTIMIZER))
    data: Mapping[str, Any] = field(default_factory=dict)
    pairs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # over its protocol
    pretrain: tuple[Pretrain, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `config.json` keeps them."""
        return asdict(self)

    def formula(self, settings: bool = True) -> str:
        """The objective with its weights, and the losses' settings, on one line.

        What is minimised before the main phase comes first.
        """
        phases = [
            f"{self._sum(p.minimize, settings)} for {p.epochs} epoch{'s' * (p.epochs > 1)}"
            for p in self.pretrain
        ]
        return ", then ".join([*phases, self._sum(self.minimize, settings)])

    def _sum(self, minimize: Mapping[str, float], settings: bool) -> str:
        parts = []
        for term, weight in minimize.items():
            told = {k: v for k, v in self.losses.get(term, {}).items() if settings and k != "use"}
            inside = ", ".join(f"{key}={value}" for key, value in told.items())
            parts.append(f"{weight:g} {term}" + (f"({inside})" if inside else ""))
        return " + ".join(parts)


KEYS = [item.name for item in fields(Recipe) if item.name != "name"]
SCHEDULE = ("epochs", "lr", "milestones", "batch", "optimizer")
NUMBER = (int, float)
KINDS: dict[str, tuple[type, ...]] = {
    "paper": (str,), "summary": (str,), "group": (str,), "teacher": (str,),
    "minimize": (Mapping,), "losses": (Mapping,), "warmup": (Mapping,), "optimizer": (Mapping,),
    "data": (Mapping,), "pairs": (Mapping,), "datasets": (Mapping,),
    "freeze": (list, tuple), "milestones": (list, tuple), "pretrain": (list, tuple),
    "epochs": (int,), "batch": (int,), "lr": NUMBER,
}  # fmt: skip


@cache
def folder() -> Path:
    """Where the shipped recipes stand: inside an installed package, or beside it in a checkout."""
    here = Path(__file__).parent
    inside = here / "_recipes"
    return inside if inside.is_dir() else here.parent / "recipes"


def names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in folder().glob("*.toml"))


@cache
def loss_names() -> list[str]:
    """Names of the losses, by listing their folder: nothing of torch is imported."""
    files = (Path(__file__).parent / "losses").glob("*.py")
    return sorted(path.stem for path in files if path.stem != "__init__")


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


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """A checked recipe from plain values."""
    values = dict(values)
    for key, value in values.items():
        if key != "name" and key not in KEYS:
            raise unknown("recipe key", key, KEYS)
        _check_kind(key, value)
    for key in ("paper", "minimize"):
        if not values.get(key):
            raise KdcliError(f"'{key}' is missing.")
    values["optimizer"] = OPTIMIZER | dict(values.get("optimizer", {}))
    for key in ("freeze", "milestones"):
        if key in values:
            values[key] = tuple(values[key])
    values["pretrain"] = tuple(_pretrain(phase) for phase in values.get("pretrain", ()))
    recipe = Recipe(**values)
    _check(recipe)
    return recipe


def _check_kind(key: str, value: object) -> None:
    if key not in KINDS or value is None:
        return
    if not isinstance(value, KINDS[key]) or isinstance(value, bool):
        allowed = " or ".join(kind.__name__.lower() for kind in KINDS[key])
        raise KdcliError(f"'{key}' is {value!r}, but must be a {allowed}.")


def _pretrain(values: Mapping[str, Any]) -> Pretrain:
    known = [item.name for item in fields(Pretrain)]
    for key in values:
        if key not in known:
            raise unknown("[[pretrain]] key", key, known)
        _check_kind(key, values[key])
    if not values.get("minimize") or (values.get("epochs") or 0) < 1:
        raise KdcliError("[[pretrain]] needs 'minimize' and at least 1 of 'epochs'.")
    return Pretrain(**{**values, "freeze": tuple(values.get("freeze", ()))})


def _check(recipe: Recipe) -> None:
    terms = [*recipe.minimize, *(term for phase in recipe.pretrain for term in phase.minimize)]
    for term in terms:
        use = recipe.losses.get(term, {}).get("use", term)
        if use not in loss_names():
            raise unknown("loss", use, loss_names())
    for table in (recipe.minimize, recipe.warmup, *(phase.minimize for phase in recipe.pretrain)):
        for term, value in table.items():
            if not isinstance(value, NUMBER) or isinstance(value, bool):
                raise KdcliError(f"the number of '{term}' is {value!r}.")
    for dataset in recipe.datasets:
        if dataset not in TABLE:
            raise unknown("dataset in [datasets]", dataset, TABLE)
    check_options(recipe.data)
    for table, kind in ((recipe.losses, "losses"), (recipe.warmup, "warmup")):
        for term in table:
            if term not in terms:
                raise unknown(f"term in [{kind}]", term, terms, "A term is named in 'minimize'.")
    task = recipe.optimizer.get("task")  # the terms with a velocity of their own, under "dot"
    if task is not None and not (task and isinstance(task, list | tuple)):
        raise KdcliError(f"optimizer.task is {task!r}, but must be a list of terms, e.g. ['ce'].")
    for term in task or ():
        if term not in terms:
            raise unknown("term in optimizer.task", str(term), terms)
    if recipe.epochs < 1 or recipe.batch < 2:
        raise KdcliError(
            f"epochs is {recipe.epochs} and batch {recipe.batch}: at least 1 epoch, and 2 images a "
            "batch, since batch norm cannot train on one."
        )


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


def scaled(recipe: Recipe, epochs: int | None) -> Recipe:
    """The recipe over another number of epochs: milestones and warm-ups keep their share of it."""
    if epochs is None or epochs == recipe.epochs:
        return recipe
    share = epochs / recipe.epochs
    pretrain = tuple(
        replace(phase, epochs=max(1, round(phase.epochs * share))) for phase in recipe.pretrain
    )
    return replace(
        recipe,
        epochs=epochs,
        milestones=tuple(milestone * share for milestone in recipe.milestones),
        warmup={term: span * share for term, span in recipe.warmup.items()},
        pretrain=pretrain,
    )
