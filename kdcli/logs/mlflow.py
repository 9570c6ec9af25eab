"""MLflow: a run of the experiment `kdcli`, or of the one that MLFLOW_EXPERIMENT_NAME names.

MLFLOW_TRACKING_URI says where the server is, as for every other user of MLflow.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from kdcli.logs import FAILED, FINISHED, INTERRUPTED, PROJECT, hyperparameters
from kdcli.runs import Run

STATUS = {FINISHED: "FINISHED", INTERRUPTED: "KILLED", FAILED: "FAILED"}


class Log:
    """Metrics by epoch; the configuration as parameters and as a file."""

    def begin(self, run: Run, known: str) -> str:
        import mlflow

        self.mlflow = mlflow
        if not {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"} & os.environ.keys():
            mlflow.set_experiment(PROJECT)
        if known:  # MLflow refuses parameters that changed, and a resume may change the machine
            return mlflow.start_run(run_id=known).info.run_id
        begun = mlflow.start_run(run_name=run.name)
        config = run.config
        mlflow.log_params(hyperparameters(config))
        mlflow.log_dict(config, "config.json")
        return begun.info.run_id

    def epoch(self, number: int, when: float, values: Mapping[str, float]) -> None:
        self.mlflow.log_metrics(dict(values), step=number)

    def end(self, state: str, result: Mapping[str, Any]) -> None:
        if result:
            numbers = ("top1", "top5", "loss", "train_seconds")
            self.mlflow.log_metrics({f"result/{key}": result[key] for key in numbers})
        self.mlflow.end_run(status=STATUS[state])
