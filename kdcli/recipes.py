"""Where recipes are found, a TOML file each, and how several compose to one."""

from __future__ import annotations

import tomllib
from pathlib import Path

from kdcli.composition import compose, conflicts
from kdcli.errors import KdcliError, unknown
from kdcli.models import TABLE
from kdcli.recipe import Recipe, folder
from kdcli.recipe_values import from_dict

__all__ = ["compose", "conflicts", "folder", "load", "names", "parts", "read"]


def names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def load(name: str) -> Recipe:
    """A shipped recipe by name, a file, or several joined by `+`.

    A file named `a+b` wins over the composition of `a` and `b`.
    """
    found = parts(name)
    return found[0] if len(found) == 1 else compose("+".join(part.name for part in found), found)


def parts(name: str) -> list[Recipe]:
    """The recipes that `name` composes; the one it is, if it is one itself.

    Of names that contain a `+` the longest counts: at+lskd+kd is `at` and `lskd+kd`.
    """
    words, found = name.split("+"), []
    while words:
        sizes = range(len(words), 1, -1)
        size = next((n for n in sizes if _exists("+".join(words[:n]))), 1)
        found.append(_one("+".join(words[:size])))
        words = words[size:]
    return found


def _exists(name: str) -> bool:
    return name in names() or (_is_file(name) and Path(name).is_file())


def _is_file(name: str) -> bool:
    return name.endswith(".toml") or "/" in name


def _one(name: str) -> Recipe:
    if name in names():
        return read(folder() / f"{name}.toml")
    if _is_file(name):
        return read(Path(name))
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
        recipe = from_dict({"name": path.stem, **values})
        _check_elsewhere(recipe)
    except KdcliError as error:
        raise KdcliError(f"{path}: {error}", error.code) from error
    return recipe


def _check_elsewhere(recipe: Recipe) -> None:
    """KdcliError for values of a pair or dataset that would fail, or be passed over, there."""
    from kdcli.settings import flatten, override

    for pair in recipe.pairs:
        for network in pair.split("->") if pair.count("->") == 1 else [pair]:
            if network == pair:
                raise KdcliError(f"the pair '{pair}' must be written teacher->student.")
            if network not in TABLE and ":" not in network:
                raise unknown(f"network in the pair '{pair}',", network, TABLE)
    for kind in ("pairs", "datasets"):
        for name, values in getattr(recipe, kind).items():
            try:
                override(recipe, flatten(values))
            except KdcliError as error:
                raise KdcliError(f'{kind}."{name}": {error}') from error
