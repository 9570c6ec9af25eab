"""The smallest run there is: 64 made images of 8 classes, networks of a few layers, one thread."""

from collections.abc import Callable
from dataclasses import replace

import torch

from kdcli import models
from kdcli.contracts import Batch
from kdcli.data import Dataset, Split
from kdcli.data.loader import Loader
from kdcli.engine import update
from kdcli.engine.objective import Objective, assemble
from kdcli.engine.phases import plan
from kdcli.engine.teachers import Frozen
from kdcli.engine.train import Trainer
from kdcli.recipe import Recipe

CLASSES = 8
DEVICE = torch.device("cpu")
SMALL = {"crd": {"negatives": 16}, "mcld": {"queue": 40}}  # memories that fit 64 images
TEACHERS = {"fsp": "tiny8", "kdsvd": "tiny8"}  # losses that need a teacher of the student's widths


def dataset(images: int = 64, classes: int = CLASSES) -> Dataset:
    """Noise with a brightness and colour for each class: it can be learned in a few steps."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % classes
    noise = torch.randint(0, 64, (images, 3, 32, 32), generator=generator)
    colour = torch.randint(0, 191, (classes, 3, 1, 1), generator=generator)
    split = Split((noise + colour[labels]).to(torch.uint8), labels)
    names = tuple(f"class {n}" for n in range(classes))
    return Dataset(
        "made", names, (0.5,) * 3, (0.25,) * 3, split, split, padding=4, digest="0", source="here"
    )


def objective(
    minimize: dict[str, float],
    arguments: dict[str, dict] | None = None,
    student: str = "tiny8",
    teacher: str = "",
    seed: int = 0,
) -> Objective:
    """Student, teacher and losses of a recipe on the made dataset; arguments by term."""
    torch.manual_seed(seed)
    data_set = dataset()
    teacher = teacher or next((TEACHERS[term] for term in minimize if term in TEACHERS), "tiny16")
    networks = [models.build(name, classes=CLASSES) for name in (student, teacher)]
    given = {term: dict((arguments or {}).get(term, {})) for term in minimize}
    settings = {
        term: values | SMALL.get(values.get("use", term), {}) for term, values in given.items()
    }
    labels = data_set.train.labels
    made, built = assemble(
        networks[0], networks[1:], settings, torch.zeros(2, 3, 32, 32), labels, CLASSES, 2
    )
    return Objective(made, built, Frozen(networks[1]))


def trainer(
    recipe: Recipe, epochs: int = 2, batch: int = 24, device: str = "cpu", **options: object
) -> Trainer:
    """A run of `epochs` with 3 steps each, the last one of 16 images.

    Phases before the main one last an epoch each.
    """
    terms = {term: 1.0 for phase in (*recipe.pretrain, recipe) for term in phase.minimize}
    made = objective(terms, recipe.losses).to(device)
    if made.teacher:
        made.teacher.network.to(device)
    short = replace(
        recipe,
        epochs=epochs,
        milestones=(1.0,),
        warmup={},
        pretrain=tuple(replace(phase, epochs=1) for phase in recipe.pretrain),
    )
    return Trainer(
        made,
        Loader(dataset(), batch=batch, seed=0, device=device, views=made.views, **recipe.data),
        plan(short, made, rate=0.05),
        lambda parameters: update.build(parameters, **recipe.optimizer),
        accuracy(made),
        device=torch.device(device),
        **options,
    )


def accuracy(made: Objective) -> Callable[[], dict[str, float]]:
    """Evaluation on the training images, which also moves the network through eval and back."""

    def evaluate() -> dict[str, float]:
        on = next(made.student.parameters()).device
        images, labels = (tensor.to(on) for tensor in dataset().train)
        made.student.eval()
        with torch.no_grad():
            hits = made.student(images.float() / 64 - 2).argmax(1) == labels
        return {"top1": 100.0 * hits.float().mean().item()}

    return evaluate


def batch(made: Objective) -> Batch:
    """The first batch of a run."""
    return next(Loader(dataset(), batch=24, seed=0, device=DEVICE, views=made.views).batches(0))


def snapshot(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every parameter and buffer."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two snapshots agree bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
