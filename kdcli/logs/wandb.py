"""Weights & Biases: a run of the project `kdcli`, or of the one that WANDB_PROJECT names.

WANDB_MODE=offline keeps it in the run folder until `wandb sync`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from kdcli.errors import STOPPED
from kdcli.logs import FAILED, INTERRUPTED, PROJECT
from kdcli.runs import Run


class Log:
    """Metrics by epoch, the configuration, and the result in the summary."""

    def begin(self, run: Run, known: str) -> str:
        import wandb

        self.log = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=known or None,
            resume="allow" if known else None,
            dir=str(run.path),
            config=run.config,
            settings=wandb.Settings(console="off"),  # the terminal is ours
        )
        return self.log.id

    def epoch(self, number: int, when: float, values: Mapping[str, float]) -> None:
        self.log.log(dict(values), step=number)

    def end(self, state: str, result: Mapping[str, Any]) -> None:
        self.log.summary.update({f"result/{key}": value for key, value in result.items()})
        if state == INTERRUPTED:
            self.log.mark_preempting()
        self.log.finish(exit_code={INTERRUPTED: STOPPED, FAILED: 1}.get(state, 0))
