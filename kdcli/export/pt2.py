"""A network as one verified .pt2 file of torch.export: raw pixels in, logits out.

What `torch.export.save` writes is a graph of torch's own operations with its weights; torch alone
loads it, without the code of the network: `torch.export.load(path).module()`.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from kdcli.errors import CHECKPOINT, KdcliError
from kdcli.export import graph, latency
from kdcli.export.parity import Answer, Report
from kdcli.export.precision import FP32
from kdcli.export.report import ExportReport, Finding
from kdcli.export.session import FLOAT, UINT8
from kdcli.export.subject import prepare
from kdcli.models.network import Network

TOLD = "kdcli.json"  # in the archive: what the file says of itself


def _translated(model: graph.Deployed, image: tuple[int, ...]) -> ExportedProgram:
    """`model` for images of one size in batches of any; KdcliError (exported file) if it cannot."""
    try:
        with graph.quiet():
            program = torch.export.export(
                model,
                (graph.example(model.kind, image),),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    except Exception as error:  # a network of others can fail in any way
        reason = str(error).strip().splitlines()[0]
        raise KdcliError(f"this network cannot be exported: {reason}", CHECKPOINT) from error
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # with the paths of this machine
    program.example_inputs = None  # the one part that would be a pickle with content
    return program


def _packed(program: ExportedProgram, told: Mapping[str, str]) -> bytes:
    stream = io.BytesIO()
    torch.export.save(program, stream, extra_files={TOLD: json.dumps(told)})
    return stream.getvalue()


def _answers(content: bytes, kind: str) -> Answer:
    """The file as it is loaded by whoever gets it."""
    module = torch.export.load(io.BytesIO(content)).module()

    def answer(images: Tensor) -> Tensor:
        with torch.no_grad():
            return module(images.float() / 255 if kind == FLOAT else images)

    return answer


def export_pt2(
    network: Network,
    path: Path,
    *,
    dataset_images: Tensor,
    labels: Tensor | None = None,
    mean: Sequence[float],
    std: Sequence[float],
    info: Mapping[str, Any],
    input_kind: str = UINT8,
    timed: bool = False,
    report: Report | None = None,
) -> ExportReport:
    """Write `network` to `path` and prove it, loaded again, on `dataset_images` [N, 3, H, W] uint8.

    Arguments, input, output and errors are those of `kdcli.export.onnx.export_onnx`. What the file
    says of itself is `kdcli.json` in it:
    `torch.export.load(path, extra_files=(told := {"kdcli.json": ""}))`.
    """
    began = time.perf_counter()
    subject = prepare(network, path, dataset_images, labels, mean, std, info, input_kind)
    if report:
        report(0, len(dataset_images), "translating the network")
    program = _translated(subject.model, subject.image)
    file = _answers(_packed(program, {}), input_kind)
    measured = subject.prove(file, FP32, report=report)
    times: tuple[latency.Latency, ...] = ()
    if timed:
        contenders = {"torch eager fp32": subject.answer, "torch.export fp32": file}
        times = latency.measure(contenders, dataset_images, report)
    finding = Finding(subject, measured, times)
    content = _packed(program, finding.metadata())
    _answers(content, input_kind)(dataset_images[:1])
    return finding.publish(path, content, time.perf_counter() - began)
