"""`shapes`: 32x32 pictures drawn from a seed, so that a first run needs no download.

Exact integer arithmetic on counters: the same seed gives the same bytes on every machine, and one
picture does not depend on which others are drawn with it. The depth and the segmentation of every
picture come with it, for transfer between modalities.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from kdcli.data.assemble import Arrays, Raw
from kdcli.data.silhouettes import ONE, OUTLINES, UNIT, Frame, cosine, sine

SIDE = 32  # pixels
SAMPLES = 4  # along each axis of a pixel; the share of samples inside is the coverage
TRAIN_SEED, TEST_SEED = 1, 2
TRAIN, TEST = 8_000, 2_000
CHUNK = 32  # pictures of one class at a time: the sample grids then stay in the cache
BAR = len(OUTLINES) + 1  # in the segmentation; 0 is the background, 1 + label the shape


class Pictures(NamedTuple):
    """What `render` returns, aligned."""

    images: np.ndarray  # [N, 3, 32, 32] uint8
    labels: np.ndarray  # [N] int64, index mod 10
    depth: np.ndarray  # [N, 32, 32] uint8, distance: bar < shape < background
    segmentation: np.ndarray  # [N, 32, 32] uint8, 0 background, 1 + label, 11 the bar


def mixed(number: np.ndarray) -> np.ndarray:
    """uint32 -> uint32, one to one, every output bit depending on every input bit.

    The finaliser of MurmurHash3 (A. Appleby, public domain).
    """
    number = (number ^ (number >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    number = (number ^ (number >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return number ^ (number >> np.uint32(16))


class Dice(NamedTuple):
    """Random numbers by name: the same key of a picture gives the same draw, in any order."""

    base: np.ndarray  # [n] uint32, one for each picture

    def bits(self, key: int, count: int) -> np.ndarray:
        """[n, count] uint32."""
        counters = np.arange(count, dtype=np.uint32) + np.uint32(key << 16)
        return mixed(mixed(self.base[:, None] ^ counters * np.uint32(0x9E3779B9)))

    def between(self, key: int, low: int, high: int, count: int = 1) -> np.ndarray:
        """[n, count] int32, uniform over low .. high, both included."""
        span = np.uint64(high - low + 1)
        return (self.bits(key, count) * span >> np.uint64(32)).astype(np.int32) + np.int32(low)


def dice(seed: int, indices: np.ndarray) -> Dice:
    """The dice of these pictures, [n] indices."""
    start = mixed(np.array([seed % 2**32], np.uint32) + np.uint32(0x632BE5AB))
    return Dice(mixed(start ^ mixed(indices.astype(np.uint32))))


def coverage(inside: np.ndarray) -> np.ndarray:
    """[n, 128, 128] bool -> [n, 32, 32] int32: how many of a pixel's 16 samples are inside.

    Added slice by slice: numpy's sum over two short axes takes ten times as long.
    """
    inside = inside.view(np.uint8)
    tall = sum(inside[:, row::SAMPLES] for row in range(SAMPLES))
    return sum(tall[:, :, column::SAMPLES] for column in range(SAMPLES)).astype(np.int32)


def over(below: np.ndarray, paint: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Paint [n, 3, 1, 1] over pictures [n, 3, 32, 32] where `cover` [n, 32, 32] of 16 says."""
    cover = cover[:, None]
    return (below * (SAMPLES**2 - cover) + paint * cover + SAMPLES**2 // 2) // SAMPLES**2


def slope(angle: np.ndarray) -> np.ndarray:
    """Pixels along a direction, angle [n, 1] -> [n, 32, 32] int32, 1/64 pixel from the middle."""
    at = (np.arange(SIDE, dtype=np.int32) * 2 + 1 - SIDE) * (UNIT // 2)
    x, y = cosine(angle) * at, sine(angle) * at
    return (x[:, None, :] + y[:, :, None]) // ONE


def ground(roll: Dice) -> tuple[np.ndarray, np.ndarray]:
    """What is behind: base colours [n, 3] and pictures [n, 3, 32, 32] of gradient and stripes."""
    base = roll.between(1, 0, 255, 3)
    reach = 16 * UNIT  # from the middle to the edge
    tilt = slope(roll.between(2, 0, 3599))[:, None] * roll.between(3, -32, 32, 3)[:, :, None, None]
    period = roll.between(4, 4 * UNIT, 9 * UNIT)[:, :, None]
    along = slope(roll.between(5, 0, 1799)) + roll.between(6, 0, 9 * UNIT)[:, :, None]
    wave = np.abs(2 * (along % period) - period) * 64 // period - 32  # a triangle, -32 .. 32
    stripes = wave[:, None] * roll.between(7, -20, 20, 3)[:, :, None, None]
    return base, base[:, :, None, None] + tilt // reach + stripes // 32


def placed(roll: Dice) -> Frame:
    """Where each shape stands: its circle inside the picture, at most 20 degrees from upright."""
    radius = roll.between(10, 7 * UNIT, 13 * UNIT)
    room = SIDE * UNIT // 2 - radius  # that far the centre may leave the middle
    middle = SIDE * UNIT // 2 + roll.between(11, -ONE, ONE, 2) * room // ONE
    step = UNIT // SAMPLES
    samples = np.arange(SIDE * SAMPLES, dtype=np.int32) * step + step // 2
    return Frame(
        x=samples - middle[:, :1, None],
        y=samples[:, None] - middle[:, 1:, None],
        radius=radius[:, :, None],
        turn=roll.between(12, -200, 200)[:, :, None],
    )


def barred(roll: Dice, frame: Frame) -> np.ndarray:
    """Coverage [n, 32, 32] of a bar across every second shape, 1.25 to 2.5 pixels wide."""
    across = frame._replace(turn=roll.between(20, 0, 1799)[:, :, None]).along(0)
    off = roll.between(21, -60, 60)[:, :, None] * frame.radius // 100
    half = roll.between(22, 40, 80)[:, :, None]
    inside = (across >= (off - half) * ONE) & (across <= (off + half) * ONE)
    return coverage(inside) * roll.between(23, 0, 1)[:, :, None]


def draw(seed: int, indices: np.ndarray, label: int) -> Pictures:
    """Pictures of one class; indices [n], all equal to `label` modulo 10."""
    roll = dice(seed, indices)
    frame = placed(roll)
    shape, bar = coverage(OUTLINES[label](frame)), barred(roll, frame)
    base, picture = ground(roll)
    # at least 80 of 255 from the base colour in every channel, on one side or the other
    paint = (base + roll.between(13, 80, 176, 3)) % 256
    picture = over(picture, paint[:, :, None, None], shape)
    picture = over(picture, roll.between(24, 0, 255, 3)[:, :, None, None], bar)
    noise = roll.bits(30, 3 * SIDE * SIDE).reshape(picture.shape)
    picture += (noise >> np.uint32(28)).astype(np.int32) - 15  # two dice of 16 sides
    picture += (noise >> np.uint32(24) & np.uint32(15)).astype(np.int32)
    shown, hidden = shape * 2 >= SAMPLES**2, bar * 2 >= SAMPLES**2
    wall = 200 + slope(roll.between(40, 0, 3599)) // (UNIT // 2)  # leaning, 154 .. 246
    face = 100 + slope(roll.between(41, 0, 3599)) // UNIT + roll.between(42, -16, 16)[:, :, None]
    return Pictures(
        np.clip(picture, 0, 255).astype(np.uint8),
        indices % len(OUTLINES),
        np.where(hidden, 40, np.where(shown, face, wall)).astype(np.uint8),
        np.where(hidden, BAR, shown * (1 + label)).astype(np.uint8),
    )


def render(seed: int, start: int, count: int) -> Pictures:
    """Pictures start .. start + count - 1 of the endless series that `seed` names.

    The class of picture i is i mod 10, so that any ten in a row are balanced.
    """
    result = Pictures(
        np.empty((count, 3, SIDE, SIDE), np.uint8),
        np.empty(count, np.int64),
        np.empty((count, SIDE, SIDE), np.uint8),
        np.empty((count, SIDE, SIDE), np.uint8),
    )
    indices = np.arange(start, start + count)
    for label in range(len(OUTLINES)):
        places = np.flatnonzero(indices % len(OUTLINES) == label)
        for first in range(0, len(places), CHUNK):
            part = places[first : first + CHUNK]
            for whole, drawn in zip(result, draw(seed, indices[part], label), strict=True):
                whole[part] = drawn
    return result


def locate(name: str, root: Path) -> Path:
    """It is always there."""
    return Path(__file__)


def read(
    name: str, root: Path, *, download: bool, size: int | None, train_per_class: int | None
) -> Raw:
    """8,000 training and 2,000 test pictures; the arguments, common to all readers, change nothing.

    Rendering takes about a second, so nothing is kept on the disk.
    """
    train, test = render(TRAIN_SEED, 0, TRAIN), render(TEST_SEED, 0, TEST)
    classes = tuple(outline.__name__ for outline in OUTLINES)
    splits = (Arrays(part.images, part.labels) for part in (train, test))
    return Raw(*splits, classes, "rendered from a seed")
