"""`kdcli runs [NAME]`: what the run store holds, or one run in full."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdcli.cli import complete
from kdcli.cli import options as o
from kdcli.errors import KdcliError

if TYPE_CHECKING:
    from kdcli.runs import Run

WIDE = 130  # columns of a terminal from which a run stands on one line


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel=o.LOOK)(runs)


def runs(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            autocompletion=complete.run,
            help="One run in full, by its name or folder. All runs if absent.",
        ),
    ] = "",
    run_dir: o.RunDir = Path("runs"),
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """List the runs, newest last, or show one: configuration, result and log.

    Example: kdcli runs teach-resnet32x4-cifar100-s0
    """
    from rich.markup import escape

    from kdcli import runs
    from kdcli.cli.show import screen

    screen.quieten(quiet)
    if name:
        found = runs.find(run_dir, name)
        screen.emit(describe(found)) if json else _show(found)
        return
    rows = [summary(run) for run in runs.all_runs(run_dir)]
    if json:
        screen.emit(rows)
    elif rows:
        _list(rows)
    else:
        screen.console.print(
            f"No run in {escape(str(run_dir))} yet. First: [bold]kdcli demo[/] or "
            "[bold]kdcli teach resnet32x4[/]; another folder: --run-dir or KDCLI_RUN_DIR."
        )


def summary(run: Run) -> dict[str, Any]:
    """The line of a run; one whose files are damaged says so, and hides no other."""
    try:
        config, log, result = run.config, run.log(), run.result
    except (KdcliError, ValueError) as error:
        return {"run": run.name, "state": "damaged", "detail": str(error)}
    recipe = config.get("recipe") or {}
    scores = [(record["test"]["top1"], record["epoch"]) for record in log if "test" in record]
    best = max(scores, key=lambda score: (score[0], -score[1])) if scores else (None, None)
    return {
        "run": run.name,
        "kind": config.get("kind"),
        "dataset": config.get("dataset"),
        "student": config.get("student"),
        "teacher": (config.get("teacher") or {}).get("model"),
        "recipe": recipe.get("name"),
        "seed": config.get("seed"),
        "epochs_done": len(log),
        "epochs": _length(recipe) or len(log),
        "top1": scores[-1][0] if scores else result.get("top1"),
        "best_top1": best[0],
        "best_epoch": best[1],
        "state": run.state,
    }


def _length(recipe: dict[str, Any]) -> int:
    """Epochs of the main phase and of those before it."""
    return sum(phase["epochs"] for phase in (*recipe.get("pretrain", ()), {"epochs": 0, **recipe}))


def describe(run: Run) -> dict[str, Any]:
    """Everything written down about one run."""
    return {
        "run": run.name,
        "path": str(run.path),
        "state": run.state,
        "config": run.config,
        "result": run.result,
        "log": run.log(),
    }


def _list(rows: list[dict[str, Any]]) -> None:
    from rich.markup import escape

    from kdcli.cli.show import screen

    wide = screen.out.width >= WIDE
    shown = []
    for row in rows:
        done = row["state"] == "finished"
        state = row["state"] if done else f"[yellow]{row['state']}[/]"
        name, what = f"[cyan]{escape(row['run'])}[/]", f"[dim]{escape(_what(row))}[/]"
        head = [name, what] if wide else [f"{name}\n{what}"]
        if row["state"] == "damaged":
            shown.append([*head, "", "", "", state])
            continue
        best = "" if row["best_top1"] is None else f"{row['best_top1']:.2f} @ {row['best_epoch']}"
        epochs = f"{row['epochs_done']}/{row['epochs']}"
        shown.append([*head, epochs, _percent(row["top1"]), best, state])
    columns = ["run", *(["what"] if wide else []), "epochs", "top-1", "best @ epoch", "state"]
    made = screen.table("", columns, shown, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in made.columns[-4:-1]:
        column.justify = "right"
    screen.out.print(made)
    unfinished = [row["run"] for row in rows if row["state"] == "unfinished"]
    if unfinished:
        screen.console.print(
            f"[dim]An unfinished one goes on: kdcli resume {escape(unfinished[-1])}[/]"
        )


def _what(row: dict[str, Any]) -> str:
    if row["state"] == "damaged":
        return row["detail"]
    under = f"{row['teacher']} → " if row["teacher"] else ""
    how = row["kind"] if row["kind"] == row["recipe"] else f"{row['kind']} {row['recipe']}"
    return f"{how}: {under}{row['student']}, {row['dataset']}, seed {row['seed']}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _show(run: Run) -> None:
    """Configuration and result as dotted keys, then a line an epoch."""
    from rich.markup import escape

    from kdcli.cli.show.screen import console, out, table
    from kdcli.settings import flatten

    style = {"box": None, "pad_edge": False, "padding": (0, 2, 0, 0)}
    out.print(f"[bold cyan]{escape(run.name)}[/]  {run.state}  [dim]{escape(str(run.path))}[/]")
    for title, values in (("asked", run.config), ("came out", run.result)):
        rows = [(f"[dim]{escape(k)}[/]", escape(str(v))) for k, v in flatten(values).items()]
        if rows:
            out.print()
            out.print(table(title, ["", ""], rows, show_header=False, **style))
    log = run.log()
    if log:
        terms = [key for key in dict.fromkeys(k for r in log for k in r["train"]) if key != "top1"]
        columns = ["epoch", "phase", "lr", *terms, "train top-1", "test top-1", "top-5", "s"]
        out.print()
        made = table("", columns, [_line(record, terms) for record in log], **style)
        for column in made.columns[2:]:
            column.justify = "right"
        out.print(made)
    if run.state == "unfinished":
        console.print(f"Next: [bold]kdcli resume {escape(run.name)}[/]")


def _line(record: dict[str, Any], terms: list[str]) -> list[Any]:
    """One epoch; a term that another phase has is empty here."""
    train, test = record["train"], record["test"]
    shown = [f"{train[term]:.4f}" if term in train else "" for term in terms]
    last = [train.get("top1"), test.get("top1"), test.get("top5"), record.get("seconds")]
    numbers = [f"{value:.2f}" if value is not None else "" for value in last]
    return [record["epoch"], record["phase"], f"{record['lr']:g}", *shown, *numbers]
