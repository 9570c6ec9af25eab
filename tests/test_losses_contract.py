"""What every loss owes the rest, whatever its mathematics: all files of kdcli/losses are tried."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from kdcli import losses, models
from kdcli.contracts import Batch, Features
from kdcli.losses import Context, Loss
from kdcli.models.network import Network
from tests.tiny import SMALL, TEACHERS

CLASSES, IMAGES = 10, 64
NAMES = losses.names()


class Made(NamedTuple):
    """A loss and the two networks it was built for."""

    loss: Loss
    student: Network  # as the loss wraps it
    teacher: Network


def pixels(rows: int, seed: int) -> Tensor:
    return torch.randn(rows, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def batch(rows: int, views: int) -> Batch:
    zeros = torch.zeros(rows, dtype=torch.int64)
    index = torch.arange(rows)
    others = tuple(pixels(rows, 9 + view) for view in range(1, views))
    return Batch(pixels(rows, 9), index % 3, index, zeros, torch.tensor(0), others)


def build(name: str, **arguments: object) -> Made:
    torch.manual_seed(0)
    student = models.build("tiny8", classes=CLASSES)
    teacher = models.build(TEACHERS.get(name, "tiny16"), classes=CLASSES).eval()
    with torch.no_grad():
        shown = [network.eval().features(pixels(2, 1)) for network in (student, teacher)]
    ctx = Context(*shown, teacher, CLASSES, torch.arange(IMAGES) % 3, 240)
    loss = losses.build(name, ctx, **{**SMALL.get(name, {}), **arguments})
    return Made(loss, loss.wrap(student).train(), teacher)


def cast(features: Features, dtype: torch.dtype) -> Features:
    """Every tensor in another precision, through the tuples."""

    def each(value):
        if isinstance(value, Tensor):
            return value.to(dtype)
        if isinstance(value, Features):
            return cast(value, dtype)
        return tuple(map(each, value)) if isinstance(value, tuple) else value

    return Features(*map(each, features))


def seen(network: Network, samples: Batch, dtype: torch.dtype) -> Features:
    """What a network shows of a batch and of its further views."""
    others = tuple(network.features(images) for images in samples.others)
    return cast(network.features(samples.images)._replace(others=others), dtype)


def kept(features: Features, reads: frozenset[str]) -> Features | None:
    """Only what a loss has declared to read of the teacher."""
    if not reads:
        return None
    others = tuple(kept(other, reads) for other in features.others)
    hidden = {field: None for field in Features._fields if field not in reads}
    return features._replace(**{**hidden, "others": others})


def run(
    made: Made,
    rows: int,
    dtype: torch.dtype = torch.float32,
    reads: frozenset[str] | None = None,
) -> Tensor:
    """One step of the loss alone; its value. The teacher would take gradients if they came."""
    samples = batch(rows, made.loss.views)
    student, teacher = (seen(net, samples, dtype) for net in (made.student, made.teacher))
    value = made.loss(student, kept(teacher, made.loss.reads if reads is None else reads), samples)
    value.backward()
    made.loss.after_step()
    return value.detach()


@pytest.mark.parametrize("name", NAMES)
def test_what_a_loss_declares_to_read_is_all_it_reads(name):
    made = build(name)
    assert made.loss.reads <= {"logits", "pooled", "stages", "preacts", "last"}
    value = run(made, 8)
    assert value.shape == ()
    assert value.isfinite()


@pytest.mark.parametrize(
    ("name", "field"),
    [(name, field) for name in NAMES for field in sorted(losses.load(name).reads)],
)
def test_a_loss_declares_nothing_that_it_does_not_read(name, field):
    with pytest.raises((TypeError, AttributeError)):
        run(build(name), 8, reads=losses.load(name).reads - {field} | {"others"})


REALS = [
    (name, key)
    for name in NAMES
    for key, value in losses.hyperparameters(name).items()
    if isinstance(value, float)
]


@pytest.mark.parametrize(("name", "key"), REALS)
def test_a_whole_number_may_be_set_where_a_real_one_stands(name, key):
    assert run(build(name, **{key: 1}), 8).isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_student_and_never_the_teacher(name):
    made = build(name)
    run(made, 8)
    assert any(p.grad is not None and p.grad.norm() > 0 for p in made.student.parameters())
    assert all(p.grad is None for p in made.teacher.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_side_module_belongs_to_the_loss_and_the_teacher_does_not(name):
    made = build(name)
    run(made, 8)
    assert not {id(p) for p in made.loss.parameters()} & {id(p) for p in made.teacher.parameters()}
    assert not {id(p) for p in made.loss.parameters()} & {id(p) for p in made.student.parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_the_short_last_batch_of_an_epoch_is_a_batch_like_any_other(name):
    made = build(name)
    for rows in (8, 3, 8):
        assert run(made, rows).isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_features_give_a_loss_in_single_precision(name):
    value = run(build(name), 8, torch.bfloat16)
    assert value.dtype == torch.float32
    assert value.isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_resumes_with_the_same_bits(name):
    one, two = build(name), build(name)
    run(one, 8)
    two.loss.load_state_dict(one.loss.state_dict())
    two.student.load_state_dict(one.student.state_dict())
    values = []
    for made in (one, two):
        torch.manual_seed(7)
        values.append(run(made, 8))
    assert torch.equal(*values)


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in NAMES if losses.load(name).capturable])
def test_no_loss_waits_for_the_device(name):
    made = Made(*(module.cuda() for module in build(name)))
    samples = batch(8, made.loss.views)
    samples = Batch(*(x.cuda() for x in samples[:5]), tuple(x.cuda() for x in samples.others))
    for careful in (False, True):  # the first step may still set libraries up
        torch.cuda.set_sync_debug_mode("error" if careful else "default")
        try:
            student, teacher = (
                seen(net, samples, torch.float32) for net in (made.student, made.teacher)
            )
            made.loss(student, kept(teacher, made.loss.reads), samples).backward()
            made.loss.after_step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
