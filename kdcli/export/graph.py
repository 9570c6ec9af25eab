"""From a network to an ONNX graph: the normalisation put in, nothing of this machine left in."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdcli.errors import CHECKPOINT, KdcliError
from kdcli.export.session import UINT8

if TYPE_CHECKING:
    from onnx import ModelProto


class Deployed(nn.Module):
    """What the file computes: [B, 3, H, W] uint8, or float in [0, 1] -> logits [B, K]."""

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], kind: str):
        super().__init__()
        self.network, self.kind = network, kind
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        images = images.to(torch.float32)  # first of all: the exporter mistypes uint8 arithmetic
        if self.kind == UINT8:
            images = images / 255
        return self.network((images - self.mean) / self.std)


@contextmanager
def quiet() -> Iterator[None]:
    """The exporter warns and logs of its own insides; what matters is checked afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def example(kind: str, image: tuple[int, ...]) -> Tensor:
    """What a translator is shown: two images, since with one the batch size would be fixed."""
    return torch.zeros(2, *image, dtype=torch.uint8 if kind == UINT8 else torch.float32)


def build(model: Deployed, image: tuple[int, ...], opset: int) -> ModelProto:
    """The graph for images of shape `image` in batches of any size, weights included.

    KdcliError (exported file) for a network that the exporter cannot translate.
    """
    try:
        with quiet():
            program = torch.onnx.export(
                model,
                (example(model.kind, image),),
                dynamo=True,
                opset_version=opset,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise KdcliError(f"this network cannot be exported: {reason}", CHECKPOINT) from error
    proto = program.model_proto
    graph = proto.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]  # stack traces, with the paths of this machine
    return proto


def _ends(values: Sequence[Any]) -> list[tuple[str, int, list[str | int]]]:
    """Name, element type and dimensions of a graph's inputs or outputs."""
    tensors = [(value.name, value.type.tensor_type) for value in values]
    return [
        (name, tensor.elem_type, [dim.dim_param or dim.dim_value for dim in tensor.shape.dim])
        for name, tensor in tensors
    ]


def check(proto: ModelProto, kind: str, image: tuple[int, ...], classes: int, opset: int) -> None:
    """KdcliError (exported file) unless onnx calls the model valid and it is what was asked for."""
    import onnx

    types = onnx.TensorProto
    wrong = []
    written = {entry.domain: entry.version for entry in proto.opset_import}.get("")
    if written != opset:  # the exporter only warns when it cannot
        wrong.append(f"its opset is {written}, not {opset}")
    pixel = types.UINT8 if kind == UINT8 else types.FLOAT
    if _ends(proto.graph.input) != [("images", pixel, ["batch", *image])]:
        wrong.append(f"its input is {_ends(proto.graph.input)}")
    if _ends(proto.graph.output) != [("logits", types.FLOAT, ["batch", classes])]:
        wrong.append(f"its output is {_ends(proto.graph.output)}")
    if any(weight.data_location == types.EXTERNAL for weight in proto.graph.initializer):
        wrong.append("its weights lie in another file")
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        wrong.append(str(error).strip().splitlines()[0])
    if wrong:
        raise KdcliError(f"the exporter made a wrong model: {'; '.join(wrong)}.", CHECKPOINT)
