"""An fp32 graph in half precision or in eight-bit integers, by the tools onnxruntime ships."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kdcli.export.session import fed

if TYPE_CHECKING:
    from onnx import ModelProto

FP32, FP16, INT8 = PRECISIONS = ("fp32", "fp16", "int8")
IMAGES = 512  # training images that set the ranges of the activations
BATCH = 64
NORMALISING = ("Cast", "Div", "Sub")  # what the graph does to pixels before its first layer


@dataclass(frozen=True)
class Calibration:
    """What int8 was calibrated with, as the file records it."""

    images: int
    seed: int = 0
    activations: str = "uint8"
    weights: str = "int8, per channel"
    range: str = "MinMax"
    reduce_range: bool = False  # weights in 7 bits


def balanced(labels: Tensor, count: int, seed: int = 0) -> Tensor:
    """Positions of `count` images, drawn by `seed`: of every class as many, or one more.

    [N] int64 -> [min(count, N)]; a class that has too few leaves its share to the others.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[labels[order].argsort(stable=True)]
    ranked = labels[order]
    rank = torch.arange(len(labels)) - torch.searchsorted(ranked, ranked)
    return order[rank.argsort(stable=True)][:count]


def needs_reduced_range() -> bool:
    """Whether this CPU's 8-bit products saturate in 16-bit sums: x86 without VNNI.

    There 255 x 127 x 2 exceeds a 16-bit integer, and only weights of 7 bits give right sums.
    """
    has = torch.cpu.get_capabilities()
    vnni = has.get("avx512_vnni") or has.get("avx_vnni")
    return str(has.get("architecture")).startswith("x86") and not vnni


def halved(proto: ModelProto) -> ModelProto:
    """A copy with weights and layers in fp16; pixels are normalised and logits given in fp32."""
    import onnx
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    first = itertools.takewhile(lambda node: node.op_type in NORMALISING, copied.graph.node)
    made = convert_float_to_float16(
        copied, keep_io_types=True, node_block_list=[node.name for node in first]
    )
    del made.graph.value_info[:]  # some name the type before the conversion
    sorted_ = ONNXModel(made)
    sorted_.topological_sort()  # casts were appended where they may not stand
    return sorted_.model


class _Reader:
    """Batches as onnxruntime's calibration takes them, one a call and None at the end."""

    def __init__(self, images: Tensor, kind: str):
        self.batches = iter(images.split(BATCH))
        self.kind = kind

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"images": fed(batch.numpy(), self.kind)}


def quantised(proto: ModelProto, images: Tensor, kind: str, reduce_range: bool) -> ModelProto:
    """A copy with quantisers around every layer, their ranges measured on `images`.

    `images`: raw [N, 3, H, W] uint8 of the training set, given to a graph of input `kind`.
    Activations become uint8, weights int8 with a scale for each output channel.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        given, ready, written = (Path(folder) / f"{name}.onnx" for name in ("in", "mid", "out"))
        onnx.save(proto, given)  # given as an object, the weights would lie in another file
        quant_pre_process(given, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            written,
            _Reader(images, kind),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=reduce_range,
            # In 256 steps the best two logits are often equal, and chance then picks the class.
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        )
        made = onnx.load(written)
    used = {node.domain for node in made.graph.node}
    for unused in [entry for entry in made.opset_import if entry.domain not in used]:
        made.opset_import.remove(unused)  # the optimiser names every domain it knows
    del made.metadata_props[:]
    return made
