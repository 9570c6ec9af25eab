"""A network as one verified .onnx file: raw pixels in, logits out, normalisation inside.

The file takes its name only after onnxruntime has answered real images as torch does, in several
batch sizes. Images are resized by whoever uses the file: their size, and all that is known of the
weights, is in its metadata.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdcli.errors import CHECKPOINT, ENVIRONMENT, KdcliError
from kdcli.export import graph, parity
from kdcli.export.parity import Parity, Report
from kdcli.export.provenance import checked_classes, deployable, licence, provenance, shareable
from kdcli.export.runtime import TYPES, UINT8, open_session
from kdcli.files import environment_errors, replacing
from kdcli.models.network import Network

# The exporter writes 18 and converts from there: the lowest it can keep, and what most runtimes
# read. Asked for less it warns and keeps 18.
OPSET = 18


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares with torch."""

    path: Path
    bytes: int
    opset: int
    input_kind: str
    images: int  # compared
    max_difference: float  # largest |file - torch| of any logit
    tolerance: float  # what was allowed
    agreement: float  # percent of the images with the same top-1
    top1_file: float | None  # percent; None without labels
    top1_torch: float | None
    seconds: float


def _check_request(path: Path, images: Tensor, kind: str, opset: int) -> None:
    """KdcliError for what can be known to fail before the seconds of an export."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise KdcliError(
                f"exporting to ONNX needs the package {package}; pip install {package} ({error}).",
                ENVIRONMENT,
            ) from error
    from onnx.defs import onnx_opset_version

    newest = onnx_opset_version()
    if kind not in TYPES:
        raise KdcliError(f"the input of an ONNX file is {' or '.join(TYPES)}, not {kind!r}.")
    if not OPSET <= opset <= newest:
        raise KdcliError(f"opset {opset} cannot be written; choose {OPSET} to {newest}.")
    if path.is_dir():
        raise KdcliError(f"{path} is a folder; name the .onnx file to write.")
    assert images.dtype == torch.uint8, f"real images as uint8, not {images.dtype}"
    assert len(images), "a file is compared on one image at least"


def _metadata(
    network: Network,
    info: Mapping[str, Any],
    model: graph.Deployed,
    image: tuple[int, ...],
    measured: Parity,
) -> dict[str, str]:
    """All that the file says of itself, as text: lists and tables in JSON. `image`: 3, H, W."""
    known = provenance(info, network)
    training = {key: known.pop(key) for key in ("top1", "top5") if key in known}
    told = {
        "model": network.architecture["name"],
        "classes": checked_classes(info, measured.classes),
        "input": {
            "name": "images",
            "type": model.kind,
            "layout": "NCHW",
            "channels": "RGB",
            "range": [0, 255 if model.kind == UINT8 else 1],
            "height": image[1],
            "width": image[2],
            "normalisation": "inside the graph",
        },
        "output": {"name": "logits", "classes": measured.classes},
        "mean": [round(value, 7) for value in model.mean.flatten().tolist()],
        "std": [round(value, 7) for value in model.std.flatten().tolist()],
        "accuracy": {
            "top1": measured.top1_file,  # of this file, percent
            "top1_torch": measured.top1_torch,
            "images": measured.images if measured.top1_file is not None else 0,
            "training": training,  # what the run wrote down: last epoch, whole test set
        },
        "parity": {
            "max_difference": measured.max_difference,
            "tolerance": measured.tolerance,
            "agreement": measured.agreement,
            "images": measured.images,
        },
        **known,
    }
    named = {f"kdcli.{key}": value for key, value in told.items() if value is not None}
    named["license"] = licence(info)
    return {key: v if isinstance(v, str) else json.dumps(v) for key, v in named.items()}


def export_onnx(
    network: Network,
    path: Path,
    *,
    dataset_images: Tensor,
    labels: Tensor | None = None,
    mean: Sequence[float],
    std: Sequence[float],
    info: Mapping[str, Any],
    input_kind: str = UINT8,
    opset: int | None = None,
    report: Report | None = None,
) -> ExportReport:
    """Write `network` to `path` and prove it on `dataset_images` [N, 3, H, W], raw uint8.

    The file takes [batch, 3, H, W], uint8 in 0..255 or float in 0..1 by `input_kind`, and gives
    logits [batch, K]. `info` is what the network's weights file says of itself; with `labels` [N]
    the accuracy of the file is measured beside torch's. `network` may be on any device and in any
    mode, and is left as it is.

    KdcliError (exported file) when a weight is NaN or the file differs from torch, (environment)
    when a package is missing or the disk fails; then `path` is what it was before.
    """
    began = time.perf_counter()
    opset = OPSET if opset is None else opset
    _check_request(path, dataset_images, input_kind, opset)
    network, info = deployable(network), shareable(info)
    image = tuple(dataset_images.shape[1:])
    with torch.no_grad():
        classes = network(torch.zeros(1, *image)).shape[1]
    checked_classes(info, classes)
    model = graph.Deployed(network, mean, std, input_kind)
    if report:
        report(0, len(dataset_images), "translating the network")
    proto = graph.build(model, image, opset)
    graph.check(proto, input_kind, image, classes, opset)
    session = open_session(proto.SerializeToString())
    measured = parity.measure(
        network, session, input_kind, dataset_images, labels, mean, std, report
    )
    parity.check(measured)
    for key, value in _metadata(network, info, model, image, measured).items():
        proto.metadata_props.add(key=key, value=value)
    written = proto.SerializeToString()
    with environment_errors(str(path)), replacing(path) as aside:
        aside.write_bytes(written)
        if aside.read_bytes() != written:
            raise KdcliError(f"the disk of {path} does not keep what is written.", CHECKPOINT)
        open_session(aside)
    return ExportReport(
        path=path,
        bytes=len(written),
        opset=opset,
        input_kind=input_kind,
        images=measured.images,
        max_difference=measured.max_difference,
        tolerance=measured.tolerance,
        agreement=measured.agreement,
        top1_file=measured.top1_file,
        top1_torch=measured.top1_torch,
        seconds=time.perf_counter() - began,
    )
