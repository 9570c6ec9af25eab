"""TensorBoard: event files in the run folder, for `tensorboard --logdir runs`.

A resume writes them anew from `log.jsonl`, so that no epoch stands there twice, also when the
first part was trained without this log. The result goes to the HParams page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kdcli.logs import hyperparameters
from kdcli.runs import Run


class Log:
    """Scalars by epoch; configuration and result as text."""

    def begin(self, run: Run, known: str) -> str:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.path / "tensorboard"
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        # purge_step: a TensorBoard that is open forgets what the old files said
        self.writer = SummaryWriter(str(folder), purge_step=0)
        self.config = run.config
        self._text("config", self.config)
        return ""

    def epoch(self, number: int, when: float, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, number, walltime=when)
        self.writer.flush()

    def end(self, state: str, result: Mapping[str, Any]) -> None:
        if result:
            self._text("result", result)
            reached = {f"result/{key}": result[key] for key in ("top1", "top5", "loss")}
            self.writer.add_hparams(hyperparameters(self.config), reached, run_name=".")
        self.writer.close()

    def _text(self, name: str, value: Mapping[str, Any]) -> None:
        """JSON, indented by four: a block of code in TensorBoard's Markdown."""
        lines = json.dumps(value, indent=2, ensure_ascii=False).splitlines()
        self.writer.add_text(name, "\n".join(f"    {line}" for line in lines))
