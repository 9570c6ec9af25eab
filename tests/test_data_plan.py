"""The order and the views of an epoch are functions of (seed, epoch) alone."""

from itertools import pairwise

import pytest
import torch

from kdcli.data.plan import plan, rows, views
from kdcli.errors import USAGE, KdcliError


def test_an_epoch_holds_every_image_once_and_its_views_are_in_range():
    drawn = plan(1000, seed=3, epoch=7, padding=4)
    assert drawn.perm.sort().values.tolist() == list(range(1000))
    assert drawn.view.shape == (1, 1000)
    assert drawn.view.min() >= 0 and drawn.view.max() < views(4) == 162
    assert drawn.epoch.item() == 7 and drawn.epoch.shape == ()


def test_the_same_seed_and_epoch_give_the_same_plan_whatever_was_drawn_before():
    first = plan(500, seed=1, epoch=2, padding=4)
    torch.rand(17)
    plan(500, seed=1, epoch=3, padding=4)
    again = plan(500, seed=1, epoch=2, padding=4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_seeds_and_epochs_do_not_share_an_order():
    orders = {
        tuple(plan(200, seed, epoch, 4).perm.tolist()) for seed in range(10) for epoch in range(20)
    }
    assert len(orders) == 200


def test_a_further_view_changes_no_other():
    one, two = plan(300, 5, 0, 4, number=1), plan(300, 5, 0, 4, number=2)
    assert torch.equal(one.perm, two.perm)
    assert torch.equal(one.view[0], two.view[0])
    assert not torch.equal(two.view[0], two.view[1])


def test_all_views_come_equally_often():
    counts = plan(162_000, 0, 0, padding=4).view[0].bincount(minlength=162)
    chi_squared = ((counts - 1000.0) ** 2 / 1000).sum()
    assert chi_squared < 235  # 161 degrees of freedom: p = 1e-4


def test_the_short_last_batch_is_kept():
    division = rows(50_000, 64)
    assert division.steps == 782
    assert division.of(0) == slice(0, 64)
    assert division.of(781) == slice(49_984, 50_000)
    assert division.left == 0


@pytest.mark.parametrize("world", [2, 4, 8])
@pytest.mark.parametrize("count", [64, 160, 50_000])
def test_the_ranks_together_take_the_rows_of_one_process(world, count):
    alone = rows(count, 32)
    ranks = [rows(count, 32, rank, world) for rank in range(world)]
    for step in range(alone.steps):
        whole = alone.of(step)
        parts = [part.of(step) for part in ranks]
        assert parts[0].start == whole.start and parts[-1].stop == whole.stop
        assert all(a.stop == b.start for a, b in pairwise(parts))
        assert len({part.stop - part.start for part in parts}) == 1


def test_a_single_leftover_image_stays_out():
    division = rows(129, 64)
    assert (division.steps, division.left) == (2, 1)
    assert rows(130, 64).steps == 3


def test_a_last_batch_that_does_not_divide_is_cut():
    division = rows(64 + 11, 64, rank=1, world=4)  # 11 = 4 x 2 + 3
    assert (division.steps, division.left) == (2, 3)
    assert division.of(1) == slice(66, 68)


def test_a_dataset_smaller_than_a_batch_is_one_batch():
    division = rows(20, 64)
    assert (division.steps, division.of(0)) == (1, slice(0, 20))


@pytest.mark.parametrize(
    ("count", "batch", "world", "said"),
    [
        (100, 1, 1, "batch is 1"),
        (100, 0, 1, "batch is 0"),
        (100, 10, 4, "over 4 processes"),
        (100, 4, 4, "8 or more"),
        (1, 64, 1, "1 training images"),
        (7, 64, 4, "7 training images"),
    ],
)
def test_batches_that_cannot_be_trained_are_refused(count, batch, world, said):
    with pytest.raises(KdcliError, match=said) as caught:
        rows(count, batch, 0, world)
    assert caught.value.code == USAGE
