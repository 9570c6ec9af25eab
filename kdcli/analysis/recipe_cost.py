"""What each recipe costs beyond the student: counted, written down in `recipes/costs.json`.

`python -m kdcli.analysis.recipe_cost` writes the file anew, after a change to a recipe or a loss.

One pair of networks is taken for all, the CIFAR-100 pair that most papers print, and 50,000
images of 32 x 32 pixels in 100 classes. Work is in FLOPs, 2 for each multiply-add, of convolutions
and products of matrices; norms, softmax and sampling come on top. A network that is trained takes
three times its forward pass. What the losses take, both passes, is counted while they run.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from kdcli import models, recipes
from kdcli.analysis.cost import cost
from kdcli.contracts import Batch, Features
from kdcli.engine.objective import Objective, assemble, shows
from kdcli.engine.phases import Phase, plan
from kdcli.files import write_text
from kdcli.losses import Loss
from kdcli.models.network import Network
from kdcli.recipe import Recipe

TEACHER, STUDENT = "resnet32x4", "resnet8x4"
IMAGES, CLASSES, SIZE = 50_000, 100, 32
PROBE = "probe"  # trains a classifier on features that are computed once; nothing is distilled
FIELDS = ("logits", "pooled", "stages", "preacts", "last")


@dataclass(frozen=True)
class RecipeCost:
    """Beyond the student alone; work an image of training, the mean over all epochs."""

    reads: tuple[str, ...]  # fields of the teacher's Features
    parameters: int  # trained, over those that the student has by itself
    memory_bytes: int  # what the losses remember: queues, memories, tables
    student_flops: int  # of a training step, forward and backward
    teacher_flops: int  # forward alone
    loss_flops: int
    work: float  # the three together, as a multiple of the student's on labels alone


def weigh(recipe: Recipe) -> RecipeCost:
    """The cost of a recipe for the pair above; some seconds, most of them the losses'."""
    teacher, own = _network(TEACHER), _network(STUDENT)
    student, losses = assembled(recipe)
    phases = plan(recipe, Objective(student, losses), rate=1.0)
    epochs = sum(phase.epochs for phase in phases)
    spent = [_phase(phase, student, teacher, losses, recipe.batch) for phase in phases]
    shares = [phase.epochs / epochs for phase in phases]
    means = [
        sum(share * flops for share, flops in zip(shares, parts, strict=True))
        for parts in zip(*spent, strict=True)
    ]
    return RecipeCost(
        *carried(student, losses),
        *map(round, means),
        round(sum(means) / (3 * _forward(own)), 2),
    )


def assembled(recipe: Recipe) -> tuple[Network, dict[str, Loss]]:
    """The student as the recipe's losses wrap it, and the losses of all its phases by term."""
    phases = [*recipe.pretrain, recipe]
    terms = dict.fromkeys(term for phase in phases for term in phase.minimize)
    return assemble(
        copy.deepcopy(_network(STUDENT)),
        [_network(TEACHER)],
        {term: recipe.losses.get(term, {}) for term in terms},
        torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)),
        torch.arange(IMAGES) % CLASSES,
        CLASSES,
        recipe.epochs,
    )


def carried(student: Network, losses: Mapping[str, Loss]) -> tuple[tuple[str, ...], int, int]:
    """Fields read of the teacher, parameters trained over the student's own, bytes remembered."""
    reads = {field for loss in losses.values() for field in loss.reads}
    trained = [*student.parameters(), *(p for loss in losses.values() for p in loss.parameters())]
    return (
        tuple(field for field in FIELDS if field in reads),
        _trained(trained) - _trained(_network(STUDENT).parameters()),
        sum(buffer.nbytes for loss in losses.values() for buffer in loss.buffers()),
    )


@cache
def _network(name: str) -> Network:
    return models.build(name, CLASSES)


def _forward(network: Network) -> int:
    return cost(network, SIZE).flops_per_image


def _trained(parameters: Iterable[Tensor]) -> int:
    return sum(p.numel() for p in parameters if p.requires_grad)


def _phase(
    phase: Phase, student: Network, teacher: Network, losses: Mapping[str, Loss], rows: int
) -> tuple[float, float, float]:
    """FLOPs an image of student, teacher and losses in one phase."""
    active = [losses[term] for term in phase.weights]
    for loss in active:
        loss.begin(phase.name == "main")
    views = max(loss.views for loss in active)
    learns = not all(phase.frozen(f"student.{name}") for name, _ in student.named_parameters())
    taught = any(loss.reads for loss in active)
    return (
        (3 if learns else 1) * views * _forward(student),
        views * _forward(teacher) if taught else 0.0,
        _counted(active, student, teacher, rows) / rows,
    )


def _counted(active: list[Loss], student: Network, teacher: Network, rows: int) -> int:
    """FLOPs of the losses' forward and backward passes on a batch of `rows`."""
    images, index = torch.zeros(2, 3, SIZE, SIZE), torch.arange(rows)
    ours, theirs = (_noise(shows(network, images), rows) for network in (student, teacher))
    batch = Batch(images, index % CLASSES, index, index * 0, torch.tensor(0), (images,))
    with FlopCounterMode(display=False) as counter:
        for loss in active:
            loss.train()(ours, theirs, batch).backward()
    return counter.get_total_flops()


def _noise(shown: Features, rows: int) -> Features:
    """Noise in the shapes of `shown`, [rows, ...] each, twice for a loss of two views."""

    def noise(tensor: Tensor) -> Tensor:
        return torch.randn(rows, *tensor.shape[1:], requires_grad=True)

    stages, preacts = (tuple(map(noise, maps)) for maps in (shown.stages, shown.preacts))
    made = Features(
        noise(shown.logits), noise(shown.pooled), stages, preacts, last=noise(shown.last)
    )
    return made._replace(others=(made,))


def table() -> str:
    """The text of `recipes/costs.json`: a line for every shipped recipe that `distill` takes."""
    found = {name: asdict(weigh(recipes.load(name))) for name in recipes.names() if name != PROBE}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(told)}" for name, told in found.items())
    head = {"teacher": TEACHER, "student": STUDENT, "images": IMAGES, "classes": CLASSES}
    return f'{json.dumps(head)[:-1]}, "recipes": {{\n{lines}\n}}}}\n'


if __name__ == "__main__":
    write_text(recipes.folder() / "costs.json", table())
