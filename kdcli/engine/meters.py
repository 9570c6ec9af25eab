"""Running sums of an epoch, kept on the device and read by the host only now and then."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from kdcli.errors import DIVERGED, KdcliError


class Meters:
    """Sums of a phase's terms, of hits and of images, and the first step that was not finite."""

    def __init__(self, device: torch.device):
        self.wide = torch.float32 if device.type == "mps" else torch.float64
        self.device = device
        self.sums: dict[str, Tensor] = {}
        self.bad: dict[str, Tensor] = {}  # the terms at the first step that was not finite
        self.hits, self.seen, self.steps, self.bad_step = (
            torch.zeros((), dtype=torch.int64, device=device) for _ in range(4)
        )

    def clear(self) -> None:
        """Begin an epoch; every sum stays where it is, for a captured step adds to it there."""
        for value in self.state().values():
            value.zero_()

    def add(
        self, logits: Tensor, labels: Tensor, terms: Mapping[str, Tensor], finite: Tensor
    ) -> None:
        """Take in one step: logits [B, K], labels [B], scalar terms, a 0-dim bool."""
        self.steps += 1
        self.seen += len(labels)
        self.hits += (logits.detach().argmax(1) == labels).sum()
        first = ~finite & (self.bad_step == 0)
        self.bad_step += first * self.steps
        for name, term in terms.items():
            value = term.detach().to(self.wide)
            for table in (self.sums, self.bad):
                if name not in table:
                    table[name] = torch.zeros_like(value)
            self.sums[name] += value * len(labels)
            self.bad[name].copy_(torch.where(first, value, self.bad[name]))

    def read(self, epoch: int, lr: float) -> dict[str, float]:
        """Means since `clear`, and `top1` in percent; KdcliError (diverged) after a bad step."""
        if bad := int(self.bad_step):
            values = ", ".join(f"{name} = {float(value):.4g}" for name, value in self.bad.items())
            worst = [name for name, value in self.bad.items() if not math.isfinite(float(value))]
            cause = f"term {' and '.join(worst)}" if worst else "a gradient"
            raise KdcliError(
                f"training diverged: {cause} is not finite at epoch {epoch + 1}, step {bad} "
                f"({values}; learning rate {lr:g}). The last good checkpoint is kept; try a "
                "smaller --lr or weight.",
                DIVERGED,
            )
        seen = max(int(self.seen), 1)
        means = {name: float(value) / seen for name, value in self.sums.items()}
        return {"loss": sum(means.values()), **means, "top1": 100.0 * int(self.hits) / seen}

    def state(self) -> dict[str, Tensor]:
        """Everything, by name."""
        plain = {
            "hits": self.hits,
            "seen": self.seen,
            "steps": self.steps,
            "bad_step": self.bad_step,
        }
        sums = {f"sum.{name}": value for name, value in self.sums.items()}
        return plain | sums | {f"bad.{name}": value for name, value in self.bad.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        for name, value in state.items():
            kind, _, term = name.partition(".")
            if term:
                (self.sums if kind == "sum" else self.bad)[term] = value.to(self.device)
            else:
                setattr(self, name, value.to(self.device))
