"""A network made ready to export, and the real images on which its file is proven."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdcli.errors import KdcliError
from kdcli.export import parity
from kdcli.export.graph import Deployed
from kdcli.export.parity import Answer, Parity, Report
from kdcli.export.provenance import checked_classes, deployable, shareable
from kdcli.export.session import TYPES
from kdcli.models.network import Network


@dataclass(frozen=True)
class Subject:
    """What every format starts from."""

    network: Network  # a copy on the CPU, in evaluation mode
    model: Deployed  # the same with its normalisation
    answer: Answer  # torch's own, which the file has to give
    info: dict[str, Any]  # what the weights file says of itself, no path of this machine in it
    images: Tensor  # [N, 3, H, W] uint8
    labels: Tensor | None  # [N]
    classes: int

    @property
    def image(self) -> tuple[int, ...]:
        """3, H, W."""
        return tuple(self.images.shape[1:])

    def prove(
        self,
        file: Answer,
        precision: str,
        max_drop: float = parity.MAX_DROP,
        report: Report | None = None,
    ) -> Parity:
        """How `file` answers the images; KdcliError (exported file) if it may not be published."""
        measured = parity.measure(file, self.answer, self.images, self.labels, report)
        parity.check(measured, precision, max_drop)
        return measured


def prepare(
    network: Network,
    path: Path,
    images: Tensor,
    labels: Tensor | None,
    mean: Sequence[float],
    std: Sequence[float],
    info: Mapping[str, Any],
    kind: str,
) -> Subject:
    """KdcliError for what can be known to fail before the seconds of an export.

    `images`: real ones, raw [N, 3, H, W] uint8; `kind`: what the file at `path` shall take. The
    network may be on any device and in any mode, and is left as it is.
    """
    if kind not in TYPES:
        raise KdcliError(f"the input of an exported file is {' or '.join(TYPES)}, not {kind!r}.")
    if path.is_dir():
        raise KdcliError(f"{path} is a folder; name the file to write.")
    assert images.dtype == torch.uint8, f"real images as uint8, not {images.dtype}"
    assert len(images), "a file is compared on one image at least"
    made = deployable(network)
    with torch.no_grad():
        classes = made(torch.zeros(1, *images.shape[1:])).shape[1]
    checked_classes(info, classes)
    model = Deployed(made, mean, std, kind)
    answer = parity.torch_answers(made, mean, std)
    return Subject(made, model, answer, shareable(info), images, labels, classes)
