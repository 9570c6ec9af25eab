"""A network as one verified .onnx file: raw pixels in, logits out, normalisation inside.

The file takes its name only after onnxruntime has answered real images as torch does, in several
batch sizes. Images are resized by whoever uses the file: their size, and all that is known of the
weights, is in its metadata.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdcli.errors import ENVIRONMENT, KdcliError, unknown
from kdcli.export import graph, latency
from kdcli.export.parity import MAX_DROP, Answer, Report, answers_of
from kdcli.export.precision import (
    FP16,
    FP32,
    PRECISIONS,
    Calibration,
    halved,
    needs_reduced_range,
    quantised,
)
from kdcli.export.report import ExportReport, Finding
from kdcli.export.session import UINT8, open_session
from kdcli.export.subject import prepare
from kdcli.models.network import Network

if TYPE_CHECKING:
    from onnx import ModelProto

# The exporter writes 18 and converts from there: the lowest it can keep, and what most runtimes
# read. Asked for less it warns and keeps 18.
OPSET = 18


def _check_request(opset: int, precision: str) -> None:
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
    if not OPSET <= opset <= newest:
        raise KdcliError(f"opset {opset} cannot be written; choose {OPSET} to {newest}.")
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)


def _converted(
    proto: ModelProto, precision: str, calibration: Tensor | None, kind: str
) -> tuple[ModelProto, Calibration | None]:
    """The fp32 graph in another precision, and what int8 was calibrated with."""
    if precision == FP32:
        return proto, None
    with graph.quiet():
        if precision == FP16:
            return halved(proto), None
        assert calibration is not None and len(calibration), "int8 is calibrated on real images"
        used = Calibration(len(calibration), reduce_range=needs_reduced_range())
        return quantised(proto, calibration, kind, used.reduce_range), used


def _answers(proto: ModelProto, kind: str) -> Answer:
    session = open_session(proto.SerializeToString(), torch.get_num_threads())
    return answers_of(session, kind)


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
    precision: str = FP32,
    calibration: Tensor | None = None,
    max_drop: float = MAX_DROP,
    timed: bool = False,
    report: Report | None = None,
) -> ExportReport:
    """Write `network` to `path` and prove it on `dataset_images` [N, 3, H, W], raw uint8.

    The file takes [batch, 3, H, W], uint8 in 0..255 or float in 0..1 by `input_kind`, and gives
    logits [batch, K]. `info` is what the network's weights file says of itself; with `labels` [N]
    the accuracy of the file is measured beside torch's, and may be at most `max_drop` points less.
    int8 sets its ranges on `calibration` [M, 3, H, W], raw training images. `timed` also measures
    torch, onnxruntime in fp32 and this file. `network` may be on any device and in any mode, and is
    left as it is.

    KdcliError (exported file) when a weight is NaN or the file differs from torch, (environment)
    when a package is missing or the disk fails; then `path` is what it was before.
    """
    began = time.perf_counter()
    opset = OPSET if opset is None else opset
    subject = prepare(network, path, dataset_images, labels, mean, std, info, input_kind)
    _check_request(opset, precision)
    if report:
        report(0, len(dataset_images), "translating the network")
    plain = graph.build(subject.model, subject.image, opset)
    proto, used = _converted(plain, precision, calibration, input_kind)
    graph.check(proto, input_kind, subject.image, subject.classes, opset)
    file = _answers(proto, input_kind)
    measured = subject.prove(file, precision, max_drop, report)
    times: tuple[latency.Latency, ...] = ()
    if timed:
        contenders = {"torch eager fp32": subject.answer}
        contenders["onnxruntime fp32"] = _answers(plain, input_kind)
        contenders[f"onnxruntime {precision}"] = file
        times = latency.measure(contenders, dataset_images, report)
    finding = Finding(subject, measured, times, precision, used, opset)
    for key, value in finding.metadata().items():
        proto.metadata_props.add(key=key, value=value)
    content = proto.SerializeToString()
    open_session(content)
    return finding.publish(path, content, time.perf_counter() - began)
