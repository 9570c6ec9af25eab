"""The ten outlines of `shapes` as unions and intersections of half-planes and circles, in integers.

Lengths are in 1/64 pixel, angles in tenths of a degree, directions in 1/4096. Nothing is a float
once the table of cosines is made, so that every machine draws the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

UNIT = 64  # lengths in a pixel
ONE = 4096  # the cosine of 0
COSINE = np.array([round(ONE * math.cos(math.radians(a / 10))) for a in range(3600)], np.int32)


def cosine(angle: np.ndarray) -> np.ndarray:
    """Of tenths of a degree, any integers -> int32 in -4096 .. 4096."""
    return COSINE[angle % 3600]


def sine(angle: np.ndarray) -> np.ndarray:
    """As `cosine`."""
    return COSINE[(angle - 900) % 3600]


class Frame(NamedTuple):
    """Sample points as seen from each shape's centre, and how the shape stands there."""

    x: np.ndarray  # [n, 1, S] int32, 1/64 pixel, to the right
    y: np.ndarray  # [n, S, 1] int32, 1/64 pixel, down
    radius: np.ndarray  # [n, 1, 1] int32, 1/64 pixel
    turn: np.ndarray  # [n, 1, 1] int32, tenths of a degree, clockwise

    def along(self, angle: int) -> np.ndarray:
        """4096 times the distance from the centre in this direction; 0 right, 900 down."""
        angle = self.turn + angle
        return self.x * cosine(angle) + self.y * sine(angle)

    def percent(self, share: int) -> np.ndarray:
        """This share of the radius, in 1/64 pixel."""
        return self.radius * share // 100

    def below(self, angle: int, share: int) -> np.ndarray:
        """The half-plane that ends `share` percent of the radius away in this direction."""
        return self.along(angle) <= self.percent(share) * ONE

    def slab(self, angle: int, share: int) -> np.ndarray:
        """The strip across this direction, `share` percent of the radius to either side."""
        return np.abs(self.along(angle)) <= self.percent(share) * ONE

    def circle(self, share: int, angle: int = 0, away: int = 0) -> np.ndarray:
        """The circle of `share` percent, its centre `away` percent off in this direction."""
        off, angle = self.percent(away), self.turn + angle
        x, y = self.x - off * cosine(angle) // ONE, self.y - off * sine(angle) // ONE
        return x * x + y * y <= self.percent(share) ** 2


def regular(frame: Frame, sides: int, share: int, first: int = 900) -> np.ndarray:
    """On the inside of how many sides of a regular polygon each point is.

    The sides are `share` percent of the radius from the centre; the first of them lies in direction
    `first`, by default at the bottom, which puts a tip of an odd polygon on top.
    """
    return sum(
        frame.below(first + side * (3600 // sides), share).view(np.uint8) for side in range(sides)
    )


def disk(frame: Frame) -> np.ndarray:
    """A full circle."""
    return frame.circle(88)


def triangle(frame: Frame) -> np.ndarray:
    """Equilateral, tip up."""
    return regular(frame, 3, 55) == 3


def square(frame: Frame) -> np.ndarray:
    """Sides level."""
    return frame.slab(0, 76) & frame.slab(900, 76)


def pentagon(frame: Frame) -> np.ndarray:
    """Regular, tip up."""
    return regular(frame, 5, 80) == 5


def star(frame: Frame) -> np.ndarray:
    """Five tips, one on top: what lies outside at most one side of the pentagon in the middle."""
    return regular(frame, 5, 36, first=2700) >= 4


def plus(frame: Frame) -> np.ndarray:
    """Two equal bars."""
    level, upright = frame.slab(900, 30), frame.slab(0, 30)
    return (level & frame.slab(0, 96)) | (upright & frame.slab(900, 96))


def ring(frame: Frame) -> np.ndarray:
    """A circle with a round hole."""
    return frame.circle(96) & ~frame.circle(52)


def crescent(frame: Frame) -> np.ndarray:
    """A circle without another one to its right."""
    return frame.circle(100) & ~frame.circle(84, 0, 48)


def bowtie(frame: Frame) -> np.ndarray:
    """Two triangles that touch with their tips, left and right."""
    falling, rising = frame.along(500) >= 0, frame.along(-500) >= 0
    return (falling == rising) & frame.slab(0, 98)


def arrow(frame: Frame) -> np.ndarray:
    """To the right: a shaft and a triangular head."""
    shaft = frame.slab(900, 20) & frame.slab(0, 98)
    head = frame.below(1800, 5) & frame.below(400, 66) & frame.below(-400, 66)
    return (shaft & frame.below(0, 30)) | head


OUTLINES: tuple[Callable[[Frame], np.ndarray], ...] = (
    *(disk, triangle, square, pentagon, star, plus, ring, crescent, bowtie, arrow),
)
