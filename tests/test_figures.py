"""The numbers behind the figures, each against a hand-made one or a second way of computing it."""

import itertools

import numpy as np
import pytest
import torch

from kdcli.analysis import (
    agreement,
    calibration,
    cka,
    classes,
    correlation,
    curves,
    draw,
    timing,
    tsne,
)
from kdcli.analysis.naming import names
from kdcli.runs import Run


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_correlations_are_numpys_and_a_constant_logit_has_none():
    logits = noise(50, 6)
    expected = np.corrcoef(logits.double().numpy(), rowvar=False)
    np.testing.assert_allclose(correlation.correlation(logits).numpy(), expected, atol=1e-12)
    logits[:, 2] = 7.0
    row = correlation.correlation(logits)[2]
    assert row.tolist() == [0, 0, 1, 0, 0, 0]


def test_the_difference_of_correlations_leaves_out_the_diagonal():
    teacher = torch.tensor([[1.0, 1.0, 0.0], [-1.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
    student = teacher * torch.tensor([1.0, -2.0, 3.0])  # only signs between classes 1 and 2 change
    found = correlation.compare(teacher, student)
    assert found.largest == pytest.approx(2.0)
    expected = (
        np.corrcoef(teacher.T)[np.triu_indices(3, 1)]
        - np.corrcoef(student.T)[np.triu_indices(3, 1)]
    )
    assert found.mean == pytest.approx(np.abs(expected).mean())


def test_calibration_error_of_two_bins_by_hand():
    # 3 images answered with probability 0.6, one right; 1 with 0.9, right
    probabilities = torch.tensor([[0.6, 0.4], [0.6, 0.4], [0.4, 0.6], [0.9, 0.1]])
    found = calibration.reliability(probabilities.log(), torch.tensor([0, 1, 0, 0]))
    assert found.counts.sum() == 4 and (found.counts > 0).sum() == 2
    assert found.error == pytest.approx(3 / 4 * abs(0.6 - 1 / 3) + 1 / 4 * abs(0.9 - 1), abs=1e-6)
    sure, right = found.sureness
    assert (sure, right) == (pytest.approx((3 * 0.6 + 0.9) / 4, abs=1e-6), pytest.approx(0.5))


def test_a_confidence_on_an_edge_is_in_the_lower_bin():
    logits = torch.tensor([[0.0, 0.0], [50.0, -50.0]])
    found = calibration.reliability(logits, torch.tensor([0, 0]), bins=2)
    assert found.counts.tolist() == [1, 1]  # 0.5 belongs to (0, 0.5], 1 to (0.5, 1]


def test_titles_of_neighbouring_reliability_diagrams_do_not_meet():
    sure = calibration.reliability(200 * torch.eye(3), torch.tensor([0, 1, 2]))
    with draw.style():
        figure = calibration._draw({f"{n:<26}".replace(" ", "x"): sure for n in range(4)})
        figure.draw_without_rendering()
        boxes = [axes.title.get_window_extent() for axes in figure.axes[:4]]
    assert all(one.x1 + 4 < two.x0 for one, two in itertools.pairwise(boxes))


def test_fidelity_parts_are_the_whole_and_by_hand():
    labels = torch.tensor([0, 0, 0, 0, 0])
    teacher = torch.eye(3)[[0, 0, 1, 1, 1]]  # right right wrong wrong wrong
    student = torch.eye(3)[[0, 2, 0, 1, 2]]
    found = agreement.fidelity(teacher, student, labels)
    assert list(found.parts.values()) == [20.0] * 5
    assert found.agreement == 40.0
    one, other = teacher.double().softmax(1), student.double().softmax(1)
    by_hand = (one * (one.log() - other.log())).sum(1).mean()
    assert found.divergence == pytest.approx(by_hand.item())


def test_gains_by_class_and_their_paired_error():
    labels = torch.tensor([0, 0, 0, 0, 2, 2])
    ours = torch.tensor([True, True, True, False, False, False])
    theirs = torch.tensor([True, False, False, False, True, True])
    found = classes.gains(ours, theirs, labels, 3)
    assert found.difference[[0, 2]].tolist() == [50.0, -100.0]
    assert torch.isnan(found.difference[1])  # no image of that class
    paired = np.array([0, 1, 1, 0])
    assert found.error[0].item() == pytest.approx(100 * paired.std() / 2)
    assert found.ours[0].item() == 75


def slow_hsic(one: torch.Tensor, other: torch.Tensor) -> float:
    """Song et al. 2012, Eq. 4: means over tuples of different images, counted one by one."""
    n = len(one)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    first = sum(one[i, j] * other[i, j] for i, j in pairs) / (n * (n - 1))
    second = sum(
        one[i, j] * other[q, r] for i, j in pairs for q, r in pairs if not {i, j} & {q, r}
    ) / (n * (n - 1) * (n - 2) * (n - 3))
    third = sum(one[i, j] * other[i, q] for i, j in pairs for q in range(n) if q not in (i, j))
    return float(first + second - 2 * third / (n * (n - 1) * (n - 2)))


def test_hsic_is_the_sum_over_tuples_and_centring_changes_nothing():
    one, other = noise(7, 3), noise(7, 2, 2, seed=1) + 5
    bare = [(x.flatten(1) @ x.flatten(1).T).double().fill_diagonal_(0) for x in (one, other)]
    fast = cka.hsic(cka.gram(one), cka.gram(other))
    assert fast.item() == pytest.approx(slow_hsic(*bare), rel=1e-4)


def test_a_gram_of_parts_is_that_of_the_whole_and_leaves_the_features_alone(monkeypatch):
    monkeypatch.setattr(cka, "WIDTH", 3)
    features = noise(6, 2, 5).double() + 9
    before, flat = features.clone(), features.flatten(1) - features.flatten(1).mean(0)
    torch.testing.assert_close(cka.gram(features), (flat @ flat.T).fill_diagonal_(0))
    assert torch.equal(features, before)


def test_cka_knows_rotations_and_scale_from_other_features():
    features, others = noise(400, 8), noise(400, 300, seed=1)
    rotation = torch.linalg.qr(noise(8, 8, seed=2)).Q
    found = cka.Alignment()
    for rows in (slice(0, 200), slice(200, 400)):
        found.add([features[rows]], [3 * features[rows] @ rotation, others[rows]])
    ((same, different),) = found.values().tolist()
    assert same == pytest.approx(1, abs=1e-5)
    assert abs(different) < 0.05  # the biased estimator says 0.8 of so wide a layer


def test_tsne_keeps_classes_apart_that_are_and_repeats_its_bits():
    labels = torch.arange(60) % 3
    features = noise(60, 10) + 20 * torch.eye(10)[labels]
    first, again = tsne.plane(features, labels), tsne.plane(features, labels)
    assert torch.equal(first.places, again.places)
    assert first.purity == 100
    assert tsne.purity(first.places, labels) > 95
    assert tsne.purity(noise(600, 5), torch.arange(600) % 3) == pytest.approx(100 / 3, abs=4)


def test_the_images_of_tsne_are_as_many_of_each_of_the_first_classes():
    labels = torch.arange(300) % 30
    rows = tsne.chosen(labels, classes=20, images=100)
    assert torch.bincount(labels[rows], minlength=30).tolist() == [5] * 20 + [0] * 10


def test_courses_and_curves_are_the_logs():
    log = [
        {"epoch": n, "train": {"ce": 1 / n, "top1": n}, "test": {"top1": 10 * n}, "seconds": 2.5}
        for n in (1, 2, 3)
    ]
    assert timing.course(log) == ([2.5, 5.0, 7.5], [10, 20, 30])
    log[2]["train"]["kd"] = 4.0
    found = curves.curves(log)
    assert found["train", "kd"] == {3: 4.0}
    assert found["test", "top1"] == {1: 10, 2: 20, 3: 30}


def test_runs_are_named_by_what_tells_them_apart(tmp_path):
    def run(recipe: str, seed: int = 0, student: str = "resnet8", teacher: str = "resnet20") -> Run:
        made = Run(tmp_path / f"{recipe}-{student}-{teacher}-{seed}")
        told = {"model": teacher} if teacher else None
        recipe = {"name": recipe, "epochs": 240}
        made.begin({"kind": "distill", "student": student, "teacher": told, "dataset": "cifar100",
                    "recipe": recipe, "seed": seed})  # fmt: skip
        return made

    assert names([run("kd"), run("ce", teacher="")]) == ["kd", "ce"]
    assert names([run("kd"), run("kd", 1), run("ce", teacher="")]) == [
        "kd seed 0", "kd seed 1", "ce seed 0",
    ]  # fmt: skip
    assert names([run("kd"), run("kd", student="vgg8")]) == ["kd resnet8", "kd vgg8"]
    assert names([run("kd"), run("kd", teacher="vgg13")]) == [
        "kd under resnet20", "kd under vgg13",
    ]  # fmt: skip
    assert names([run("kd"), run("kd")]) == ["kd-resnet8-resnet20-0"] * 2


def test_a_legend_of_many_runs_meets_neither_panels_nor_title():
    found = {f"run number {n}": timing.Course([1.0, 2.0], [n, n + 1.0]) for n in range(18)}
    piece = draw.Piece("time", "t", "c", {}, [], [], lambda: timing._draw(found, {"teacher": 30.0}))
    with draw.style():
        figure = draw.settled(piece)
        figure.text(0.01, 1.01, "a title")
        draw.rendered(figure, "png")
        (legend,), (axes,) = figure.legends, figure.axes
        assert legend.get_window_extent().x0 > axes.get_window_extent().x1
        assert legend.get_window_extent().y1 <= figure.bbox.y1


def test_teachers_of_near_accuracies_are_lines_of_the_legend_and_no_text_among_the_curves():
    found, levels = {"kd": timing.Course([1.0], [44.0])}, {"one": 44.34, "two": 44.1}
    with draw.style():
        figure = timing._draw(found, levels)
        figure.draw_without_rendering()
    (axes,), (legend,) = figure.axes, figure.legends
    told = [text.get_text() for text in legend.get_texts()]
    assert told == ["kd: 44.00 %", "one (teacher): 44.34 %", "two (teacher): 44.10 %"]
    assert not axes.texts and len({line.get_linestyle() for line in axes.lines[1:]}) == 2


def test_a_curve_of_one_epoch_stands_on_that_epoch_and_powers_of_ten_are_plain():
    log = [{"epoch": 1, "train": {"top1": 1.0, "a": 2.0}, "test": {"top1": 1.0, "loss": 0.01}}]
    found = {"kd": curves.curves(log), "ce": curves.curves([{**log[0], "test": {"loss": 5.0}}])}
    with draw.style():
        figure = curves._draw(found, ["a"])
        figure.draw_without_rendering()
    top1, _, loss, term, *_ = figure.axes
    for axes in (top1, loss, term):
        left, right = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if left <= tick <= right] == [1]
    assert {"0.01", "0.1", "1"} <= {text.get_text() for text in loss.get_yticklabels()}


def test_names_of_classes_are_shown_as_they_are_and_leave_the_panels_their_room():
    named = ("$\\alpha", "a$b$c^", "<b>" + 30 * "x", "Ω 語")
    found = {"kd": correlation.compare(torch.eye(4), torch.eye(4).flip(0))}
    with draw.style():
        figure = correlation._draw("resnet20", found, named)
        figure.draw_without_rendering()
        last, bar = figure.axes[2], figure.axes[-1]
        shown = [text.get_text() for text in last.get_yticklabels()]
        assert shown == [*named[:2], "<b>xxxxxxxxxxxx…", named[3]]
        assert last.title.get_window_extent().x1 < bar.get_window_extent().x0
        assert draw.rendered(figure, "svg")
