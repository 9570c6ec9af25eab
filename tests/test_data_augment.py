"""Cutting views from a padded batch gives the numbers of the usual one-image transforms."""

import numpy as np
import pytest
import torch

from kdcli.data.augment import Augment, normalise
from kdcli.data.plan import views

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


def pictures(count, size=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def literal(image, view, padding):
    """One view of one image [3, H, W], a step at a time, in float64."""
    side = 2 * padding + 1
    flip, dy, dx = view // side**2, view // side % side, view % side
    size = image.shape[1]
    padded = np.zeros((3, size + 2 * padding, size + 2 * padding), np.uint8)
    padded[:, padding : padding + size, padding : padding + size] = image
    crop = padded[:, dy : dy + size, dx : dx + size]
    if flip:
        crop = crop[:, :, ::-1]
    mean, std = (np.array(numbers)[:, None, None] for numbers in (MEAN, STD))
    return (crop / 255 - mean) / std


@pytest.mark.parametrize(("size", "padding"), [(32, 4), (16, 2), (8, 0)])
def test_every_view_is_the_literal_one(size, padding):
    images = pictures(3, size)
    augment = Augment(images, MEAN, STD, padding, "cpu")
    number = views(padding)
    index = torch.arange(number) % 3
    made = augment(index, torch.arange(number))
    for view in range(number):
        expected = literal(images[view % 3].numpy(), view, padding)
        assert np.abs(made[view].numpy() - expected).max() <= 4.8e-7  # two units in the last place


def test_every_view_is_that_of_torchvision_on_pil_images():
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    images = pictures(1)
    made = Augment(images, MEAN, STD, 4, "cpu")(torch.zeros(162).long(), torch.arange(162))
    picture = functional.to_pil_image(images[0])
    for view in range(162):
        flip, dy, dx = view // 81, view // 9 % 9, view % 9
        padded = functional.pad(picture, [4, 4, 4, 4], fill=0)
        cropped = functional.crop(padded, dy, dx, 32, 32)
        flipped = functional.horizontal_flip(cropped) if flip else cropped
        pixels = functional.pil_to_tensor(flipped).float().div(255)
        expected = functional.normalize(pixels, MEAN, STD)
        assert (made[view] - expected).abs().max() <= 2.4e-7


def test_normalising_is_the_middle_view():
    images = pictures(5)
    augment = Augment(images, MEAN, STD, 4, "cpu")
    middle = augment(torch.arange(5), torch.full((5,), 4 * 9 + 4))
    assert torch.equal(normalise(images, MEAN, STD), middle)


def test_images_come_as_float_channels_last_and_leave_their_source_alone():
    images = pictures(4)
    before = images.clone()
    made = Augment(images, MEAN, STD, 4, "cpu")(torch.tensor([0, 3]), torch.tensor([0, 161]))
    for batch in (made, normalise(images, MEAN, STD)):
        assert batch.dtype == torch.float32
        assert batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_black_borders_are_zeros_before_the_normalisation():
    white = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    corner = Augment(white, MEAN, STD, 4, "cpu")(torch.tensor([0]), torch.tensor([0]))[0]
    black = [-mean / std for mean, std in zip(MEAN, STD, strict=True)]
    assert corner[:, 0, 0].tolist() == pytest.approx(black)
    assert corner[:, 3, 31].tolist() == pytest.approx(black)
    assert (corner[:, 4:, 4:] > 1).all()
