"""What every loss owes the rest, whatever its mathematics: all files of kdcli/losses are tried."""

import pytest
import torch

from kdcli import losses
from kdcli.contracts import Batch, Features
from kdcli.losses import Context

CLASSES, IMAGES = 10, 64
SMALL = {"crd": {"negatives": 16}, "mcld": {"queue": 40}}  # memories that fit 64 images
NAMES = losses.names()


def maps(rows: int, widths: tuple[int, ...], seed: int, dtype=torch.float32) -> Features:
    """Features of a network with stages of these widths; gradients are asked for."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator).to(dtype).requires_grad_()

    sizes = [16, *(16 // 2**i for i in range(len(widths) - 1))]
    preacts = tuple(draw(rows, width, h, h) for width, h in zip(widths, sizes, strict=True))
    stages = tuple(preact.relu() for preact in preacts)
    return Features(draw(rows, CLASSES), draw(rows, widths[-1]), stages, preacts)


def batch(rows: int) -> Batch:
    zeros = torch.zeros(rows, dtype=torch.int64)
    index = torch.arange(rows)
    return Batch(torch.zeros(rows, 3, 8, 8), index % 3, index, zeros, torch.tensor(0))


def build(name: str) -> losses.Loss:
    torch.manual_seed(0)
    student, teacher = maps(2, (8, 8, 16, 32), 1), maps(2, (8, 16, 32, 64), 2)
    labels = torch.arange(IMAGES) % 3
    ctx = Context(student, teacher, None, CLASSES, labels, 240)
    return losses.build(name, ctx, **SMALL.get(name, {}))


def on_device(side: Features) -> Features:
    stages, preacts = (tuple(x.cuda() for x in group) for group in (side.stages, side.preacts))
    return Features(side.logits.cuda(), side.pooled.cuda(), stages, preacts)


def run(module: losses.Loss, rows: int, dtype=torch.float32):
    """One step of the loss alone; the features it saw, and its value."""
    student, teacher = maps(rows, (8, 8, 16, 32), 3, dtype), maps(rows, (8, 16, 32, 64), 4, dtype)
    reads = module.reads
    kept = {"logits": teacher.logits}
    kept["pooled"] = teacher.pooled if reads & {"pooled", "stages"} else None
    if "stages" in reads:
        kept |= {"stages": teacher.stages, "preacts": teacher.preacts}
    value = module(student, Features(**kept) if reads else None, batch(rows))
    value.backward()
    module.after_step()
    return student, teacher, value


@pytest.mark.parametrize("name", NAMES)
def test_what_a_loss_declares_to_read_is_all_it_reads(name):
    module = build(name)
    assert module.reads <= {"logits", "pooled", "stages"}
    _, _, value = run(module, 8)
    assert value.shape == ()
    assert value.isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_student_and_never_the_teacher(name):
    student, teacher, _ = run(build(name), 8)
    inputs = [student.logits, student.pooled, *student.preacts]
    assert any(x.grad is not None and x.grad.norm() > 0 for x in inputs)
    assert all(x.grad is None for x in (teacher.logits, teacher.pooled, *teacher.preacts))


@pytest.mark.parametrize("name", NAMES)
def test_the_short_last_batch_of_an_epoch_is_a_batch_like_any_other(name):
    module = build(name)
    for rows in (8, 3, 8):
        assert run(module, rows)[2].isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_features_give_a_loss_in_single_precision(name):
    _, _, value = run(build(name), 8, torch.bfloat16)
    assert value.dtype == torch.float32
    assert value.isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_resumes_with_the_same_bits(name):
    one, two = build(name), build(name)
    run(one, 8)
    two.load_state_dict(one.state_dict())
    values = []
    for module in (one, two):
        torch.manual_seed(7)
        values.append(run(module, 8)[2])
    assert torch.equal(*values)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_no_loss_waits_for_the_device(name):
    module = build(name).cuda()
    sides = maps(8, (8, 8, 16, 32), 3), maps(8, (8, 16, 32, 64), 4)
    student, teacher = (on_device(side) for side in sides)
    samples = Batch(*(x.cuda() for x in batch(8)[:5]))
    for careful in (False, True):  # the first step may still set libraries up
        torch.cuda.set_sync_debug_mode("error" if careful else "default")
        try:
            module(student, teacher, samples).backward()
            module.after_step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
