"""The shipped recipes as a list: paper, what each reads of a teacher, and what it costs."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any

from kdcli import recipes
from kdcli.cli.show import recipe_costs
from kdcli.errors import unknown
from kdcli.recipe import Recipe

GROUPS = ["baseline", "logit", "feature", "relation", "contrastive", "online", "optimizer"]
WIDE = 130  # columns of a terminal from which a recipe stands on one line
LEGEND = (
    "reads: of the teacher's answer. trains: parameters beside the student's. keeps: queues and "
    "memories. work: of training, that on labels alone being 1."
)


def listing(group: str = "") -> list[dict[str, Any]]:
    """The shipped recipes by group, the oldest paper first."""
    found = [recipes.load(name) for name in recipes.names()]
    known = list(dict.fromkeys([*GROUPS, *(recipe.group for recipe in found)]))
    if group and group not in known:
        raise unknown("group", group, known)
    found.sort(key=lambda recipe: (known.index(recipe.group), year(recipe.paper), recipe.name))
    costs = recipe_costs.written()["recipes"]
    return [
        _line(recipe, costs.get(recipe.name)) for recipe in found if group in ("", recipe.group)
    ]


def _line(recipe: Recipe, cost: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "group": recipe.group,
        "summary": recipe.summary,
        "paper": recipe.paper,
        "short": short(recipe.paper),
        "year": year(recipe.paper),
        "objective": recipe.formula(settings=False),
        "formula": recipe.formula(),
        "teacher": recipe.teacher,
        "cost": cost,
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


def show(found: list[dict[str, Any]]) -> None:
    """By group: one line a recipe where the terminal has room for it, else two."""
    from rich.markup import escape

    from kdcli.cli.show.screen import out, table

    wide = out.width >= WIDE
    rows = []
    for group, members in groupby(found, key=lambda line: line["group"]):
        rows += [[]] if rows else []
        rows.append([f"[bold]{escape(group)}[/]"])
        for line in members:
            name, summary = f"  [cyan]{line['name']}[/]", escape(line["summary"])
            paper, *cost = escape(line["short"]), *_cost(line["cost"])
            if wide:
                rows.append([name, summary, paper, *cost])
            else:
                rows.append([name, f"{summary}\n[dim]{_aligned(paper, *cost)}[/]"])
    head = ["paper", "reads", "trains", "keeps", "work"]
    columns = ["recipe", "what it does", *head]
    columns = columns if wide else ["recipe", f"what it does\n{_aligned(*head)}"]
    full = [[*row, *[""] * (len(columns) - len(row))] for row in rows]
    made = table("", columns, full, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    made.columns[0].no_wrap = True
    for column in made.columns[4:]:
        column.justify = "right"
    out.print(made)
    pair = recipe_costs.written()
    if len(pair) > 1:
        out.print(f"\n[dim]{LEGEND} For {pair['teacher']} to {pair['student']} on CIFAR-100.[/]")


def _aligned(paper: str, reads: str, trains: str, keeps: str, work: str) -> str:
    """What stands below a summary, in columns of an 80-column terminal."""
    return f"{paper:<30} {reads:<15} {trains:>5} {keeps:>6} {work:>5}"


def _cost(cost: dict[str, Any] | None) -> tuple[str, str, str, str]:
    """What a recipe reads, trains, keeps and works, each as a cell."""
    if cost is None:
        return "", "", "", ""
    return (
        ", ".join(cost["reads"]) or "-",
        recipe_costs.size(cost["parameters"]),
        recipe_costs.size(cost["memory_bytes"], "B"),
        f"{cost['work']:.2f}",
    )
