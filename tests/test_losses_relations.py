"""CC, RKD, PKT: known values, what a relation does not see, equal images and single ones."""

import math

import pytest
import torch

from kdcli.errors import KdcliError
from kdcli.losses.cc import kernel, neighbour_loss
from kdcli.losses.pkt import affinities
from kdcli.losses.rkd import angles, differences, distances, relations
from tests.loss_inputs import LABELS, batch, features, hashed, loss

STUDENT, TEACHER = hashed((4, 64), 5), hashed((4, 128), 6)
SIDES = features(STUDENT), features(TEACHER)


def value(name, student=STUDENT, teacher=TEACHER, **arguments):
    sides = features(student), features(teacher)
    labels = torch.zeros(len(student), dtype=torch.int64)
    return loss(name, *sides, **arguments)(*sides, batch(labels)).item()


@pytest.mark.parametrize(
    ("name", "arguments", "known"),
    [
        ("rkd", {}, 0.069458004),
        ("rkd", {"angle": 0.0}, 0.021628827),
        ("rkd", {"distance": 0.0}, 0.047829177),
        ("pkt", {}, 0.001186601),
    ],
)
def test_known_values(name, arguments, known):
    assert value(name, **arguments) == pytest.approx(known, abs=6e-10)


def test_known_value_of_pkt_with_its_published_weight():
    assert 30000 * value("pkt") == pytest.approx(35.598024362, abs=6e-9)


def test_known_value_of_cc_behind_its_embeddings():
    embedded = hashed((4, 128), 5), hashed((4, 128), 6)
    assert neighbour_loss(*embedded).item() == pytest.approx(126.776469436, abs=6e-9)


def test_both_embeddings_of_cc_are_trained_and_nothing_behind_the_teacher_s():
    student, teacher = (x.clone().requires_grad_() for x in (STUDENT, TEACHER))
    module = loss("cc", *SIDES)
    module(features(student), features(teacher), batch(LABELS)).backward()
    assert student.grad.norm() > 0 and teacher.grad is None
    assert all(parameter.grad.norm() > 0 for parameter in module.parameters())


def test_the_kernel_of_cc_approaches_a_gaussian():
    rows = STUDENT / STUDENT.norm(dim=1, keepdim=True)
    gaussian = (-0.4 * (rows[:, None] - rows).square().sum(2)).exp()
    torch.testing.assert_close(kernel(STUDENT, 0.4, order=20), gaussian)
    second = (kernel(STUDENT, 0.4, order=2) - gaussian).abs().max()
    assert 0 < second < 0.8**3 / math.factorial(3)
    expected = (kernel(STUDENT, 0.4, 2) - kernel(TEACHER, 0.4, 2)).square().mean()
    assert value("cc", correlation="kernel") == pytest.approx(expected.item())
    assert list(loss("cc", *SIDES, correlation="kernel").parameters()) == []


@pytest.mark.parametrize("name", ["rkd", "pkt"])
def test_a_turned_and_scaled_student_relates_its_images_alike(name):
    turn = torch.linalg.qr(hashed((64, 64), 1)).Q
    assert value(name, 3 * STUDENT @ turn, STUDENT) == pytest.approx(0, abs=1e-9)


def test_distances_do_not_see_where_a_student_stands_but_cosines_do():
    assert value("rkd", STUDENT + 5, STUDENT) == pytest.approx(0, abs=1e-12)
    assert value("pkt", STUDENT + 5, STUDENT) > 1e-4


def test_relations_by_loops():
    pairs = []
    for rows in (STUDENT, TEACHER):
        apart = [[(a - b).norm().item() for b in rows] for a in rows]
        mean = sum(map(sum, apart)) / 12  # 12 ordered pairs of different images
        corners = []
        for i in range(4):
            for j in range(4):
                for k in range(4):
                    sides = [(rows[n] - rows[i]) / max(apart[i][n], 1e-12) for n in (j, k)]
                    corners.append((sides[0] @ sides[1]).item())
        pairs.append(([x / mean for row in apart for x in row], corners))
    for kind, found in enumerate(relations(STUDENT, TEACHER)):
        errors = [abs(a - b) for a, b in zip(pairs[0][kind], pairs[1][kind], strict=True)]
        smooth = [0.5 * e * e if e < 1 else e - 0.5 for e in errors]
        assert found.item() == pytest.approx(sum(smooth) / len(smooth), rel=1e-9)


def test_equal_images_give_a_finite_gradient():
    rows = STUDENT.float()[[0, 1, 1, 2]].requires_grad_()
    sum(relations(rows, TEACHER.float()[[0, 1, 1, 2]])).backward()
    assert rows.grad.isfinite().all()
    assert distances(differences(rows))[1, 2] < 1e-6
    assert angles(differences(rows))[1, 2].norm() == 0


def test_probabilities_of_a_row_add_up_to_one_and_a_dead_row_is_even():
    rows = STUDENT.clone()
    rows[1] = 0
    found = affinities(rows.requires_grad_())
    torch.testing.assert_close(found.sum(1), torch.ones(4, dtype=torch.float64))
    assert found[1].tolist() == [0.25] * 4
    found.square().sum().backward()
    assert rows.grad.isfinite().all()


def test_the_sum_of_pkt_is_larger_by_the_pairs():
    assert value("pkt", reduction="sum") == pytest.approx(16 * value("pkt"))


@pytest.mark.parametrize("name", ["cc", "rkd", "pkt"])
def test_a_single_image_has_no_relation(name):
    assert value(name, STUDENT[:1], TEACHER[:1]) == 0


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("cc", {"correlation": "neighbors"}, "Did you mean 'neighbours'"),
        ("pkt", {"reduction": "means"}, "Did you mean 'mean'"),
    ],
)
def test_settings_that_do_not_exist_are_refused(name, arguments, message):
    with pytest.raises(KdcliError, match=message):
        loss(name, *SIDES, **arguments)
