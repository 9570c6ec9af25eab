"""How every figure looks, and how it is written: the same numbers give the same bytes.

Colours can be told apart by colour-blind readers: lines and bars take those of Okabe and Ito
(Color Universal Design, 2008) that stand out on white and on black, magnitudes take viridis,
signed values take the diverging purple-orange of ColorBrewer.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli.errors import ENVIRONMENT, KdcliError
from kdcli.files import environment_errors, replacing, write_json, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
MAGNITUDE, SIGNED = "viridis", "PuOr"
INK = "#010203"  # text, axes and ticks; no other element has it, so that a page may recolour it
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.5,
    "lines.linewidth": 1.6,
    "image.interpolation": "nearest",
    "svg.hashsalt": "kdcli",  # element ids from the content, not from the clock
    "svg.fonttype": "path",  # letters as shapes: every machine shows the same widths
    "text.parse_math": False,  # a $ in the name of a class or run is a $
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
}
# The first comes with matplotlib; the others, where they are installed, have what it lacks.
FONTS = (
    *("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "IPAexGothic"),
    *("PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Malgun Gothic", "Arial Unicode MS"),
)
DOTS = 150  # an inch, of PNG files and of what is a bitmap inside an SVG


@dataclass(frozen=True)
class Piece:
    """One figure and the numbers that it shows."""

    name: str  # of its files, without a suffix
    title: str  # what, and of which runs
    caption: str  # how to read it, and under which conditions it holds
    summary: Mapping[str, Any]  # headline numbers, JSON-able
    columns: Sequence[str]
    rows: Iterable[Sequence[Any]]  # every number that is drawn; or a generator of them
    draw: Callable[[], Figure]  # called inside `style`


def check_installed() -> None:
    """KdcliError (environment) unless what draws is there."""
    if find_spec("matplotlib") is None or find_spec("sklearn") is None:
        raise KdcliError(
            "figures need matplotlib and scikit-learn: pip install 'kdcli[figures]'", ENVIRONMENT
        )


@contextmanager
def style() -> Iterator[None]:
    """A context in which figures are made and written; nobody's own settings show through."""
    import matplotlib
    from matplotlib.font_manager import get_font_names

    fonts = [name for name in FONTS if name in (FONTS[0], *get_font_names())]
    with (
        matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE, "font.family": fonts}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph ")  # a box stands for it; the CSV file has it
        yield


def write(piece: Piece, folder: Path) -> list[Path]:
    """The figure as PNG and SVG, its numbers as CSV and JSON; the files, the PNG first."""
    with style():
        figure = settled(piece)
        title = wrapped(piece.title, int(11 * figure.get_figwidth()))  # letters in a line
        figure.text(0.01, 1.01, title, size=11, weight="bold", va="bottom")
        pictures = {kind: rendered(figure, kind) for kind in ("png", "svg")}
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([piece.columns, *piece.rows])
    told = {"title": piece.title, "caption": piece.caption, **piece.summary}
    files = {kind: folder / f"{piece.name}.{kind}" for kind in ("png", "svg", "csv", "json")}
    with environment_errors(str(folder)):
        for kind, content in pictures.items():
            with replacing(files[kind]) as aside:
                aside.write_bytes(content)
        write_text(files["csv"], table.getvalue())
        write_json(files["json"], told)
    return list(files.values())


def settled(piece: Piece) -> Figure:
    """The figure drawn and laid out for good: a title above it moves nothing."""
    figure = piece.draw()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for legend in figure.legends:  # tied to the file's edge, which the title will move
        box = legend.get_window_extent().transformed(figure.transFigure.inverted())
        legend.set_bbox_to_anchor((0, 0, 1, 1), transform=figure.transFigure)
        legend.set_loc((box.x0, box.y0))
    return figure


def rendered(figure: Figure, kind: str, **options: Any) -> bytes:
    """`figure` as a png or svg file, with neither date nor version in it."""
    silent = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}[kind]
    content = io.BytesIO()
    figure.savefig(
        content, format=kind, dpi=DOTS, metadata=silent, bbox_inches="tight", pad_inches=0.1,
        **options,
    )  # fmt: skip
    return content.getvalue()


def canvas(
    rows: int, columns: int, width: float, height: float, **options: Any
) -> tuple[Figure, Any]:
    """A figure and its axes [rows, columns]; `width` and `height` of one panel, in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, axes


def line(number: int) -> dict[str, Any]:
    """Colour and dashes of the line with this number; they repeat after 28."""
    dashes = DASHES[number // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": dashes}


def wrapped(text: str, width: int = 26) -> str:
    """`text` on several lines, for the title of a panel."""
    import textwrap

    return textwrap.fill(text, width, break_long_words=True)


def clipped(text: str, most: int = 28) -> str:
    """`text` on one line of at most so many letters, for a tick or a legend.

    >>> clipped("great white shark, man-eater", 12)
    'great white…'
    """
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def grid(axes: Axes, axis: str = "both") -> None:
    """Faint lines behind what is drawn."""
    axes.grid(True, axis=axis)
    axes.set_axisbelow(True)


def legend_outside(figure: Figure, axes: Axes, place: str = "right upper", **options: Any) -> None:
    """One legend beside all panels, of what is labelled in `axes`."""
    figure.legend(*axes.get_legend_handles_labels(), loc=f"outside {place}", **options)


def matrix(axes: Axes, values: Any, labels: tuple[Sequence[str], Sequence[str]], text: str) -> None:
    """Write `values` [R, C] into the cells of a heat map that is drawn already, and its ticks."""
    below, beside = labels
    axes.set_xticks(range(len(below)), below, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(beside)), beside)
    axes.tick_params(length=0)
    image = axes.images[-1]
    for row, column in ((r, c) for r in range(len(beside)) for c in range(len(below))):
        value = values[row][column]
        red, green, blue, _ = image.cmap(image.norm(value))
        light = 0.3 * red + 0.6 * green + 0.1 * blue > 0.5
        axes.text(
            column, row, text.format(value), ha="center", va="center", fontsize=8,
            color="#000000" if light else "#FFFFFF",
        )  # fmt: skip
