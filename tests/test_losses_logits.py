"""CE, KD and DKD: known values, identities, and what large logits do not break."""

import math

import pytest
import torch

from kdcli.errors import KdcliError
from kdcli.losses.dkd import decoupled
from kdcli.losses.kd import kl_divergence, standardize
from tests.loss_inputs import LABELS, STUDENT, TEACHER, batch, features, loss, value


@pytest.mark.parametrize(
    ("name", "arguments", "known"),
    [
        ("ce", {}, 2.34165791),
        ("kd", {}, 1.26290228),
        ("kd", {"temperature": 1.0}, 1.01593059),
        ("kd", {"temperature": 2.0, "standardize": True}, 0.60768514),
        ("dkd", {}, 8.48275432),
        ("dkd", {"beta": 0.0}, 0.37282589),
        ("dkd", {"alpha": 0.0, "beta": 1.0}, 1.01374105),
        ("dkd", {"alpha": 9, "beta": 72, "temperature": 2, "standardize": True}, 38.47312636),
    ],
)
def test_known_values(name, arguments, known):
    assert value(name, **arguments) == pytest.approx(known, abs=6e-9)


def test_standardized_row():
    known = [-0.128714, 0.786436, 1.038198, 0.508165, -0.554380, -1.649705]
    assert standardize(STUDENT)[0].tolist() == pytest.approx(known, abs=1e-6)


def test_smoothed_cross_entropy_mixes_in_the_uniform_distribution():
    log = STUDENT.log_softmax(1)
    known = -(0.9 * log.gather(1, LABELS[:, None]).mean() + 0.1 * log.mean())
    assert value("ce", smoothing=0.1) == pytest.approx(known.item(), abs=1e-12)


def test_cross_entropy_needs_no_teacher():
    student = features(STUDENT)
    assert loss("ce", student, None)(student, None, batch(LABELS)) > 0


def test_kd_is_the_target_part_and_the_rest_weighted_by_its_mass():
    for row, label in enumerate(LABELS):
        student, teacher, y = STUDENT[[row]], TEACHER[[row]], label[None]
        target, rest = decoupled(student, teacher, y, 1.0)
        mass = 1 - teacher.softmax(1)[0, label]
        whole = kl_divergence(student, teacher, 1.0)
        assert (target + mass * rest).item() == pytest.approx(whole.item(), abs=1e-12)


def test_gradient_through_the_temperature_is_right_and_finite():
    for divergence in (
        lambda t: kl_divergence(STUDENT, TEACHER, t),
        lambda t: sum(decoupled(STUDENT, TEACHER, LABELS, t)),
    ):
        temperature = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
        (found,) = torch.autograd.grad(divergence(temperature), temperature)
        slope = (divergence(temperature + 1e-5) - divergence(temperature - 1e-5)) / 2e-5
        assert found.item() == pytest.approx(slope.item(), abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_certain_teachers_give_finite_losses_and_gradients(dtype):
    teacher = features(torch.eye(6, dtype=dtype)[LABELS] * 300)
    for name in ("kd", "dkd"):
        logits = (-teacher.logits).detach().requires_grad_()
        student = features(logits)
        found = loss(name, student, teacher, temperature=1.0)(student, teacher, batch(LABELS))
        found.backward()
        assert found.dtype == torch.float32
        assert math.isfinite(found.item())
        assert logits.grad.isfinite().all()


def test_no_gradient_reaches_the_teacher():
    logits = TEACHER.clone().requires_grad_()
    student = features(STUDENT.clone().requires_grad_())
    for name in ("kd", "dkd"):
        loss(name, student, features(logits))(student, features(logits), batch(LABELS)).backward()
    assert logits.grad is None


def test_a_misspelt_setting_is_answered_with_the_nearest():
    with pytest.raises(KdcliError, match="Did you mean 'temperature'"):
        loss("kd", features(STUDENT), features(TEACHER), temprature=2.0)
