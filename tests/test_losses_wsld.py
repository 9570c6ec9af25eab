"""WSLD: a literal reading of the paper, what the weights say of an image, and their limits."""

import math

import numpy as np
import pytest
import torch

from kdcli import recipes
from kdcli.losses.kd import kl_divergence
from kdcli.losses.wsld import sample_weights
from tests.loss_inputs import LABELS, STUDENT, TEACHER, batch, features, loss, value


def literal(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, t: float) -> float:
    """The formula, one image and one class after the other."""

    def probability(row: np.ndarray, c: int) -> float:
        return math.exp(row[c]) / sum(math.exp(z) for z in row)

    total = 0.0
    for s, z, y in zip(student, teacher, labels, strict=True):
        behind = math.log(probability(s, y)) / (math.log(probability(z, y)) - 1e-7)
        terms = (probability(z / t, c) * math.log(probability(s / t, c)) for c in range(len(s)))
        total -= (1 - math.exp(-behind)) * sum(terms)
    return t * t * total / len(labels)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_the_value_is_that_of_a_literal_reading(temperature):
    known = literal(STUDENT.numpy(), TEACHER.numpy(), LABELS.numpy(), temperature)
    assert value("wsld", temperature=temperature) == pytest.approx(known, rel=1e-12)


def test_the_gradient_is_that_of_the_divergence_image_by_image_with_constant_weights():
    leaf = STUDENT.clone().requires_grad_()
    student, teacher = features(leaf), features(TEACHER)
    loss("wsld", student, teacher)(student, teacher, batch(LABELS)).backward()
    weights = sample_weights(STUDENT, TEACHER, LABELS)
    for row, weight in enumerate(weights):
        own = STUDENT[[row]].clone().requires_grad_()
        kl_divergence(own, TEACHER[[row]], 4.0).backward()
        torch.testing.assert_close(leaf.grad[[row]], weight * own.grad / len(STUDENT))


def test_a_student_ahead_of_its_teacher_is_told_less():
    close = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    far = -close
    label = torch.tensor([0])
    ahead, level, behind = (
        sample_weights(*pair, label).item() for pair in ((close, far), (far, far), (far, close))
    )
    assert ahead < 0.1 < level < 0.99 < behind
    assert level == pytest.approx(1 - math.exp(-1), abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_certain_teacher_leaves_finite_weights(dtype):
    certain, unsure = (torch.tensor([[z, 0.0]], dtype=dtype) for z in (500.0, 0.0))
    label = torch.tensor([0])
    assert sample_weights(unsure, certain, label).item() == 1.0
    assert sample_weights(certain, certain, label).item() == 0.0
    assert sample_weights(certain, unsure, label).item() == 0.0


def test_the_recipe_adds_it_to_the_cross_entropy():
    assert recipes.load("wsld").minimize == {"ce": 1.0, "wsld": 2.25}
