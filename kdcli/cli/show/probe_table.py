"""How `kdcli probe` shows several networks and solvers, with what papers print beside them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.markup import escape

from kdcli.cli.show import screen

if TYPE_CHECKING:
    from kdcli.analysis.groups import Group
    from kdcli.cli.work.pick import Picked
    from kdcli.data import Dataset
    from kdcli.transfer.features import Scored

PUBLISHED_SIZE = 32  # pixels of an image


class Probed(NamedTuple):
    """One network's scores."""

    picked: Picked
    model: str
    trained_on: str | None
    results: Mapping[str, Scored]  # by solver


def records(found: Sequence[Probed], loaded: Dataset, as_published: bool) -> list[dict[str, Any]]:
    """A flat record for each network and solver; the published number stands beside sgd's."""
    from kdcli.analysis.groups import DISTILLED, Group, describes

    groups = [Group((p.picked.run,)) if p.picked.run and describes(p.picked.run) else None
              for p in found]  # fmt: skip
    pair = next(((g.teacher, g.student) for g in groups if g and g.role == DISTILLED), ("", ""))
    return [
        {
            "network": str(probed.picked.path),
            "run": probed.picked.run.name if probed.picked.run else None,
            "role": group.role if group else "file",
            "recipe": group.label if group else None,
            "model": probed.model,
            "epochs_trained": group.epochs if group else None,
            "train_per_class": group.per_class if group else None,
            "trained_on": probed.trained_on,
            "dataset": loaded.name,
            "size": loaded.size,
            **({"seed": result.settings["seed"]} if "seed" in result.settings else {}),
            **asdict(result),
            **(_published(group, pair, loaded, as_published) if group and name == "sgd" else {}),
        }
        for probed, group in zip(found, groups, strict=True)
        for name, result in probed.results.items()
    ]


def _published(
    group: Group, pair: tuple[str, str], loaded: Dataset, as_published: bool
) -> dict[str, Any]:
    """The number that a paper prints of this student or teacher, and why it is no measure."""
    from kdcli.data import TABLE

    printed = group.printed(loaded.name, pair)
    if printed is None:
        return {}
    caveats = list(group.caveats)
    entry = TABLE.get(loaded.name)
    if entry and len(loaded.train.labels) != entry.train:
        caveats.append(f"{len(loaded.train.labels):,} of {entry.train:,} images to train on")
    if entry and len(loaded.test.labels) != entry.test:
        caveats.append(f"{len(loaded.test.labels):,} of {entry.test:,} images to test on")
    if not as_published or loaded.size != PUBLISHED_SIZE:
        caveats.append("another probe")
    return {"published": printed.value, "published_in": printed.table, "caveats": caveats}


def show(found: Sequence[Probed], lines: list[dict[str, Any]], loaded: Dataset) -> None:
    """One record in full, or a table of several: networks down, solvers across."""
    if len(lines) == 1:
        from kdcli.settings import flatten

        flat = {key.removeprefix("settings."): value for key, value in flatten(lines[0]).items()}
        told = {key: value for key, value in flat.items() if value not in (None, [])}
        rows = [[escape(k.replace("_", " ")), _plain(v)] for k, v in told.items()]
        screen.out.print(screen.table("", ["probe", ""], rows))
        return
    images = f"{len(loaded.train.labels):,} training and {len(loaded.test.labels):,} test images"
    size = f"{loaded.size}x{loaded.size}"
    screen.out.print(f"[bold]{escape(loaded.name)}[/] at {size}: {images}; top-1, %")
    solvers = list(found[0].results)
    printed = any("published" in line for line in lines)
    heads = [name for s in solvers for name in ((s, "1-nn") if s == "knn" else (s,))]
    columns = ["", "network", *heads, *(["published"] if printed else [])]
    rows = [_row(part, solvers, printed) for part in _together(found, lines)]
    screen.print_numbers(columns, rows, words=2)
    for note in _notes(lines):
        screen.out.print(f"[dim]{escape(note)}[/]")


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"
    return escape(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _together(found: Sequence[Probed], lines: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The records of a table's row: of one file, or of runs that differ in the seed alone."""
    from kdcli.analysis.groups import DISTILLED, TEACHER, UNDISTILLED, describes, together

    known = [p.picked.run for p in found if p.picked.run and describes(p.picked.run)]
    groups, _ = together(known)
    order = [TEACHER, UNDISTILLED, DISTILLED]
    groups.sort(key=lambda group: order.index(group.role))
    paths = [{str(run.model) for run in group.runs} for group in groups]
    held = set().union(*paths)
    rest = dict.fromkeys(line["network"] for line in lines if line["network"] not in held)
    return [
        [line for line in lines if line["network"] in part]
        for part in [*paths, *({path} for path in rest)]
    ]


def _row(part: list[dict[str, Any]], solvers: list[str], printed: bool) -> list[str]:
    first = part[0]
    cells = [first["role"], escape(_network(part))]
    for solver in solvers:
        of = [line for line in part if line["solver"] == solver]
        cells.append(_spread([line["top1"] for line in of]))
        if solver == "knn":
            cells.append(_spread([line["nearest_top1"] for line in of]))
    if printed:
        number = next((line for line in part if "published" in line), None)
        shown = f"{number['published']:.2f}" if number else ""
        cells.append(f"[dim]({shown})[/]" if number and number["caveats"] else shown)
    return cells


def _network(part: list[dict[str, Any]]) -> str:
    """What tells a row from its neighbours."""
    first = part[0]
    if first["recipe"] is None:
        return first["network"]
    few = first["train_per_class"]
    parts = [
        first["model"],
        *([] if first["role"] == "teacher" else [first["recipe"]]),
        f"{first['epochs_trained']} epoch{'s' * (first['epochs_trained'] > 1)}",
        *([f"{few} images a class"] if few else []),
    ]
    return ", ".join(parts)


def _spread(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f} ({len(values)})"


def _notes(lines: list[dict[str, Any]]) -> list[str]:
    """How the solvers were set, what did not converge, and what published numbers are worth."""
    notes = []
    regressions = [line for line in lines if line["solver"] == "lbfgs"]
    if regressions:
        chosen = ", ".join(f"{line['settings']['weight_decay']:g}" for line in regressions)
        notes.append(
            f"lbfgs: weight decay {chosen}, chosen on training images; features standardised"
        )
        late = [line["network"] for line in regressions if not line["converged"]]
        notes += [f"lbfgs did not converge: {', '.join(late)}"] if late else []
    votes = next((line["settings"] for line in lines if line["solver"] == "knn"), None)
    if votes:
        notes.append(
            f"knn: {votes['neighbours']} neighbours by cosine, exp(s / {votes['temperature']})"
        )
    printed = [line for line in lines if "published" in line]
    if printed:
        tables = dict.fromkeys(line["published_in"] for line in printed)
        notes.append(f"published: {', '.join(tables)}, by sgd (kdcli recipes NAME has sources)")
    doubts = dict.fromkeys(doubt for line in printed for doubt in line["caveats"])
    if doubts:
        notes.append(f"(in brackets) is no measure for: {', '.join(doubts)}")
    return notes
