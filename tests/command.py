"""The command line as a person has it: arguments in, exit code and two streams out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from kdcli.cli.main import run


class Answer(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


def call(capsys: pytest.CaptureFixture, *arguments: str) -> Answer:
    """`kdcli *arguments` inside this process."""
    before, sys.argv = sys.argv, ["kdcli", *map(str, arguments)]
    capsys.readouterr()
    try:
        run()
        code = 0
    except SystemExit as left:
        code = left.code or 0
    finally:
        sys.argv = before
    return Answer(code, *capsys.readouterr())


def start(*arguments: str, **environment: str) -> subprocess.Popen:
    """`kdcli *arguments` as a process of its own, on one thread."""
    here = str(Path(__file__).parent.parent)
    return subprocess.Popen(
        [sys.executable, "-m", "kdcli", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def draw_folder(path: Path, classes: int = 4, train: int = 16, test: int = 8) -> Path:
    """A dataset of image files: train/ and test/ with a folder a class, noise on a colour."""
    random = np.random.default_rng(0)
    colours = random.integers(0, 191, (classes, 1, 1, 3))
    for split, count in (("train", train), ("test", test)):
        for label in range(classes):
            place = path / split / f"class{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 64, (32, 32, 3)) + colours[label]
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number}.png")
    return path
