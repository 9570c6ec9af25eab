"""KDSVD: against a literal reading, whatever the signs, and a gradient that stays finite."""

import pytest
import torch

from kdcli.errors import KdcliError
from kdcli.losses.kdsvd import Leading, aligned
from tests.loss_inputs import LABELS, batch, hashed, loss
from tests.loss_maps import shown

WIDTHS = ((4, 8, 8), (6, 4, 4), (9, 4, 4))


def network(stream):
    maps = [hashed((4, *size), stream + n) for n, size in enumerate(WIDTHS)]
    return shown(maps[0], *maps)


STUDENT, TEACHER = network(1), network(11)


def vectors(maps, count):
    """Right singular vectors of [H W, C] by an eigendecomposition, the largest first."""
    rows = maps.flatten(2).mT
    return torch.linalg.eigh(rows.mT @ rows).eigenvectors.flip(2)[:, :, :count]


def literal(student, teacher, image):
    """The loss of one image, entry by entry."""
    total, before = 0.0, None
    for ours, theirs in zip(student.stages[1:], teacher.stages[1:], strict=True):
        target = vectors(theirs, 1)[image, :, 0]
        target = target if target.sum() > 0 else -target
        choice = vectors(ours, 4)[image].T
        best = max(choice, key=lambda v: abs(v @ target))
        best = best if best @ target > 0 else -best
        if before is not None:
            for p in range(len(target)):
                for q in range(len(before[1])):
                    found = torch.exp(-((best[p] - before[0][q]) ** 2) / 8)
                    wanted = torch.exp(-((target[p] - before[1][q]) ** 2) / 8)
                    total += (found - wanted) ** 2
        before = best, target
    return total


def test_the_loss_read_literally():
    expected = sum(literal(STUDENT, TEACHER, image) for image in range(4)) / 4
    found = loss("kdsvd", STUDENT, TEACHER)(STUDENT, TEACHER, batch(LABELS))
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("matrix", ["channels", "rows"])
def test_a_student_that_shows_the_teacher_s_maps_has_nothing_to_learn(matrix):
    module = loss("kdsvd", TEACHER, TEACHER, matrix=matrix)
    assert module(TEACHER, TEACHER, batch(LABELS)).item() == pytest.approx(0, abs=1e-15)


def test_the_sign_that_a_decomposition_happens_to_give_does_not_count():
    turned = TEACHER._replace(stages=tuple(x * (-1) ** n for n, x in enumerate(TEACHER.stages)))
    module = loss("kdsvd", STUDENT, TEACHER)
    values = [module(STUDENT, teacher, batch(LABELS)).item() for teacher in (TEACHER, turned)]
    assert values[0] == pytest.approx(values[1], rel=1e-12)


@pytest.mark.parametrize("shape", [(3, 7, 5), (3, 5, 7), (3, 5, 5)], ids=["tall", "wide", "square"])
def test_the_gradient_is_that_of_the_whole_decomposition(shape):
    rows, target = hashed(shape, 2).requires_grad_(), hashed((3, shape[2], 1), 3)
    found = aligned(Leading.apply(rows, 3)[1], target)
    (found * target).sin().sum().backward()
    again = rows.detach().clone().requires_grad_()
    right = torch.linalg.svd(again, full_matrices=False).Vh[:, :3].mT
    (aligned(right, target) * target).sin().sum().backward()
    torch.testing.assert_close(rows.grad, again.grad, rtol=1e-9, atol=1e-12)
    assert rows.grad.norm() > 0.01


@pytest.mark.parametrize("shape", [(2, 64, 6), (2, 5, 9)])
def test_channels_that_are_dead_or_equal_give_a_finite_gradient(shape):
    rows = hashed(shape, 2).float()
    rows[:, :, -3:] = 0
    rows[:, :, 1] = rows[:, :, 0]
    rows[1] = 0
    rows.requires_grad_()
    values, found = Leading.apply(rows, 4)
    assert values.shape == (2, 4) and not values.requires_grad
    (found * torch.arange(4)).square().sum(1).sin().sum().backward()
    assert rows.grad.isfinite().all()


def test_the_nearest_vector_is_taken_with_its_sign():
    vectors = torch.eye(3)[None] * torch.tensor([1.0, -1.0, 1.0])
    targets = torch.tensor([[[0.1, 0.0], [0.9, 0.2], [0.2, -0.9]]])
    expected = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, -1.0]]])
    assert torch.equal(aligned(vectors, targets), expected)


@pytest.mark.parametrize(
    ("student", "arguments", "message"),
    [
        (shown(*(hashed((4, 5, 8, 8), n) for n in range(4))), {}, "equal widths; behind the stem"),
        (network(1), {"matrix": "row"}, "Did you mean 'rows'"),
        (shown(*(hashed((4, 5, 2, 2), n) for n in range(4))), {"matrix": "rows"}, "equal sides"),
        (shown(hashed((4, 4, 8, 8), 1)), {}, "needs 3 maps"),
    ],
)
def test_what_cannot_be_compared_is_refused(student, arguments, message):
    with pytest.raises(KdcliError, match=message):
        loss("kdsvd", student, TEACHER, **arguments)
