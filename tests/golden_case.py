"""One case of a file of recorded numbers: its inputs, what was expected of them, the comparison.

Names in such a file: inputs (`logits_student`, `pooled_teacher`, `module.<name>`, `buffer.<name>`),
results (`loss`, `term.<name>`, `out.<name>`, `grad.<input>`, `buffer_after.<name>`), and variants,
which put their own name first and store only what differs. Metadata hold the hyper-parameters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from kdcli.contracts import Batch, Features
from kdcli.losses import Context, Loss, build
from tests.conformance_row import Row

RESULTS = ("loss", "term.", "out.", "grad.", "buffer_after.")
RELATIVE = {"float64": 1e-9, "float32": 1e-5}


class Case:
    """The main case of a file, or one of its variants; an input asked for becomes a leaf."""

    def __init__(
        self,
        name: str,
        variant: str,
        tensors: dict[str, Tensor],
        meta: dict[str, Any],
        every: Mapping[str, Tensor],
    ):
        self.name, self.variant, self.meta = name, variant, meta
        self.tensors = tensors  # the variant's over the main case's
        self.every = every  # of the whole file, results included
        self.leaves: dict[str, Tensor] = {}

    def has(self, name: str) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.tensors[name]
        if not tensor.is_floating_point():
            return tensor
        return self.leaves.setdefault(name, tensor.clone().requires_grad_())

    def borrow(self, variant: str) -> None:
        """Take the inputs of another variant, for one that has none of its own."""
        head = f"{variant}."
        for name, value in self.every.items():
            own = name.removeprefix(head)
            if own != name and not own.startswith(RESULTS):
                self.tensors[own] = value

    def number(self, key: str) -> float:
        return float(self.meta[key])

    def whole(self, key: str) -> int:
        return int(self.meta[key])

    def load(self, module: nn.Module, names: Mapping[str, str]) -> None:
        """Fill parameters and buffers of `module`, its name -> the file's, and watch the former."""
        state = dict(module.named_parameters()) | dict(module.named_buffers())
        for own, stored in names.items():
            with torch.no_grad():
                state[own].copy_(self.tensors[stored].view_as(state[own]))
            if isinstance(state[own], nn.Parameter):
                self.leaves[stored] = state[own]

    def batch(self) -> Batch:
        """Labels and rows of the file, where it has them; no images."""
        rows = next(len(value) for name, value in self.tensors.items() if "student" in name)
        zeros = torch.zeros(rows, dtype=torch.int64)
        labels, index = self.tensors.get("target", zeros), self.tensors.get("index", zeros)
        return Batch(zeros, labels, index, zeros, torch.tensor(0))

    def features(self, side: str) -> Features:
        """What the file says of one network: logits, penultimate features, or both."""
        logits, pooled = f"logits_{side}", f"pooled_{side}"
        first = pooled if self.has(pooled) else logits
        return Features(self[logits if self.has(logits) else first], self[first])

    def loss(self, name: str, labels: Tensor | None = None, **arguments: object) -> Loss:
        """The loss `name` built for these features, in their precision."""
        student, teacher = self.features("student"), self.features("teacher")
        classes = student.logits.shape[1]
        labels = torch.arange(classes) if labels is None else labels
        ctx = Context(student, teacher, None, classes, labels, 240)
        return build(name, ctx, **arguments).to(student.pooled.dtype)


Results = dict[str, Any]  # by the file's names; "after": a function of more, called after backward
Adapter = Callable[[Case], Results]


def read(path: Path) -> Iterator[tuple[Case, dict[str, Tensor]]]:
    """The cases of one file, each with its expected results."""
    with safe_open(path, "pt") as handle:
        meta = dict(handle.metadata() or {})
        there = torch.get_default_device()
        every = {name: handle.get_tensor(name).to(there) for name in handle.keys()}  # noqa: SIM118
    variants = json.loads(meta.pop("variants", "{}"))
    main = {name: value for name, value in every.items() if name.split(".")[0] not in variants}
    for variant in ("", *variants):
        own = main
        if variant:
            head = f"{variant}."
            own = {name.removeprefix(head): v for name, v in every.items() if name.startswith(head)}
        expected = {name: value for name, value in own.items() if name.startswith(RESULTS)}
        overrides = variants[variant] if variant else {}
        inputs = {name: value for name, value in own.items() if name not in expected}
        case = Case(path.stem, variant, {**main, **inputs}, {**meta, **overrides}, every)
        if expected:  # a copy may have variants alone
            yield case, expected


def compare(case: Case, expected: Mapping[str, Tensor], adapter: Adapter) -> Iterator[Row]:
    """Run one case and compare every number that the file has for it."""
    try:
        results = adapter(case)
    except Exception as error:  # one case that cannot run must not hide the others
        title = ": ".join(part for part in (case.name, case.variant) if part)
        yield Row(title, float("inf"), 0.0, False, f"{type(error).__name__}: {error}")
        return
    wanted = [name for name in expected if name.startswith("grad.")]
    results |= gradients(case, results["loss"], wanted)
    results |= results.pop("after", dict)()
    for name, value in expected.items():
        yield row(case, name, value, results.get(name))


def gradients(case: Case, loss: Tensor, wanted: list[str]) -> Results:
    """Gradient of `loss` by the file's name of the input; zeros where it reaches nothing."""
    names = [name for name in wanted if name.removeprefix("grad.") in case.leaves]
    leaves = [case.leaves[name.removeprefix("grad.")] for name in names]
    if not leaves:
        return {}
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if grad is None else grad
        for name, leaf, grad in zip(names, leaves, found, strict=True)
    }


def row(case: Case, name: str, expected: Tensor, found: Tensor | None) -> Row:
    """The largest difference against the largest expected value."""
    title = ": ".join(part for part in (case.name, case.variant, name) if part)
    if found is None:
        return Row(title, float("inf"), 0.0, False, "not computed")
    if found.numel() != expected.numel():
        return Row(title, float("inf"), 0.0, False, f"shape {list(found.shape)}")
    found, expected = found.detach().double().reshape(-1), expected.double().reshape(-1)
    error = (found - expected).abs().max().item()
    dtype = str(case.meta.get("dtype", "float64"))
    tolerance = RELATIVE[dtype] * expected.abs().max().item() + 1e-14
    return Row(title, error, tolerance, error <= tolerance, dtype)
