"""Weights in files: our own safetensors, which say what they are, and checkpoints of others.

No pickle is ever written. A foreign one is read by torch's restricted reader, which executes
nothing; RepDistiller's files also hold an `argparse.Namespace`, the one class let through.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdcli import models
from kdcli.errors import CHECKPOINT, KdcliError
from kdcli.files import environment_errors, replacing
from kdcli.models.network import Network

NESTS = ("model", "state_dict", "net")  # where the public toolkits keep their state dict
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
SHOWN = 5  # keys named in an error


def save(network: Network, path: Path, info: Mapping[str, Any]) -> None:
    """Write the weights and `info` as one safetensors file, atomically; NaN weights are refused."""
    from safetensors.torch import save_file

    state = {name: value.detach().cpu() for name, value in network.body.state_dict().items()}
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise KdcliError(f"{path} is not written: {name} holds NaN or infinity.", CHECKPOINT)
    told = json.dumps({"architecture": network.architecture, **info}, ensure_ascii=False)
    plain = {name: value.contiguous() for name, value in state.items()}
    with environment_errors(str(path)), replacing(path) as aside:
        save_file(plain, aside, metadata={"format": "pt", "kdcli": told})


def info(path: Path) -> dict[str, Any]:
    """What one of our files says of itself; empty for a file of others. Reads no weights."""
    path = _file(path)
    if path.suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as stream:
            metadata = stream.metadata() or {}
        return json.loads(metadata.get("kdcli", "{}"))
    except (SafetensorError, ValueError) as error:
        raise KdcliError(
            f"{path} is damaged or no safetensors file ({error}).", CHECKPOINT
        ) from error


def read(
    path: Path, model: str | None = None, classes: int | None = None
) -> tuple[Network, dict[str, Any]]:
    """The network of a file, in evaluation mode, and what the file says of itself.

    `model` names the architecture of a foreign checkpoint; `classes` is how many it must have.
    KdcliError (checkpoint) names the file and the first keys that are missing, left over or of
    another shape. A foreign architecture (`package.module:factory`) is imported only if `model`
    names it.
    """
    path = _file(path)
    told, state = info(path), _state(path)
    if model is None and not told:
        raise KdcliError(
            f"{path} does not say its architecture; name it (--model or --teacher-model NAME; "
            "kdcli models lists them).",
            CHECKPOINT,
        )
    if told and (model is None or told["architecture"].get("name") == model):
        trusted = () if model is None else (model,)
        network = models.from_architecture(told["architecture"], allowed=trusted)
    else:
        network = models.build(model, classes=_classes(state, model, classes))
    _fill(network, state, path)
    have = network.head.out_features
    if classes is not None and have != classes:
        raise KdcliError(f"{path} knows {have} classes, but {classes} are needed.", CHECKPOINT)
    return network.eval(), told or {"architecture": network.architecture}


def _file(path: Path) -> Path:
    inside = path / "model.safetensors"
    if path.is_dir() and inside.is_file():
        return inside
    if not path.is_file():
        raise KdcliError(f"there is no weights file {path}.", CHECKPOINT)
    return path


def _state(path: Path) -> dict[str, Tensor]:
    """The state dict of a file, prefixes of wrappers taken off."""
    loaded = _safetensors(path) if path.suffix == ".safetensors" else _pickle(path)
    for nest in NESTS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(nest), Mapping):
            loaded = loaded[nest]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise KdcliError(f"{path} holds no state dict.", CHECKPOINT)
    state = dict(loaded)
    if not all(isinstance(key, str) and isinstance(v, Tensor) for key, v in state.items()):
        raise KdcliError(
            f"{path} holds no state dict under {', '.join(NESTS)} or at its top.", CHECKPOINT
        )
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise KdcliError(
            f"{path} is damaged or no safetensors file ({error}).", CHECKPOINT
        ) from error


def _pickle(path: Path) -> object:
    """A torch file through the restricted reader. There is no second, unrestricted try."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle can fail in any way
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise KdcliError(
            f"{path} was not loaded: it is damaged, or would run code ({reason[:160]}). Ask its "
            "author for a safetensors file or a plain state dict.",
            CHECKPOINT,
        ) from error


def _classes(state: Mapping[str, Tensor], model: str, classes: int | None) -> int:
    """Outputs of the head in `state`; `classes`, or 100, where the head is not found."""
    probe = None if ":" in model else models.build(model).head_key
    weight = state.get(f"{probe}.weight")
    return len(weight) if weight is not None and weight.dim() == 2 else classes or 100


def _fill(network: Network, state: dict[str, Tensor], path: Path) -> None:
    """Load `state` whole, or say which keys do not fit."""
    expected = network.body.state_dict()
    counters = {key: value for key, value in expected.items() if key.endswith("batches_tracked")}
    state = {**counters, **state}  # old files lack these, which evaluation does not read
    problems = []
    for title, keys in (
        ("missing", [key for key in expected if key not in state]),
        ("unexpected", [key for key in state if key not in expected]),
        (
            "of another shape",
            [k for k in expected if k in state and expected[k].shape != state[k].shape],
        ),
    ):
        if keys:
            more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            problems.append(f"{title}: {', '.join(keys[:SHOWN])}{more}")
    if problems:
        name = network.architecture["name"]
        raise KdcliError(f"{path} does not fit {name}; {'; '.join(problems)}.", CHECKPOINT)
    network.body.load_state_dict(state)
