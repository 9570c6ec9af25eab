"""Batches are made on the device, in an order that no resume and no rank can change."""

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kdcli.data import Dataset, Split
from kdcli.data.augment import Augment
from kdcli.data.loader import Loader, normalise, test_batches


def dataset(count=50, size=16):
    generator = torch.Generator().manual_seed(1)

    def split(number):
        shape = (number, 3, size, size)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        return Split(images, torch.arange(number) % 5)

    return Dataset(
        *("made", tuple("abcde"), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), split(count), split(23)),
        *(size // 8, "0" * 32, "here"),
    )


def loader(**changes):
    return Loader(dataset(), **{"batch": 16, "seed": 9, "device": "cpu", **changes})


def same(one, other):
    flat = [(*batch[:5], *batch.others) for batch in (one, other)]
    return all(torch.equal(a, b) for a, b in zip(*flat, strict=True))


def test_a_batch_says_which_views_of_which_images_it_shows():
    data = dataset()
    augment = Augment(data.train.images, data.mean, data.std, data.padding, "cpu")
    seen = []
    batches = list(loader().batches(4))
    assert [len(batch.labels) for batch in batches] == [16, 16, 16, 2]
    for batch in batches:
        assert torch.equal(batch.labels, data.train.labels[batch.index])
        assert torch.equal(batch.images, augment(batch.index, batch.view))
        assert batch.epoch.item() == 4 and batch.epoch.shape == ()
        assert batch.others == ()
        seen += batch.index.tolist()
    assert sorted(seen) == list(range(50))


@pytest.mark.parametrize("first", [0, 1, 3, 4])
def test_a_resumed_epoch_is_the_tail_of_the_whole_one(first):
    whole = list(loader(views=2).batches(2))
    tail = list(loader(views=2).batches(2, first_step=first))
    assert len(tail) == 4 - first
    assert all(same(a, b) for a, b in zip(whole[first:], tail, strict=True))


def test_epochs_and_seeds_differ():
    first, other = next(loader().batches(0)), next(loader().batches(1))
    assert not torch.equal(first.index, other.index)
    assert not torch.equal(first.index, next(loader(seed=10).batches(0)).index)


def test_two_ranks_together_see_the_batch_of_one():
    alone = list(loader().batches(1))
    left, right = (list(loader(rank=rank, world=2).batches(1)) for rank in (0, 1))
    for whole, one, two in zip(alone[:3], left, right, strict=False):
        assert torch.equal(whole.index, torch.cat([one.index, two.index]))
        assert torch.equal(whole.images, torch.cat([one.images, two.images]))


def test_further_views_show_the_same_images_otherwise():
    one, two = next(loader().batches(0)), next(loader(views=2).batches(0))
    assert torch.equal(one.images, two.images) and torch.equal(one.view, two.view)
    assert len(two.others) == 1 and two.others[0].shape == two.images.shape
    assert not torch.equal(two.others[0], two.images)


def test_positions_on_the_device_do_as_well_as_a_slice():
    made = loader(views=2)
    plan = made.plan(3)
    assert same(made.gather(plan, slice(16, 32)), made.gather(plan, torch.arange(16, 32)))


class Operations(TorchDispatchMode):
    """Names of all operations that run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(str(function.overloadpacket))
        return function(*args, **(kwargs or {}))


def test_a_step_reads_nothing_back_from_the_device():
    made = loader(views=2)
    plan = made.plan(0)
    with Operations() as operations:
        made.gather(plan, torch.arange(16))
    assert "aten.index" in operations.names
    # reading a value, shapes that depend on values, and new tensors from host numbers
    forbidden = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "lift_fresh"}
    assert not {f"aten.{name}" for name in forbidden} & operations.names


def test_a_leftover_image_is_told():
    data = dataset(49)
    made = Loader(data, batch=16, seed=0, device="cpu")
    assert made.steps == 3
    assert len(made.notes) == 1 and "1 of 49 images" in made.notes[0]
    assert loader().notes == ()


def test_testing_goes_through_the_split_in_order():
    data = dataset()
    parts = list(test_batches(data.test, data.mean, data.std, "cpu", batch=10))
    assert [len(labels) for _, labels in parts] == [10, 10, 3]
    assert torch.equal(torch.cat([labels for _, labels in parts]), data.test.labels)
    images = torch.cat([images for images, _ in parts])
    assert torch.equal(images, normalise(data.test.images, data.mean, data.std))


def test_the_size_of_a_dataset_is_that_of_its_images():
    assert dataset(size=24).size == 24
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset().name = "other"


def test_a_test_split_hands_its_statistics_over_once():
    copies = []

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            if operator.overloadpacket.__name__ == "lift_fresh":
                copies.append(operator)
            return operator(*args, **(kwargs or {}))

    with Copies():
        batches = list(test_batches(dataset().test, (0.5,) * 3, (0.2,) * 3, "cpu", batch=4))
    assert len(batches) == 6 and len(copies) == 2
    expected = normalise(dataset().test.images[:4], (0.5,) * 3, (0.2,) * 3)
    assert torch.equal(batches[0][0], expected)


@pytest.mark.gpu
def test_the_gpu_makes_the_same_views_without_waiting_for_the_host():
    made, there = loader(views=2), loader(views=2, device="cuda")
    here = list(made.batches(0))
    plan = there.plan(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = [there.gather(plan, there.rows.of(step)) for step in range(there.steps)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(here, batches, strict=True):
        assert torch.equal(one.index, other.index.cpu())
        # the GPU divides by 255 by multiplying with its reciprocal
        assert (one.images - other.images.cpu()).abs().max() <= 4.8e-7
        assert (one.others[0] - other.others[0].cpu()).abs().max() <= 4.8e-7
