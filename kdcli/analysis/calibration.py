"""Whether a network is right as often as it is sure: reliability diagrams and ECE.

(Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks. ICML 2017, Eq. 2-5.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from kdcli.analysis import draw
from kdcli.analysis.draw import Piece
from kdcli.analysis.naming import listed
from kdcli.analysis.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 15
ACROSS = 4  # networks in a row


class Reliability(NamedTuple):
    """Test images in bins of equal width by the probability of the answer."""

    counts: Tensor  # [BINS] int64
    confidence: Tensor  # [BINS] float64, mean in the bin; NaN where it is empty
    accuracy: Tensor  # [BINS] float64, share of right answers; NaN where it is empty

    @property
    def error(self) -> float:
        """Expected calibration error: mean gap between the two over the images, 0 to 1."""
        gaps = (self.accuracy - self.confidence).abs().nan_to_num()
        return (gaps * self.counts / self.counts.sum()).sum().item()

    @property
    def sureness(self) -> tuple[float, float]:
        """Mean confidence and accuracy over the images, 0 to 1."""
        share = self.counts / self.counts.sum()
        means = ((share * part.nan_to_num()).sum().item() for part in self[1:])
        return tuple(means)


def reliability(logits: Tensor, labels: Tensor, bins: int = BINS) -> Reliability:
    """Bin m holds the confidences in ((m - 1) / bins, m / bins]; [N, K] and [N]."""
    confidence, answer = logits.double().softmax(1).max(1)
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    counts = torch.bincount(place, minlength=bins)
    means = [
        torch.bincount(place, weights=values.double(), minlength=bins) / counts
        for values in (confidence, answer == labels)
    ]
    return Reliability(counts, *means)


def pieces(study: Study) -> Iterator[Piece]:
    """One figure, a panel a network."""
    everyone = study.everyone()
    found = {name: reliability(each.logits, each.labels) for name, each in everyone.items()}
    rows = (
        [name, number / BINS, (number + 1) / BINS, *values]
        for name, each in found.items()
        for number, values in enumerate(zip(*(part.tolist() for part in each), strict=True))
    )
    yield Piece(
        "calibration",
        f"Calibration, {study.place}: {listed(found)}",
        f"ECE over {BINS} bins of equal width, without temperature scaling. A bar below the "
        "diagonal: more sure than right. Below: how many test images are in each bin.",
        {"expected_calibration_error": {name: each.error for name, each in found.items()}},
        ["network", "above", "up to", "images", "mean confidence", "accuracy"],
        rows,
        lambda: _draw(found),
    )


def _draw(found: Mapping[str, Reliability]) -> Figure:
    across = min(ACROSS, len(found))
    blocks = -(-len(found) // across)
    figure, axes = draw.canvas(
        2 * blocks, across, 2.5, 1.7, sharex=True, gridspec_kw={"height_ratios": [4, 1] * blocks}
    )
    for number in range(blocks * across):
        above, below = axes[2 * (number // across) :, number % across][:2]
        if number >= len(found):
            above.axis("off")
            below.axis("off")
            continue
        name, each = list(found.items())[number]
        _panel(above, below, each)
        sure, right = each.sureness
        above.set_title(
            f"{draw.wrapped(name)}\naccuracy {100 * right:.1f}, ECE {100 * each.error:.1f} %\n"
            f"confidence {100 * sure:.1f} %"
        )
        if number % across == 0:
            above.set_ylabel("accuracy")
            below.set_ylabel("images")
    return figure


def _panel(above: Axes, below: Axes, each: Reliability) -> None:
    """The reliability diagram, and how many images are in each of its bins."""
    left = [number / BINS for number in range(BINS)]
    shape = {"width": 1 / BINS, "align": "edge", "linewidth": 0.5, "edgecolor": "#FFFFFF"}
    above.bar(left, each.accuracy.nan_to_num().tolist(), color=draw.COLOURS[0], **shape)
    above.plot([0, 1], [0, 1], color=draw.INK, linewidth=1, linestyle="--")
    above.set(xlim=(0, 1), ylim=(0, 1))
    above.tick_params(labelbottom=False)
    below.bar(left, each.counts.tolist(), color=draw.COLOURS[6], **shape)
    below.locator_params(axis="y", nbins=2)
    below.tick_params(labelbottom=True)
    below.set_xlabel("confidence")
