"""A bar for work that is counted in images; it shows on a terminal only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kdcli.cli.show.screen import console


@contextmanager
def counting(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yield what takes (done, of how many, what is being done), as often as one likes."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    live = console.is_terminal and not console.quiet
    # What is printed meanwhile stays on standard output, which may be a file.
    options = {"disable": not live, "transient": True, "redirect_stdout": False}
    with Progress(*columns, console=console, **options) as bars:
        task = bars.add_task(escape(title), total=None)

        def report(done: int, total: int, what: str) -> None:
            bars.update(task, completed=done, total=total, description=escape(what))

        yield report
