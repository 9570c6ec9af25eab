"""The embedded dataset is the same bytes everywhere, and shows what its labels say."""

import hashlib
import math

import numpy as np
import pytest

from kdcli import data
from kdcli.data import shapes
from kdcli.data.silhouettes import OUTLINES, UNIT, Frame


def sum_of(array):
    return hashlib.blake2b(array.tobytes(), digest_size=8).hexdigest()


def test_the_first_hundred_pictures_are_the_same_bytes_on_every_machine():
    pictures = shapes.render(1, 0, 100)
    assert [sum_of(part) for part in (pictures.images, pictures.depth, pictures.segmentation)] == [
        "ed3597859bc77a6a",
        "b223f571b632bf64",
        "37a6f0c56676e07a",
    ]


def test_the_whole_dataset_has_its_digest():
    loaded = data.load("shapes", "/nowhere")
    assert loaded.digest == "7acd12e540b101307e4e5b078ade237b"
    assert loaded.train.images.shape == (8000, 3, 32, 32)
    assert loaded.test.images.shape == (2000, 3, 32, 32)
    assert loaded.train.labels.bincount().tolist() == [800] * 10
    assert loaded.test.labels.bincount().tolist() == [200] * 10
    assert loaded.classes[0] == "disk" and loaded.classes[9] == "arrow"
    pixels = loaded.train.images.double() / 255
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx(loaded.mean, abs=5e-5)
    assert pixels.std((0, 2, 3)).tolist() == pytest.approx(loaded.std, abs=5e-5)


def test_a_picture_does_not_depend_on_its_neighbours():
    whole = shapes.render(3, 0, 60)
    for start, count in ((0, 7), (33, 1), (41, 19)):
        part = shapes.render(3, start, count)
        for some, every in zip(part, whole, strict=True):
            np.testing.assert_array_equal(some, every[start : start + count])


def test_seeds_give_other_pictures_and_train_shares_none_with_test():
    train = {picture.tobytes() for picture in shapes.render(shapes.TRAIN_SEED, 0, 500).images}
    test = {picture.tobytes() for picture in shapes.render(shapes.TEST_SEED, 0, 500).images}
    assert len(train) == len(test) == 500
    assert not train & test


def test_the_hash_is_the_published_finaliser():
    # fmix32 of MurmurHash3: 0 -> 0, 1 -> 0x514E28B7
    assert shapes.mixed(np.array([0, 1], np.uint32)).tolist() == [0, 0x514E28B7]


def test_draws_are_uniform_and_their_names_independent():
    roll = shapes.dice(5, np.arange(20_000))
    draws = np.stack([roll.between(key, 0, 9)[:, 0] for key in range(1, 25)])
    counts = np.stack([np.bincount(draw, minlength=10) for draw in draws])
    assert (((counts - 2000) ** 2 / 2000).sum(1) < 33).all()  # chi squared, 9 degrees: p = 1e-4
    assert np.abs(np.corrcoef(draws) - np.eye(24)).max() < 0.035  # five standard errors


def polygon(label, radius, turn):
    """Corners of the same outline in floating point, or None for the round ones."""

    def tips(*polar):
        return [
            (share * math.cos(math.radians(a) + turn), share * math.sin(math.radians(a) + turn))
            for share, a in polar
        ]

    def flat(*points):
        return [
            (
                x * math.cos(turn) - y * math.sin(turn),
                x * math.sin(turn) + y * math.cos(turn),
            )
            for x, y in points
        ]

    edge, inner = 0.8 / math.cos(math.pi / 5), 0.36 / math.cos(math.pi / 5)
    outer = 0.36 / math.cos(2 * math.pi / 5)
    half = 0.98 * math.tan(math.radians(40))
    slant = math.radians(40)
    tip, back = 0.66 / math.cos(slant), -0.05
    wide = (0.66 - back * math.cos(slant)) / math.sin(slant)
    corners = {
        "triangle": tips((1.1, -90), (1.1, 30), (1.1, 150)),
        "square": flat((-0.76, -0.76), (0.76, -0.76), (0.76, 0.76), (-0.76, 0.76)),
        "pentagon": tips(*((edge, -90 + 72 * k) for k in range(5))),
        "star": tips(*((inner if k % 2 else outer, -90 + 36 * k) for k in range(10))),
        "bowtie": flat((-0.98, -half), (0.98, half), (0.98, -half), (-0.98, half)),
        "arrow": flat(
            *((-0.98, -0.2), (back, -0.2), (back, -wide), (tip, 0)),
            *((back, wide), (back, 0.2), (-0.98, 0.2)),
        ),
    }.get(label)
    return corners and [(x * radius, y * radius) for x, y in corners]


def inside(corners, x, y):
    """Even-odd rule, on grids of points."""
    crossed = np.zeros(np.broadcast(x, y).shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        spans = (y0 > y) != (y1 > y)
        where = x0 + (y - y0) * (x1 - x0) / (y1 - y0) if y0 != y1 else np.inf
        crossed ^= spans & (x < where)
    return crossed


@pytest.mark.parametrize("label", ["triangle", "square", "pentagon", "star", "bowtie", "arrow"])
@pytest.mark.parametrize("turn", [-17, 0, 8])
def test_outlines_are_the_polygons_of_floating_point_geometry(label, turn):
    outline = next(one for one in OUTLINES if one.__name__ == label)
    points = (np.arange(128, dtype=np.int32) - 64) * 16 + 8
    frame = Frame(
        points[None, None, :],
        points[None, :, None],
        np.full((1, 1, 1), 9 * UNIT, np.int32),
        np.full((1, 1, 1), turn * 10, np.int32),
    )
    corners = polygon(label, 9 * UNIT, math.radians(turn))
    expected = inside(corners, points[None, :], points[:, None].astype(float))
    drawn = outline(frame)[0]
    assert expected.sum() > 500
    assert (drawn != expected).mean() < 0.004  # samples on the very edge, by rounding


@pytest.mark.parametrize(("label", "area"), [("disk", 0.88**2), ("ring", 0.96**2 - 0.52**2)])
def test_round_outlines_have_the_area_of_their_circles(label, area):
    outline = next(one for one in OUTLINES if one.__name__ == label)
    points = (np.arange(128, dtype=np.int32) - 64) * 16 + 8
    frame = Frame(
        points[None, None, :],
        points[None, :, None],
        np.full((1, 1, 1), 10 * UNIT, np.int32),
        np.zeros((1, 1, 1), np.int32),
    )
    samples = math.pi * area * (10 * UNIT / 16) ** 2
    assert outline(frame).sum() == pytest.approx(samples, rel=0.01)


def test_depth_and_segmentation_show_the_same_shape():
    pictures = shapes.render(4, 0, 200)
    for label, depth, segmentation in zip(
        pictures.labels, pictures.depth.astype(int), pictures.segmentation, strict=True
    ):
        kinds = set(np.unique(segmentation).tolist())
        assert {0, label + 1} <= kinds <= {0, label + 1, shapes.BAR}
        face, wall = depth[segmentation == label + 1], depth[segmentation == 0]
        assert face.max() < wall.min()
        assert (depth[segmentation == shapes.BAR] == 40).all()
    assert 0.4 < (pictures.segmentation == shapes.BAR).any((1, 2)).mean() < 0.6


def test_every_shape_stands_out_from_what_is_behind():
    pictures = shapes.render(6, 0, 300)
    for image, label, segmentation in zip(
        pictures.images.astype(int), pictures.labels, pictures.segmentation, strict=True
    ):
        face = image[:, segmentation == label + 1].mean(1)
        wall = image[:, segmentation == 0].mean(1)
        assert np.abs(face - wall).max() > 40
