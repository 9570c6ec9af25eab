"""One page about finished runs: what they reached, how they differ, where they err, how to repeat.

The same runs give the same bytes: there is no date in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from kdcli.analysis import figures, page
from kdcli.analysis.confusion import confusions, disagreements
from kdcli.analysis.cost import cost
from kdcli.analysis.naming import listed
from kdcli.analysis.repeat import command
from kdcli.analysis.study import Study, Subject
from kdcli.errors import KdcliError
from kdcli.files import digest
from kdcli.settings import flatten

CONFUSIONS, EXAMPLES = 10, 6  # rows a run; images a run and side
ABSENT = (None, {}, [], "")
# Keys of a configuration that change nothing of what is trained, or are of this machine alone.
APART = re.compile(
    r"recipe\.(paper|summary|group|pairs|datasets|teacher)"
    r"|teacher\.(members\.\d+\.)?(path|top1|dataset)|speed\."
)
COLUMNS = (
    *("run", "network", "parameters", "teacher", "teacher's top-1", "undistilled top-1"),
    *("top-1", "gain", "best on test", "at epoch", "epochs", "training seconds"),
)
Section = tuple[str, str, str]  # id, heading, HTML


def report(study: Study, tell: Callable[[str], None]) -> str:
    """The page, as HTML that needs no other file; `tell` hears what is being made."""
    title = f"{listed(s.name for s in study.subjects)} on {study.place}"
    return page.page(f"kdcli: {title}", _sections(study, tell))


def _sections(study: Study, tell: Callable[[str], None]) -> Iterator[Section]:
    yield "summary", "Summary", summary(study)
    yield "figures", "Figures", _figures(study, tell)
    if len(study.subjects) > 1:
        yield "settings", "Settings that differ", settings(study)
    yield "confusions", "Most frequent confusions", _confusions(study)
    if study.distilled:
        yield "examples", "Where teacher and student disagree", examples(study)
    yield "provenance", "Environment and provenance", provenance(study)
    yield "repeat", "To repeat", _commands(study)


def summary(study: Study) -> str:
    """A row a run, and what the numbers are."""
    rows = [_reached(study, subject) for subject in study.subjects]
    words = (
        f"Top-1 accuracy in percent on the {len(study.dataset.test.labels):,} test images of "
        f"{study.place}, after the last epoch. Gain: over the undistilled student, the same "
        "network trained on the same images for as long from labels alone. The best epoch was "
        "chosen on the test images and is no honest estimate. Time is of training alone."
    )
    return page.table(COLUMNS, rows) + page.paragraph(words, "faint")


def _reached(study: Study, subject: Subject) -> list[Any]:
    result, teacher, alone = subject.run.result, subject.teacher, subject.alone
    best = result.get("best", {})
    plain = _percent(alone.right) if alone else None
    return [
        subject.name,
        subject.run.config["student"],
        cost(subject.network(), study.dataset.size).parameters,
        teacher.name if teacher else None,
        _percent(teacher.answers.right) if teacher else None,
        plain,
        float(result["top1"]),
        result["top1"] - plain if plain is not None else None,
        best.get("top1"),
        best.get("epoch"),
        result.get("epochs"),
        result.get("train_seconds"),
    ]


def _percent(right: Any) -> float:
    return 100 * right.double().mean().item()


def _figures(study: Study, tell: Callable[[str], None]) -> str:
    parts = []
    for kind, piece in figures.pieces(study, figures.KINDS, tell):
        if isinstance(piece, KdcliError):
            why = study.placeless(f"{kind} is not drawn: {piece}")
            parts.append(page.paragraph(why, "faint"))
        else:
            parts.append(page.figure(piece))
    return "".join(parts)


def settings(study: Study) -> str:
    """Every setting of the configurations that is not the same in all runs."""
    flat = {
        s.name: {key: value for key, value in flatten(s.run.config).items() if value not in ABSENT}
        for s in study.subjects
    }
    keys = [key for key in dict.fromkeys(key for each in flat.values() for key in each)
            if not APART.match(key)]  # fmt: skip
    rows = [
        [key, *(str(each.get(key, "–")) for each in flat.values())]
        for key in keys
        if len({str(each.get(key, "–")) for each in flat.values()}) > 1
    ]
    return page.table(["setting", *flat], rows)


def _confusions(study: Study) -> str:
    names = study.dataset.classes
    parts = []
    for name, answers in study.everyone().items():
        rows = [
            [names[each.label], names[each.answer], each.images, each.share]
            for each in confusions(answers, CONFUSIONS)
        ]
        columns = ["class", "taken for", "images", "% of the class"]
        parts.append(f"<div>{page.table(columns, rows, name)}</div>")
    return f'<div class="pairs">{"".join(parts)}</div>'


def examples(study: Study) -> str:
    """A gallery a student: images that it or its teacher alone gets right."""
    words = (
        "Test images that only one of the two gets right: first the teacher, then the student; "
        "of each, those on which both are surest. Percent: the probability of the answer."
    )
    shown = "".join(_gallery(study, subject) for subject in study.distilled)
    return page.paragraph(words, "faint") + shown


def _gallery(study: Study, subject: Subject) -> str:
    names, images = study.dataset.classes, study.dataset.test.images
    items = []
    for each in disagreements(subject.teacher.answers, subject.answers, EXAMPLES):
        said = (names[each.teacher], names[each.student])
        answers = zip(("teacher", "student"), said, each.sureness, strict=True)
        (image,) = images[each.image : each.image + 1]  # streamed ones are read by slices alone
        items.append(page.example(image, names[each.label], answers))
    return page.gallery(f"{subject.name}, under {subject.teacher.name}", items)


def provenance(study: Study) -> str:
    """Versions, machines, seeds and digests, a column a run."""
    told = {s.name: _made(s) for s in study.subjects}
    keys = dict.fromkeys(key for each in told.values() for key in each)
    rows = [[key, *(str(each.get(key, "–")) for each in told.values())] for key in keys]
    dataset = study.dataset
    words = (
        f"Dataset {study.place}: BLAKE2b {dataset.digest} of the images and labels read now. "
        f"{' '.join(dataset.notes)}"
    )
    words = study.placeless(words.strip())
    return page.table(["", *told], rows) + page.paragraph(words, "faint")


def _made(subject: Subject) -> dict[str, Any]:
    run = subject.run
    machine = run.result.get("machine", {})
    told = {"folder": run.name, "seed": run.config["seed"], "kdcli": run.config.get("kdcli")}
    told |= {key.replace("_", " "): value for key, value in machine.items()}
    told |= {
        "model.safetensors, bytes": f"{run.model.stat().st_size:,}",
        "model.safetensors, BLAKE2b": digest(run.model),
    }
    if subject.teacher:
        told["teacher, BLAKE2b"] = ", ".join(digest(path) for path in subject.teacher.files)
    return told


def _commands(study: Study) -> str:
    lines, notes = [], []
    for subject in study.subjects:
        try:
            lines.append(command(subject.run))
        except KdcliError as error:
            why = f"{subject.name} has no command: {error} Its config.json says all."
            notes.append(study.placeless(why))
    parts = [page.paragraph(note, "faint") for note in notes]
    return page.code(lines) + "".join(parts)
