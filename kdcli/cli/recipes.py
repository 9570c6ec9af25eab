"""`kdcli recipes [NAME]`: the training objectives that ship, or one of them in full."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcli.cli import complete
from kdcli.cli import options as o
from kdcli.errors import KdcliError, unknown


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel=o.LOOK)(recipes)


def recipes(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME | copy NAME FILE",
            show_default=False,
            autocompletion=complete.recipe,
            help="One recipe in full: a name, several (crd+kd) or a .toml file. All if absent. "
            "copy writes a shipped recipe to FILE, to start one of your own.",
        ),
    ] = None,
    group: Annotated[
        str, typer.Option(help="Only these: baseline, logit, feature, relation, contrastive, ...")
    ] = "",
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """List the recipes, show one with its published results, or copy one.

    Example: kdcli recipes mcld
    """
    from kdcli.cli.show import recipe_list, screen

    screen.quieten(quiet)
    words = words or []
    if words[:1] == ["copy"]:
        copy(words[1:])
    elif words:
        _page(words, json)
    else:
        found = recipe_list.listing(group)
        screen.emit(found) if json else recipe_list.show(found)
        screen.console.print("[dim]One in full: kdcli recipes mcld[/dim]")


def _page(words: list[str], json: bool) -> None:
    from kdcli import recipes
    from kdcli.cli.show import recipe_page, screen

    if len(words) > 1:
        raise KdcliError(
            f"one recipe at a time, not {' '.join(words)}; several in one objective are joined "
            f"by +: {'+'.join(words)}."
        )
    own = words[0].endswith(".toml") or "/" in words[0]
    file = Path(words[0]) if own else recipes.folder() / f"{words[0]}.toml"
    told = recipe_page.describe(recipes.load(words[0]), file)
    told["conflicts"] = recipes.conflicts(recipes.parts(words[0]))
    screen.emit(told) if json else recipe_page.show(told)


def copy(words: list[str]) -> None:
    """`NAME FILE`: a shipped recipe byte for byte; KdcliError if the file is there already."""
    from rich.markup import escape

    from kdcli import recipes
    from kdcli.cli.show.screen import console
    from kdcli.files import environment_errors

    if len(words) != 2:
        raise KdcliError("copy takes a recipe and a new file, e.g. kdcli recipes copy kd my.toml")
    name, file = words[0], Path(words[1])
    if name not in recipes.names():
        raise unknown("recipe", name, recipes.names())
    if file.suffix != ".toml":
        raise KdcliError(f"a recipe's file ends in .toml, but {file} does not.")
    content = (recipes.folder() / f"{name}.toml").read_bytes()
    try:
        with environment_errors(str(file)), file.open("xb") as stream:
            stream.write(content)
    except KdcliError as error:
        if isinstance(error.__cause__, FileExistsError):
            raise KdcliError(f"{file} exists and is left as it is; choose a new name.") from None
        raise
    console.print(f"Next: [bold]{escape(_next(name, words[1]))}[/]")


def _next(name: str, file: str) -> str:
    from kdcli import recipes

    recipe = recipes.load(name)
    pairs = (pair.partition("->") for pair in recipe.pairs)
    students = [student for teacher, _, student in pairs if teacher == recipe.teacher]
    return f"kdcli distill --recipe {file} --student {[*students, 'resnet8x4'][0]}"
