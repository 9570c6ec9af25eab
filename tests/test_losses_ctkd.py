"""CTKD: a temperature that climbs the loss, more and more over the first epochs."""

import pytest
import torch

from kdcli.errors import KdcliError
from kdcli.losses.ctkd import CTKD, reversal
from kdcli.losses.dkd import decoupled
from tests.loss_inputs import LABELS, STUDENT, TEACHER, batch, features, loss

FORWARD = torch.tensor(1.0, dtype=torch.float64)  # the factor of an ordinary gradient


def built(**settings) -> CTKD:
    return loss("ctkd", features(STUDENT), features(TEACHER), **settings)


def slope(module: CTKD, epoch: int) -> float:
    """Gradient of theta in an epoch, from 0."""
    value = module(features(STUDENT), features(TEACHER), batch(LABELS, epoch=epoch))
    return torch.autograd.grad(value, module.theta)[0].item()


def test_known_values():
    module = built()
    tau = module.temperature(FORWARD)
    value = module.distance((STUDENT, TEACHER), LABELS, tau)
    (gradient,) = torch.autograd.grad(value, module.theta)
    assert tau.item() == pytest.approx(15.62117157, abs=6e-9)
    assert value.item() == pytest.approx(1.24916021, abs=6e-9)
    assert gradient.item() == pytest.approx(-0.00261701, abs=6e-9)


def test_the_gradient_is_reversed_by_degrees():
    shares = [-0.02447, -0.09549, -0.20611, -0.34549, -0.5, -0.65451, -0.79389, -0.90451, -0.97553]
    found = reversal(torch.arange(12), 10).tolist()
    assert found == pytest.approx([*shares, -1.0, -1.0, -1.0], abs=5e-6)
    assert slope(built(), 4) == pytest.approx(0.5 * 0.00261701, abs=6e-9)
    assert slope(built(ramp=5), 4) == pytest.approx(0.00261701, abs=6e-9)


def test_descending_the_gradient_of_theta_climbs_the_loss():
    module = built()
    before = module(features(STUDENT), features(TEACHER), batch(LABELS, epoch=20))
    step = 0.5 * torch.tensor(slope(module, 20)).sign()
    with torch.no_grad():
        module.theta -= step
    assert module(features(STUDENT), features(TEACHER), batch(LABELS, epoch=20)) > before


def test_the_temperature_stays_between_its_ends():
    module = built(start=2.0, scale=30.0)
    for theta, tau in ((-50.0, 2.0), (0.0, 17.0), (50.0, 32.0)):
        torch.nn.init.constant_(module.theta, theta)
        assert module.temperature(FORWARD).item() == pytest.approx(tau)


def test_dkd_at_the_learned_temperature_has_a_finite_gradient_where_the_teacher_is_certain():
    certain = features(torch.eye(6, dtype=torch.float64)[LABELS] * 300)
    module = built(divergence="dkd", alpha=1.0, beta=2.0)
    value = module(features(STUDENT), certain, batch(LABELS))
    assert torch.autograd.grad(value, module.theta)[0].isfinite()
    tckd, nckd = decoupled(STUDENT, certain.logits, LABELS, module.temperature(FORWARD).item())
    assert value.item() == pytest.approx((tckd + 2 * nckd).item(), rel=1e-12)


def test_standardised_logits_forget_their_scale():
    module = built(standardize=True)
    values = [
        module(features(scale * STUDENT), features(TEACHER), batch(LABELS)).item()
        for scale in (1.0, 7.0)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(KdcliError, match="Known: kd, dkd"):
        built(divergence="js")
    with pytest.raises(KdcliError, match="set 1 or more"):
        built(ramp=0)
