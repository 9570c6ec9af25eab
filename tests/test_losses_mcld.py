"""MCLD: known values, every option against a literal reading, and its queue."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kdcli.errors import KdcliError
from kdcli.losses import mcld
from tests import literal_mcld as literal
from tests.loss_inputs import LABELS, POSITION, STUDENT, TEACHER, batch, features, loss

PAIRS = torch.tensor([2, 2, 5, 2])
QUEUE = F.normalize(torch.sin(1.1 * torch.cat([POSITION, POSITION + 24])[:5] + 0.5))
ROWS = features(STUDENT), features(TEACHER)
QUEUED_INDEX, QUEUED_LABELS = torch.tensor([7, 0, -1, 2, 9]), torch.tensor([2, 2, -1, 5, 0])


def build(queue=5, **arguments):
    """MCLD with a known queue of five rows, one of them never written."""
    module = loss("mcld", *ROWS, queue=queue, **arguments)
    if queue == 5 and hasattr(module, "queue"):
        module.queue.copy_(QUEUE)
        module.queue_index.copy_(QUEUED_INDEX)
        module.queue_label.copy_(QUEUED_LABELS)
    return module


def value(labels=PAIRS, **arguments):
    return build(**arguments)(*ROWS, batch(labels)).item()


def only(part, **arguments):
    """One of the three parts."""
    others = {name: 0.0 for name in ("instance", "sample", "category") if name != part}
    return value(**others, **arguments)


@pytest.mark.parametrize(
    ("part", "arguments", "known"),
    [
        ("instance", {}, 3.27595124),
        ("sample", {}, 3.40137078),
        ("category", {}, 6.03678199),
        ("category", {"lonely": "zero"}, 4.52758649),
        ("category", {"form": "in"}, 3.11444274),
        ("category", {"form": "ratio"}, 1.50116144),
        ("instance", {"temperature": 1.0}, 1.78832133),
        ("sample", {"temperature": 1.0}, 1.48599023),
        ("category", {"temperature": 1.0}, 1.64843079),
    ],
)
def test_known_values(part, arguments, known):
    assert only(part, **arguments) == pytest.approx(known, abs=6e-9)


def test_the_parts_add_up_with_their_weights():
    one, two, three = (only(part) for part in ("instance", "sample", "category"))
    assert value() == pytest.approx(one + two + three, abs=1e-12)
    weighted = value(instance=0.5, sample=2.0, category=3.0)
    assert weighted == pytest.approx(0.5 * one + 2 * two + 3 * three, abs=1e-12)


def test_each_part_can_have_its_own_temperature():
    mixed = value(temperature=0.2, sample_temperature=1.0, category_temperature=0.5)
    apart = only("instance") + only("sample", temperature=1.0)
    assert mixed == pytest.approx(apart + only("category", temperature=0.5), abs=1e-12)


def rows(transform):
    change = literal.TRANSFORMS[transform]
    return [np.array([change(z) for z in logits.numpy()]) for logits in (STUDENT, TEACHER)]


@pytest.mark.parametrize("transform", ["normalise", "raw", "zscore", "softmax"])
@pytest.mark.parametrize("start", ["random", "filled"])
@pytest.mark.parametrize(("own", "same"), itertools.product(["keep", "mask"], repeat=2))
def test_instance_part_reads_as_written(transform, start, own, same):
    student, teacher = rows(transform)
    i, index, label = np.arange(4)[:, None], QUEUED_INDEX.numpy(), QUEUED_LABELS.numpy()
    counted = np.ones((4, 5), dtype=bool)
    counted &= (index >= 0) | (start != "filled")
    counted &= (index != i) | (own != "mask")
    counted &= (label != PAIRS.numpy()[i]) | (same != "mask")
    known = literal.instance(student, teacher, QUEUE.numpy(), 0.7, counted)
    found = only("instance", temperature=0.7, transform=transform, start=start, own=own, same=same)
    assert found == pytest.approx(known, rel=1e-9)


@pytest.mark.parametrize("transform", ["normalise", "raw", "zscore", "softmax"])
def test_sample_part_reads_as_written(transform):
    student, teacher = rows(transform)
    one, two = literal.sample(student, teacher, 0.7), literal.sample(teacher, student, 0.7)
    settings = {"temperature": 0.7, "transform": transform}
    assert only("sample", **settings) == pytest.approx(one, rel=1e-9)
    assert only("sample", direction="both", **settings) == pytest.approx((one + two) / 2, rel=1e-9)


@pytest.mark.parametrize("form", ["out", "in", "ratio", "negatives"])
@pytest.mark.parametrize("against", ["teacher", "student", "both"])
@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("lonely", ["skip", "zero"])
@pytest.mark.parametrize("labels", [LABELS, PAIRS, PAIRS * 0, torch.arange(4)])
def test_category_part_reads_as_written(form, against, diagonal, lonely, labels):
    student, teacher = rows("normalise")
    y = labels.numpy()
    parts = {
        "teacher": literal.category(student, teacher, y, 0.2, form, diagonal, lonely),
        "student": literal.category(student, student, y, 0.2, form, False, lonely),
    }
    known = sum(parts.values()) / 2 if against == "both" else parts[against]
    choices = {"form": form, "against": against, "diagonal": diagonal, "lonely": lonely}
    found = only("category", labels=labels, **choices)
    assert found == pytest.approx(known, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("form", ["out", "in", "ratio", "negatives"])
@pytest.mark.parametrize("labels", [torch.arange(4), PAIRS * 0])
def test_batches_of_one_class_or_of_strangers_have_finite_gradients(form, labels):
    logits = STUDENT.clone().requires_grad_()
    module = build(form=form, start="filled", same="mask")
    module.queue_index.fill_(-1)  # nothing written: no negative at all
    module(features(logits), ROWS[1], batch(labels)).backward()
    assert logits.grad.isfinite().all()


def test_an_empty_queue_costs_nothing():
    module = build(queue=9, start="filled", sample=0.0, category=0.0)
    assert module(*ROWS, batch(PAIRS)).item() == 0.0


def test_the_queue_keeps_the_newest_rows_and_wraps_around_short_batches():
    module = build(queue=7)
    keys, seen = F.normalize(TEACHER), []
    for step, size in enumerate((4, 2, 4, 1, 3)):
        index = 10 * step + torch.arange(size)
        module(*(features(x.logits[:size]) for x in ROWS), batch(LABELS[:size], index))
        module.after_step()
        seen += zip(index.tolist(), keys[:size], strict=True)
    newest = seen[-7:]
    assert sorted(module.queue_index.tolist()) == sorted(index for index, _ in newest)
    for index, row in newest:
        torch.testing.assert_close(module.queue[module.queue_index == index][0], row)
    assert module.pointer.item() == len(seen) % 7
    short = build(queue=3)  # shorter than a batch: its last rows stay
    short(*ROWS, batch(LABELS))
    short.after_step()
    assert sorted(short.queue_index.tolist()) == [1, 2, 3]


def test_the_queue_starts_as_asked_and_may_be_as_long_as_the_training_set():
    assert build(queue=50).queue.norm(dim=1).sub(1).abs().max() < 1e-6
    assert build(queue=50, start="zeros").queue.abs().sum() == 0
    assert len(build(queue=0).queue) == len(LABELS)


def test_processes_compare_with_and_remember_the_rows_of_all(monkeypatch):
    students, teachers = (
        torch.cat([STUDENT, STUDENT.flip(0)]),
        torch.cat([TEACHER, TEACHER.flip(0)]),
    )
    whole, labels = (features(students), features(teachers)), torch.cat([PAIRS, LABELS])
    together = build(lonely="zero")
    expected = together(*whole, batch(labels)).item()
    together.after_step()
    every = F.normalize(teachers)
    monkeypatch.setattr(mcld, "gather", lambda rows: every if rows.dim() == 2 else labels)
    found = []
    for me in (0, 1):
        monkeypatch.setattr(mcld, "rank", lambda me=me: me)
        mine = slice(4 * me, 4 * me + 4)
        module = build(lonely="zero")
        rows = [features(x.logits[mine]) for x in whole]
        found.append(module(*rows, batch(labels[mine])).item())
        module.after_step()
        assert torch.equal(module.queue, together.queue)
    assert sum(found) / 2 == pytest.approx(expected, rel=1e-9)


def test_at_random_the_losses_are_the_logarithms_of_their_choices():
    torch.manual_seed(0)
    student, teacher = (features(torch.randn(64, 100)) for _ in range(2))
    labels = torch.arange(64) // 2
    settings = {"labels": labels, "queue": 4096, "temperature": 2.0}
    parts = {"instance": 4097, "sample": 64, "category": 63}
    for part, known in parts.items():
        weights = {name: float(name == part) for name in parts}
        module = loss("mcld", student, teacher, **settings, **weights)
        found = module(student, teacher, batch(labels)).item()
        assert found == pytest.approx(np.log(known), abs=0.05)


def test_unknown_choices_are_refused():
    with pytest.raises(KdcliError, match="Did you mean 'normalise'"):
        build(transform="normalize")
    with pytest.raises(KdcliError, match="at least 1"):
        build(queue=-1)
