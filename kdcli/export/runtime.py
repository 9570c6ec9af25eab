"""An exported ONNX file scored on a dataset, by what its metadata says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from kdcli.data import Split
from kdcli.engine.evaluate import Counts, Scores, check_labels
from kdcli.errors import DATA, KdcliError
from kdcli.export.parity import answers_of
from kdcli.export.provenance import check_same_classes
from kdcli.export.session import class_names, open_session, pixels


def evaluate_onnx(
    path: Path, split: Split, batch: int = 500, classes: Sequence[str] | None = None
) -> Scores:
    """Scores of an exported file on raw images, normalised inside it; `classes`: their names.

    It runs on the CPU with as many threads as torch uses. KdcliError (exported file) for one that
    cannot be read or is not ours, (data) when image size or class names are not those it was made
    for.
    """
    began = time.perf_counter()
    session = open_session(path, torch.get_num_threads())
    wants = pixels(session, path)
    wanted, given = [3, wants.size, wants.size], list(split.images.shape[1:])
    if given != wanted:
        shapes = ["x".join(map(str, shape)) for shape in (wanted, given)]
        raise KdcliError(f"{path} takes images of {shapes[0]}, not {shapes[1]}.", DATA)
    outputs = session.get_outputs()[0].shape[1]
    if classes is not None:
        check_same_classes(path, class_names(session), classes, outputs)
    check_labels(split.labels, outputs, str(path))
    counts, answer = Counts(outputs, "cpu"), answers_of(session, wants.kind)
    for start in range(0, len(split.labels), batch):
        part = slice(start, start + batch)
        counts.add(answer(split.images[part]), split.labels[part])
    return counts.scores(began)
