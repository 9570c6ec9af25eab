"""`kdcli recipes [NAME]`: the training objectives that ship, or one of them in full."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from kdcli.cli import options as o
from kdcli.errors import KdcliError, unknown
from kdcli.recipes import Recipe

GROUPS = ["baseline", "logit", "feature", "relation", "contrastive", "online", "optimizer"]
WIDE = 130  # columns of a terminal from which a recipe stands on one line


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel=o.LOOK)(recipes)


def recipes(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME | copy NAME FILE",
            show_default=False,
            autocompletion=o.complete_recipe,
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
    from kdcli.cli import screen

    screen.quieten(quiet)
    words = words or []
    if words[:1] == ["copy"]:
        copy(words[1:])
    elif words:
        _page(words, json)
    else:
        found = listing(group)
        screen.emit(found) if json else _list(found)
        screen.console.print("[dim]One in full: kdcli recipes mcld[/dim]")


def _page(words: list[str], json: bool) -> None:
    from kdcli import recipes
    from kdcli.cli import recipe_page, screen

    if len(words) > 1:
        raise KdcliError(
            f"one recipe at a time, not {' '.join(words)}; several in one objective are joined "
            f"by +: {'+'.join(words)}."
        )
    own = words[0].endswith(".toml") or "/" in words[0]
    file = Path(words[0]) if own else recipes.folder() / f"{words[0]}.toml"
    told = recipe_page.describe(recipes.load(words[0]), file)
    screen.emit(told) if json else recipe_page.show(told)


def listing(group: str = "") -> list[dict[str, Any]]:
    """The shipped recipes by group, the oldest paper first."""
    from kdcli import recipes

    found = [recipes.load(name) for name in recipes.names()]
    known = list(dict.fromkeys([*GROUPS, *(recipe.group for recipe in found)]))
    if group and group not in known:
        raise unknown("group", group, known)
    found.sort(key=lambda recipe: (known.index(recipe.group), year(recipe.paper), recipe.name))
    return [_line(recipe) for recipe in found if group in ("", recipe.group)]


def _line(recipe: Recipe) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "group": recipe.group,
        "summary": recipe.summary,
        "paper": recipe.paper,
        "short": short(recipe.paper),
        "objective": recipe.formula(settings=False),
        "formula": recipe.formula(),
        "teacher": recipe.teacher,
    }


def year(paper: str) -> str:
    """The year of a reference, the first it names; arXiv numbers look like years and are not.

    >>> year("Hinton, Vinyals, Dean: Distilling. 2015, arXiv:1503.02531. The rates: Tian, 2020")
    '2015'
    """
    found = re.search(r"\b(?:19|20)\d\d\b", re.sub(r"arXiv:\S+", "", paper))
    return found.group() if found else ""


def short(paper: str) -> str:
    """A reference as one cites it: authors and year.

    >>> short("Tian, Krishnan, Isola: Contrastive Distillation. ICLR 2020, arXiv:1910.10699")
    'Tian et al. 2020'
    """
    authors, colon, _ = paper.partition(":")
    if not colon:
        return paper
    names = re.split(r",\s*|\s+and\s+", authors)
    who = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
    return f"{who} {year(paper)}".strip()


def copy(words: list[str]) -> None:
    """`NAME FILE`: a shipped recipe byte for byte; KdcliError if the file is there already."""
    from rich.markup import escape

    from kdcli import recipes
    from kdcli.cli.screen import console
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


def _list(found: list[dict[str, Any]]) -> None:
    """By group: one line a recipe where the terminal has room for it, else two."""
    from rich.markup import escape

    from kdcli.cli.screen import out, table

    wide = out.width >= WIDE
    rows = []
    for group, members in groupby(found, key=lambda line: line["group"]):
        rows += [[]] if rows else []
        rows.append([f"[bold]{escape(group)}[/]"])
        for line in members:
            name, objective = f"  [cyan]{line['name']}[/]", f"minimize {line['objective']}"
            summary, paper = escape(line["summary"]), escape(line["short"])
            if wide:
                rows.append([name, paper, line["objective"], summary])
            else:
                rows.append([name, f"{summary}\n[dim]{paper}; {objective}[/]"])
    columns = ["recipe", "paper", "minimizes", "what it does"]
    columns = columns if wide else ["recipe", "what it does; paper; objective"]
    full = [[*row, *[""] * (len(columns) - len(row))] for row in rows]
    made = table("", columns, full, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    made.columns[0].no_wrap = True
    out.print(made)
