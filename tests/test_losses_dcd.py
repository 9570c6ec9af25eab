"""ICD and DCD: known values and the four ways to scale the similarities."""

import math

import pytest
import torch
from torch.nn import functional as F

from kdcli.errors import KdcliError
from kdcli.losses.dcd import consistency, contrast
from tests.loss_inputs import LABELS, batch, features, hashed, loss

ROWS = features(hashed((4, 128), 5)), features(hashed((4, 128), 6))
COSINES = F.normalize(ROWS[0].pooled) @ F.normalize(ROWS[1].pooled).T


def build(name="dcd", **arguments):
    """The loss with embeddings that change nothing."""
    module = loss(name, *ROWS, **arguments)
    with torch.no_grad():
        for embed in (module.embed_student, module.embed_teacher):
            embed.weight.copy_(torch.eye(128))
            embed.bias.zero_()
    return module


@pytest.mark.parametrize("name", ["icd", "dcd"])
@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        ({}, 2.558567689),
        ({"bias": 5.0}, 2.558567689),  # cancels in both softmaxes
        ({"tau": 4.0}, 6.402332825),  # held at 10
        ({"alpha": 0.0}, 2.549932829),
        ({"scale": "multiply"}, 1.412568510),
    ],
)
def test_known_values(name, arguments, known):
    assert build(name, **arguments)(*ROWS, batch(LABELS)).item() == pytest.approx(known, abs=2e-9)


def test_consistency_known_value():
    assert consistency(math.e * COSINES).item() == pytest.approx(0.017269720, abs=2e-9)


def test_gradients_known_values():
    student, teacher = (rows.pooled.clone().requires_grad_() for rows in ROWS)
    module = build()
    value = module(features(student), features(teacher), batch(LABELS))
    value.backward()
    scale = torch.tensor(math.e, dtype=torch.float64)
    free = [rows.pooled.clone().requires_grad_() for rows in ROWS]
    similarity = scale * F.normalize(free[0]) @ F.normalize(free[1]).T
    (contrast(similarity) + 0.5 * consistency(similarity)).backward()
    assert free[0].grad.norm().item() == pytest.approx(0.199984, abs=1e-6)
    assert free[1].grad.norm().item() == pytest.approx(0.199234, abs=1e-6)
    torch.testing.assert_close(student.grad, free[0].grad)
    assert teacher.grad is None
    assert module.tau.grad.item() == pytest.approx(1.295267, abs=1e-6)
    assert module.bias.grad.item() == pytest.approx(0.0, abs=1e-12)
    assert module.embed_teacher.weight.grad.norm() > 0


def test_a_scale_at_its_limit_gets_no_gradient():
    module = build(tau=4.0)
    module(*ROWS, batch(LABELS)).backward()
    assert module.tau.grad.item() == 0


@pytest.mark.parametrize(
    ("scale", "factor"), [("frozen", math.e), ("multiply", 0.07), ("divide", 1 / 0.07)]
)
def test_untrained_scales(scale, factor):
    module = build(scale=scale)
    assert {name.split(".")[0] for name, _ in module.named_parameters()} == {
        "embed_student",
        "embed_teacher",
    }
    found = module.similarity(ROWS[0].pooled, ROWS[1].pooled)
    torch.testing.assert_close(found, COSINES * factor, rtol=1e-6, atol=0)


def test_an_unknown_scale_is_refused():
    with pytest.raises(KdcliError, match="Did you mean 'learned'"):
        build(scale="learnt")
