"""CRD with a queue: a literal reading, what the queue holds when, and its end."""

import math

import pytest
import torch

from kdcli.errors import KdcliError
from tests.loss_inputs import batch, features, hashed, loss

WIDTH, TEMPERATURE = 6, 0.07
LABELS = torch.arange(4)


def pooled(stream, rows=4):
    """Penultimate features, of length 1."""
    return features(torch.nn.functional.normalize(hashed((rows, WIDTH), stream), dim=1))


def build(**arguments):
    """The loss with embeddings that change nothing and a known queue."""
    module = loss("crd_queue", pooled(1), pooled(2), **{"queue": 10, "dim": WIDTH, **arguments})
    with torch.no_grad():
        for embed in (module.embed_student, module.embed_teacher):
            embed.weight.copy_(torch.eye(WIDTH))
            embed.bias.zero_()
        module.queue.copy_(pooled(3, len(module.queue)).pooled)
    return module


def literal(students, teachers, queue):
    """InfoNCE, one image and one queue row after the other."""
    total = 0.0
    for u, v in zip(students, teachers, strict=True):
        own = math.exp(u.dot(v).item() / TEMPERATURE)
        others = sum(math.exp(u.dot(q).item() / TEMPERATURE) for q in queue)
        total -= math.log(own / (own + others))
    return total / len(students)


@pytest.mark.parametrize("enqueue", ["before", "after"])
def test_two_steps_are_those_of_a_literal_reading(enqueue):
    module = build(enqueue=enqueue)
    rows = list(module.queue.clone())
    for step in range(2):
        student, teacher = pooled(10 + step), pooled(20 + step)
        moved = list(rows)
        moved[4 * step : 4 * step + 4] = teacher.pooled
        known = literal(student.pooled, teacher.pooled, moved if enqueue == "before" else rows)
        assert module(student, teacher, batch(LABELS)).item() == pytest.approx(known, rel=1e-12)
        module.after_step()
        rows = moved


def test_an_own_teacher_among_the_negatives_keeps_the_loss_above_log_2():
    same = pooled(1)
    for enqueue, above in (("before", True), ("after", False)):
        module = build(enqueue=enqueue)
        module.queue.copy_(-same.pooled[:1])  # far from the batch's first image
        first = features(same.pooled[:1])
        assert (module(first, first, batch(LABELS[:1])).item() > math.log(2)) == above


def test_a_queue_is_a_ring_that_a_batch_may_cross():
    module = build()
    batches = [pooled(stream) for stream in (20, 21, 22)]
    for teacher in batches:
        module(pooled(1), teacher, batch(LABELS))
        module.after_step()
    first, second, third = (teacher.pooled for teacher in batches)
    wanted = torch.cat([third[2:], first[2:], second, third[:2]])
    assert torch.equal(module.queue, torch.nn.functional.normalize(wanted, dim=1))
    assert module.pointer.item() == 2


def test_a_queue_shorter_than_a_batch_keeps_its_last_rows():
    module = build(queue=3)
    teacher = pooled(20)
    module(pooled(1), teacher, batch(LABELS))
    module.after_step()
    assert torch.equal(module.queue, torch.nn.functional.normalize(teacher.pooled[1:], dim=1))


def test_nothing_moves_before_the_step_and_nothing_twice_after_it():
    module = build()
    before = module.queue.clone()
    module(pooled(1), pooled(2), batch(LABELS)).backward()
    assert torch.equal(module.queue, before)
    module.after_step()
    module.after_step()
    assert module.pointer.item() == 4


def test_a_new_queue_holds_unit_rows():
    module = loss("crd_queue", pooled(1), pooled(2))
    assert module.queue.shape == (16384, 128)
    torch.testing.assert_close(module.queue.norm(dim=1), torch.ones(16384, dtype=torch.float64))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"queue": 0}, "at least 1"), ({"enqueue": "befor"}, "Did you mean 'before'")],
)
def test_a_setting_that_cannot_be_is_an_error(arguments, said):
    with pytest.raises(KdcliError, match=said):
        loss("crd_queue", pooled(1), pooled(2), **arguments)
