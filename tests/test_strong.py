"""The strong view: Pillow's operations on whole batches, decided by seed, epoch and row alone."""

import numpy
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from kdcli import recipes
from kdcli.data.loader import Loader
from kdcli.data.plan import plan
from kdcli.data.strong import BOX, DRAWS, NAMES, OPERATIONS, Strong
from kdcli.errors import KdcliError
from tests import tiny

COUNT, SIDE = 40, 32
STRONG = Strong("cpu")


def pictures(size=(SIDE, SIDE)):
    """Noise, ramps, flat areas and a single colour: what tables of values can stumble over."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (COUNT, *size, 3), generator=generator)
    ramp = torch.arange(size[1]).view(1, 1, -1, 1) * 255 // (size[1] - 1)
    images[10:20] = images[10:20] // 8 + ramp // 2
    images[20:25] = torch.where(images[20:25] < 250, 17, images[20:25])
    images[25] = 93
    return images.to(torch.uint8)


def affine(image, *numbers):
    return image.transform(image.size, Image.Transform.AFFINE, numbers)


PILLOW = {
    "autocontrast": lambda image, m: ImageOps.autocontrast(image),
    "brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(m),
    "color": lambda image, m: ImageEnhance.Color(image).enhance(m),
    "contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(m),
    "equalize": lambda image, m: ImageOps.equalize(image),
    "identity": lambda image, m: image,
    "posterize": lambda image, m: ImageOps.posterize(image, int(m)),
    "rotate": lambda image, m: image.rotate(m),
    "sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(m),
    "shear_x": lambda image, m: affine(image, 1, m, 0, 0, 1, 0),
    "shear_y": lambda image, m: affine(image, 1, 0, 0, m, 1, 0),
    "solarize": lambda image, m: ImageOps.solarize(image, m),
    "translate_x": lambda image, m: affine(image, 1, 0, m * image.size[0], 0, 1, 0),
    "translate_y": lambda image, m: affine(image, 1, 0, 0, 0, 1, m * image.size[1]),
}


def by_pillow(operation, images):
    """`operation` on each of the images, through Pillow."""
    made = [operation(Image.fromarray(image.numpy()), n) for n, image in enumerate(images)]
    return torch.stack([torch.from_numpy(numpy.array(image)) for image in made])


@pytest.mark.parametrize("size", [(SIDE, SIDE), (24, 31)], ids=["square", "oblong"])
@pytest.mark.parametrize("name", NAMES)
def test_each_operation_is_pillows(name, size):
    images = pictures(size)
    low, high = OPERATIONS[name]
    shares = torch.rand(COUNT, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    magnitudes = low + (high - low) * shares
    found = STRONG.apply(images, torch.full((COUNT,), NAMES.index(name)), magnitudes)
    wanted = by_pillow(lambda image, n: PILLOW[name](image, magnitudes[n].item()), images)
    assert torch.equal(found, wanted)


def test_the_box_is_pillows_rectangle():
    images = pictures()
    side, across, down = torch.rand(3, COUNT, generator=torch.Generator().manual_seed(2)).double()

    def painted(image, n):
        extent = side[n].item() * 0.5 * SIDE
        x, y = (int(max(0, c[n].item() * SIDE - extent / 2)) for c in (across, down))
        ImageDraw.Draw(image).rectangle((x, y, min(SIDE, x + extent), min(SIDE, y + extent)), BOX)
        return image

    assert torch.equal(STRONG.cutout(images, side, across, down), by_pillow(painted, images))


def test_a_strong_view_is_two_operations_and_a_box():
    images = pictures()
    draws = torch.rand(COUNT, DRAWS, generator=torch.Generator().manual_seed(3))
    wide = draws.double()

    def strong(image, n):
        for number in range(2):
            name = NAMES[int(wide[n, number] * len(NAMES))]
            low, high = OPERATIONS[name]
            image = PILLOW[name](image, low + wide[n, 2 + number].item() * (high - low))
        return image

    wanted = by_pillow(strong, images)
    assert torch.equal(STRONG(images, draws), STRONG.cutout(wanted, *wide[:, 4:].unbind(1)))


def test_every_operation_is_drawn_as_often_as_any_other():
    drawn = plan(20_000, seed=0, epoch=0, padding=4, number=2, strong=True).draws
    assert drawn.shape == (20_000, DRAWS)
    counts = torch.cat([(drawn[:, n] * len(NAMES)).long() for n in (0, 1)]).bincount(minlength=14)
    assert (counts - 40_000 / 14).abs().max() < 5 * (40_000 / 14) ** 0.5


def test_an_image_gets_the_same_strong_view_whatever_else_is_in_its_batch():
    images = pictures()
    draws = plan(COUNT, seed=0, epoch=3, padding=4, number=2, strong=True).draws
    together = STRONG(images, draws)
    for row in (0, 7, 25):
        assert torch.equal(STRONG(images[row : row + 1], draws[row : row + 1])[0], together[row])


def loader(**options):
    return Loader(tiny.dataset(), batch=24, seed=0, device="cpu", **options)


def test_only_the_second_view_is_strong():
    weak, strong = (
        next(loader(views=2, second_view=kind).batches(1)) for kind in ("weak", "strong")
    )
    assert torch.equal(weak.images, strong.images)
    assert torch.equal(weak.labels, strong.labels)
    changed = (weak.others[0] != strong.others[0]).flatten(1).any(1)
    assert changed.float().mean() > 0.9
    assert strong.others[0].is_contiguous(memory_format=torch.channels_last)


def test_a_resumed_epoch_has_the_strong_views_it_would_have_had():
    whole = list(loader(views=2, second_view="strong").batches(2))
    rest = list(loader(views=2, second_view="strong").batches(2, first_step=1))
    assert len(rest) == len(whole) - 1
    for one, two in zip(whole[1:], rest, strict=True):
        assert torch.equal(one.others[0], two.others[0])


def test_a_single_view_is_never_strong():
    weak, strong = (next(loader(second_view=kind).batches(0)) for kind in ("weak", "strong"))
    assert torch.equal(weak.images, strong.images) and strong.others == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('data = { second_veiw = "strong" }', "Did you mean 'second_view'"),
        ('data = { second_view = "strnog" }', "Did you mean 'strong'"),
    ],
)
def test_a_recipe_says_nothing_else_of_its_data(text, said, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(f'paper = "mine"\nminimize = {{ ce = 1.0 }}\n{text}\n')
    with pytest.raises(KdcliError, match=said):
        recipes.read(path)
