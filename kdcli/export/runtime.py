"""An exported ONNX file in onnxruntime: opened, asked, and scored by what its metadata says."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdcli.data import Split
from kdcli.engine.evaluate import Counts, Scores, check_labels
from kdcli.errors import CHECKPOINT, DATA, ENVIRONMENT, KdcliError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

UINT8, FLOAT = "uint8", "float"
TYPES = {UINT8: "tensor(uint8)", FLOAT: "tensor(float)"}


def open_session(model: Path | bytes) -> InferenceSession:
    """The model on the CPU, with as many threads as torch uses; KdcliError for an unusable one."""
    try:
        import onnxruntime
    except ImportError as error:
        raise KdcliError(
            f"onnxruntime cannot be imported ({error}); pip install onnxruntime.", ENVIRONMENT
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong comes as an exception
    options.intra_op_num_threads = torch.get_num_threads()
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no base of their own
        what = "the exported model" if isinstance(model, bytes) else str(model)
        reason = str(error).splitlines()[0]
        raise KdcliError(f"onnxruntime cannot read {what}: {reason}", CHECKPOINT) from error


def ask(session: InferenceSession, images: Tensor, kind: str) -> Tensor:
    """Logits [B, K] for raw images [B, 3, H, W] uint8, given to a file of input `kind`."""
    values = images.cpu().contiguous().numpy()
    if kind == FLOAT:
        values = values.astype("float32") / 255
    (logits,) = session.run(["logits"], {"images": values})
    return torch.from_numpy(logits)


def metadata(path: Path) -> dict[str, str]:
    """What an exported file says of itself, as text: `dataset`, `model`, `classes` (JSON), ..."""
    if not path.is_file():
        raise KdcliError(f"there is no file {path}; kdcli export onnx writes one.", CHECKPOINT)
    told = open_session(path).get_modelmeta().custom_metadata_map
    return {key.removeprefix("kdcli."): text for key, text in told.items()}


def _input_of(session: InferenceSession, path: Path) -> dict:
    """What the file says of its input; KdcliError for one that kdcli did not write."""
    told = session.get_modelmeta().custom_metadata_map.get("kdcli.input")
    if told is None:
        raise KdcliError(
            f"{path} has no kdcli.input in its metadata, so the pixels it wants are not known; "
            "only a file of kdcli export onnx can be scored.",
            CHECKPOINT,
        )
    return json.loads(told)


def evaluate_onnx(
    path: Path, split: Split, batch: int = 500, classes: Sequence[str] | None = None
) -> Scores:
    """Scores of an exported file on raw images, normalised inside it; `classes`: their names.

    KdcliError (checkpoint) for a file that cannot be read or is not ours, (data) when image size or
    class names are not those it was made for.
    """
    began = time.perf_counter()
    if not path.is_file():
        raise KdcliError(f"there is no file {path}; kdcli export onnx writes one.", CHECKPOINT)
    session = open_session(path)
    told = _input_of(session, path)
    wanted, given = [3, told["height"], told["width"]], list(split.images.shape[1:])
    if given != wanted:
        shapes = ["x".join(map(str, shape)) for shape in (wanted, given)]
        raise KdcliError(f"{path} takes images of {shapes[0]}, not {shapes[1]}.", DATA)
    names = json.loads(session.get_modelmeta().custom_metadata_map.get("kdcli.classes", "null"))
    if classes is not None and names is not None and list(classes) != names:
        raise KdcliError(
            f"{path} was made for other classes ({', '.join(names[:3])}, ...) than these "
            f"({', '.join(list(classes)[:3])}, ...).",
            DATA,
        )
    outputs = session.get_outputs()[0].shape[1]
    check_labels(split.labels, outputs, str(path))
    counts = Counts(outputs, "cpu")
    for start in range(0, len(split.labels), batch):
        part = slice(start, start + batch)
        counts.add(ask(session, split.images[part], told["type"]), split.labels[part])
    return counts.scores(began)
