"""How much more than KD a recipe gains, over several pairs: one number of a paper's table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kdcli.analysis.compare import Section, baseline, same_task
from kdcli.analysis.groups import DISTILLED, Group


@dataclass(frozen=True)
class Improvement:
    """The average relative improvement of one recipe over KD on one dataset."""

    dataset: str
    per_class: int | None  # training images; None: all
    recipe: str
    epochs: int
    percent: float | None  # None: no pair has what it takes
    pairs: tuple[str, ...]  # those that count
    missing: tuple[str, ...]  # of the others, why not


def average_relative_improvement(triples: Iterable[tuple[float, float, float]]) -> float:
    """Mean over pairs of (ours - KD) / (KD - undistilled), in percent; a triple is those three.

    (Tian, Krishnan, Isola: Contrastive Representation Distillation. ICLR 2020, §4.1; the ICD paper
    reports the same number.) Every KD must be above its undistilled student.

    >>> average_relative_improvement([(75.0, 74.0, 72.0), (70.0, 70.0, 68.0)])
    25.0
    """
    ratios = [(ours - kd) / (kd - alone) for ours, kd, alone in triples]
    return 100 * sum(ratios) / len(ratios)


def improvements(made: Iterable[Section], store: Sequence[Group]) -> list[Improvement]:
    """Of each distilled recipe but KD, over the pairs that have KD and the undistilled student.

    Both are looked for among the pair's rows, then in the store.
    """
    made = list(made)
    ours = [
        (section, row.group)
        for section in made
        for row in section.rows
        if row.group.role == DISTILLED and row.group.label != "kd"
    ]
    found = []
    for kind in dict.fromkeys(_kind(group) for _, group in ours):
        triples, pairs, missing = [], [], []
        for section, group in ours:
            if _kind(group) != kind:
                continue
            pool = [*(row.group for row in section.rows), *store]
            kd = next((g for g in pool if g.label == "kd" and _rivals(g, group)), None)
            alone = baseline(group, pool)
            name = f"{section.dataset} {section.teacher or 'no teacher'}->{section.student}"
            if why := _lacking(kd, alone):
                missing.append(f"{name}: {why}")
            else:
                triples.append((group.mean, kd.mean, alone.mean))
                pairs.append(name)
        percent = average_relative_improvement(triples) if triples else None
        found.append(Improvement(*kind, percent, tuple(pairs), tuple(missing)))
    return found


def _kind(group: Group) -> tuple[str, int | None, str, int]:
    """What the groups of one average share: a recipe trained as long on the same images."""
    return group.dataset, group.per_class, group.label, group.epochs


def _rivals(one: Group, other: Group) -> bool:
    return same_task(one, other) and one.teacher == other.teacher


def _lacking(kd: Group | None, alone: Group | None) -> str:
    if kd is None:
        return "no run of kd for as many epochs"
    if alone is None:
        return "no undistilled student for as many epochs"
    if kd.mean <= alone.mean:
        return f"kd ({kd.mean:.2f}) is not above the undistilled student ({alone.mean:.2f})"
    return ""
