"""Whether an exported file answers real images as torch does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdcli.data.loader import normalise
from kdcli.errors import CHECKPOINT, KdcliError
from kdcli.export.runtime import ask
from kdcli.models.network import Network

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

BATCHES = (1, 2, 7, 64)  # then 64 again and again: a batch size fixed in the graph shows
RELATIVE = 1e-4  # of the largest logit, which counts as 1 at least
NEAR_TIE = 1e-3  # logits: two best answers closer than this may change places
Report = Callable[[int, int, str], None]  # images done, images in all, what is being done


@dataclass(frozen=True)
class Parity:
    """The file's logits against torch's, on the same images."""

    images: int  # distinct ones
    classes: int
    max_difference: float  # largest |file - torch| of any logit
    tolerance: float  # what is allowed
    agreement: float  # percent of the images with the same top-1
    disagreements: int  # of them, images with another top-1 that are no near tie
    top1_file: float | None  # percent; None without labels
    top1_torch: float | None


def _spans(count: int) -> Iterator[slice]:
    """`count` rows in batches of 1, 2, 7, 64, 64, ..."""
    start, step = 0, 0
    while start < count:
        size = BATCHES[min(step, len(BATCHES) - 1)]
        yield slice(start, start + size)
        start, step = start + size, step + 1


def compare(file: Tensor, torch_: Tensor, images: int, labels: Tensor | None) -> Parity:
    """Logits [M, K] of both for the same rows, the first `images` of them distinct."""
    best, second = torch_.topk(min(2, torch_.shape[1]), dim=1).values[:, [0, -1]].unbind(1)
    same = file.argmax(1) == torch_.argmax(1)
    top1 = [
        None if labels is None else 100 * (one[:images].argmax(1) == labels).double().mean().item()
        for one in (file, torch_)
    ]
    return Parity(
        images=images,
        classes=torch_.shape[1],
        max_difference=(file - torch_).abs().max().item(),
        tolerance=RELATIVE * max(1.0, torch_.abs().max().item()),
        agreement=100 * same.double().mean().item(),
        disagreements=int((~same & (best - second >= NEAR_TIE)).sum()),
        top1_file=top1[0],
        top1_torch=top1[1],
    )


def measure(
    network: Network,
    session: InferenceSession,
    kind: str,
    images: Tensor,
    labels: Tensor | None,
    mean: Sequence[float],
    std: Sequence[float],
    report: Report | None = None,
) -> Parity:
    """Both on raw images [N, 3, H, W] uint8; fewer than 74 are repeated, to fill every batch size.

    Torch's side is normalised by the loader's code, not by the exported module's.
    """
    count = len(images)
    rows = torch.arange(max(count, sum(BATCHES))) % count
    file, expected = [], []
    for span in _spans(len(rows)):
        part = images[rows[span]]
        with torch.no_grad():
            expected.append(network(normalise(part, mean, std)))
        file.append(ask(session, part, kind))
        if report:
            report(min(span.stop, len(rows)), len(rows), "comparing the file with torch")
    return compare(torch.cat(file), torch.cat(expected), count, labels)


def check(parity: Parity) -> None:
    """KdcliError (exported file) unless the file may be published."""
    # Written so that NaN fails.
    if not parity.max_difference <= parity.tolerance or parity.disagreements:
        raise KdcliError(
            "the exported model does not answer as torch does: logits differ by up to "
            f"{parity.max_difference:.3g} (allowed: {parity.tolerance:.3g}) and "
            f"{parity.disagreements} of {parity.images} images get another class; "
            "nothing was written. Another --opset may help.",
            CHECKPOINT,
        )
