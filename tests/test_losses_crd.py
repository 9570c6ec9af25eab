"""CRD: known values, the law of its negatives, and what it remembers."""

import pytest
import torch

from kdcli.errors import KdcliError
from kdcli.losses import crd
from tests.loss_inputs import batch, features, hashed, loss

N, WIDTH = 50, 128
INDEX = torch.tensor([3, 11, 27, 40])
ROWS = features(crd.unit(hashed((4, WIDTH), 5))), features(crd.unit(hashed((4, WIDTH), 6)))
LABELS = torch.arange(N) % 5  # ten images a class
BATCH = batch(LABELS[INDEX], INDEX)


def build(negatives=10, labels=LABELS, width=WIDTH, **arguments):
    """CRD whose embeddings change nothing, with known memories."""
    module = loss("crd", *ROWS, labels=labels, negatives=negatives, dim=width, **arguments)
    with torch.no_grad():
        for embed in (module.embed_student, module.embed_teacher):
            embed.weight.copy_(torch.eye(width))
            embed.bias.zero_()
        module.memory_student.copy_(crd.unit(hashed((len(labels), width), 7)))
        module.memory_teacher.copy_(crd.unit(hashed((len(labels), width), 8)))
    return module


def test_known_values_of_two_steps():
    module = build()
    contrast = (INDEX[:, None] + 3 * torch.arange(11)) % N
    for known in ((3.183955263, 3.166554500), (8.445121334, 8.440013401)):
        terms = module.terms(ROWS[0].pooled, ROWS[1].pooled, INDEX, contrast)
        assert [term.item() for term in terms] == pytest.approx(known, abs=2e-8)
        assert module.z_student.item() == pytest.approx(103.894430, abs=1e-5)
        assert module.z_teacher.item() == pytest.approx(96.562303, abs=1e-5)
        module.after_step()


def test_scores_equal_those_of_gathered_vectors():
    rows, memory = ROWS[0].pooled, crd.unit(hashed((N, WIDTH), 7))
    contrast = torch.randint(N, (4, 11), generator=torch.Generator().manual_seed(0))
    literal = torch.einsum("bd,bkd->bk", rows, memory[contrast]).div(0.07).exp()
    torch.testing.assert_close(crd.scores(rows, memory, contrast, 0.07), literal)


def test_each_network_learns_from_its_own_direction_alone():
    module = build()
    own, other = module.terms(ROWS[0].pooled, ROWS[1].pooled, INDEX, module.draw(BATCH))
    own.backward(retain_graph=True)
    assert module.embed_student.weight.grad.norm() > 0
    assert module.embed_teacher.weight.grad is None
    other.backward()
    assert module.embed_teacher.weight.grad.norm() > 0


def test_only_the_images_of_the_batch_are_remembered_anew():
    module = build()
    before = module.memory_student.clone()
    module(*ROWS, BATCH).backward()
    assert torch.equal(module.memory_student, before)
    module.after_step()
    moved = (module.memory_student != before).any(1).nonzero().squeeze(1)
    assert moved.tolist() == INDEX.tolist()
    expected = crd.unit(0.5 * before[INDEX] + 0.5 * ROWS[0].pooled)
    torch.testing.assert_close(module.memory_student[INDEX], expected)


@pytest.mark.parametrize("sampling", ["rows", "shared"])
@pytest.mark.parametrize("negatives", [1, 7, 40])
def test_negatives_are_different_images_of_other_classes(sampling, negatives):
    drawn = build(negatives, sampling=sampling).draw(BATCH)
    assert drawn.shape == (4, 1 + negatives)
    assert drawn[:, 0].tolist() == INDEX.tolist()
    assert (LABELS[drawn[:, 1:]] != BATCH.labels[:, None]).all()
    assert all(len(set(row.tolist())) == negatives for row in drawn[:, 1:])


@pytest.mark.parametrize("sampling", ["rows", "shared", "replacement"])
def test_every_image_of_another_class_is_equally_likely(sampling):
    torch.manual_seed(0)
    module = build(8, sampling=sampling)
    counts = torch.zeros(4, N)
    for _ in range(2000):
        drawn = module.draw(BATCH)[:, 1:]
        counts.scatter_add_(1, drawn, torch.ones(drawn.shape))
    foreign = BATCH.labels[:, None] != LABELS
    assert counts[~foreign].sum() == 0
    assert counts[foreign].min() > 320  # of 400 expected, a standard deviation of 19
    assert counts[foreign].max() < 480


def test_rows_draw_apart_and_shared_rows_of_a_class_draw_alike():
    torch.manual_seed(0)
    same = batch(torch.tensor([1, 1, 1]), torch.tensor([1, 6, 11]))
    apart = build(8, sampling="rows").draw(same)[:, 1:].sort().values
    alike = build(8, sampling="shared").draw(same)[:, 1:].sort().values
    assert not torch.equal(apart[0], apart[1])
    assert torch.equal(alike[0], alike[1])


def test_too_few_other_images_are_drawn_again_and_again():
    drawn = build(100, sampling="rows").draw(BATCH)
    assert drawn.shape == (4, 101)
    assert (LABELS[drawn[:, 1:]] != BATCH.labels[:, None]).all()


def test_classes_of_different_sizes_keep_the_law():
    labels = torch.tensor([2] * 30 + [0] * 5 + [1] * 15)
    rows = batch(labels[INDEX], INDEX)
    for sampling in ("rows", "shared", "replacement"):
        drawn = build(20, labels, sampling=sampling).draw(rows)
        assert (labels[drawn[:, 1:]] != rows.labels[:, None]).all()


def test_relaxed_positives_are_images_of_the_class():
    torch.manual_seed(0)
    module = build(positive="relax")
    drawn = torch.stack([module.draw(BATCH)[:, 0] for _ in range(300)])
    assert (LABELS[drawn] == BATCH.labels).all()
    assert all(len(set(column.tolist())) == 10 for column in drawn.T)


def test_any_image_is_a_negative_where_there_are_no_labels():
    torch.manual_seed(0)
    unknown = torch.full((N,), -1)
    drawn = build(2000, unknown, sampling="any").draw(batch(unknown[INDEX], INDEX))
    assert len(set(drawn[0].tolist())) == N


def test_the_seed_decides_the_negatives():
    module = build()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(module.draw(BATCH))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_processes_remember_the_same(monkeypatch):
    others = {torch.int64: INDEX + 1, torch.float64: crd.unit(hashed((4, WIDTH), 9))}

    def gather(rows):  # this process's rows, then those of one other
        return torch.cat([rows, others[rows.dtype][: len(rows)]]) if rows.dim() else rows

    module = build()
    module(*ROWS, BATCH)
    monkeypatch.setattr(crd, "gather", gather)
    before = module.memory_teacher.clone()
    module.after_step()
    moved = (module.memory_teacher != before).any(1).nonzero().squeeze(1)
    assert moved.tolist() == sorted([*INDEX.tolist(), *(INDEX + 1).tolist()])


def test_a_resumed_loss_goes_on_with_the_same_numbers():
    first, second = build(), build(width=WIDTH)
    first(*ROWS, BATCH).backward()
    first.after_step()
    second.load_state_dict(first.state_dict())
    values = []
    for module in (first, second):
        torch.manual_seed(3)
        values.append(module(*ROWS, BATCH).item())
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampling": "row"}, "Did you mean 'rows'"),
        ({"positive": "own"}, "Known: exact, relax"),
        ({"negatives": 0}, "at least 1"),
        ({"labels": torch.zeros(N, dtype=torch.int64)}, "two classes"),
    ],
)
def test_settings_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(KdcliError, match=message):
        build(**arguments)
