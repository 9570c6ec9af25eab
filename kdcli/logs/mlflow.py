"""MLflow: a run of the experiment `kdcli`, or of MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID.

MLFLOW_TRACKING_URI says where the server is, as for every other user of MLflow.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from kdcli.logs import FAILED, FINISHED, INTERRUPTED, PROJECT, hyperparameters
from kdcli.runs import Run

PATIENCE = 60.0  # seconds to wait for another run that opens the same database
STATUS = {FINISHED: "FINISHED", INTERRUPTED: "KILLED", FAILED: "FAILED"}


class Log:
    """Metrics by epoch; the configuration as parameters and as a file."""

    def begin(self, run: Run, known: str) -> str:
        import mlflow
        from filelock import FileLock

        self.mlflow = mlflow
        if mlflow.active_run():  # of a run before this one in the process, whose log failed
            mlflow.end_run("FAILED")
        number = os.environ.get("MLFLOW_EXPERIMENT_ID")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        # one at a time: two that make the tables of a new database at once spoil it for good
        with FileLock(run.path.parent / ".mlflow.lock", timeout=PATIENCE):
            mlflow.set_experiment(None if number else name, experiment_id=number)
        if known:  # MLflow refuses parameters that changed, and a resume may change the machine
            return mlflow.start_run(run_id=known).info.run_id
        begun = mlflow.start_run(run_name=run.name)
        mlflow.log_params(hyperparameters(run.config))
        mlflow.log_dict(run.config, "config.json")
        return begun.info.run_id

    def epoch(self, number: int, when: float, values: Mapping[str, float]) -> None:
        self.mlflow.log_metrics(dict(values), step=number)

    def end(self, state: str, result: Mapping[str, Any]) -> None:
        if result:
            numbers = ("top1", "top5", "loss", "train_seconds")
            self.mlflow.log_metrics({f"result/{key}": result[key] for key in numbers})
        self.mlflow.end_run(status=STATUS[state])
