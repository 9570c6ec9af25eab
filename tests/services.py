"""Stand-ins for MLflow and W&B: their functions and rules, as kdcli/logs uses them."""

import importlib.machinery
import sys
from types import ModuleType, SimpleNamespace

import pytest


def install(monkeypatch: pytest.MonkeyPatch, name: str, **parts: object) -> None:
    """A stand-in for the package `name`."""
    module = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(module).update(parts)
    monkeypatch.setitem(sys.modules, name, module)


class Book:
    """What a service was told, over all runs: metrics by id, as (step, values)."""

    def __init__(self):
        self.metrics, self.params, self.ends, self.calls = {}, {}, [], []


def mlflow(monkeypatch: pytest.MonkeyPatch) -> Book:
    """MLflow's fluent functions, with its rules: one active run, parameters never change."""
    book, active = Book(), []

    def set_experiment(experiment_name=None, experiment_id=None):
        book.calls.append(("set_experiment", experiment_name, experiment_id))

    def start_run(run_id=None, experiment_id=None, run_name=None):
        assert not active, "a run is active already"
        active.append(run_id or f"id{len(book.metrics)}")
        book.metrics.setdefault(active[0], [])
        return SimpleNamespace(info=SimpleNamespace(run_id=active[0]))

    def log_params(params):
        before = book.params.setdefault(active[0], {})
        assert all(before.get(key, value) == value for key, value in params.items())
        assert all(not set(key) & set(">:\\") for key in params), "refused in names"
        before.update(params)

    def end_run(status="FINISHED"):
        assert status in ("FINISHED", "FAILED", "KILLED")
        book.ends.append(status)
        active.clear()

    install(
        monkeypatch, "mlflow", set_experiment=set_experiment, start_run=start_run,
        log_params=log_params, end_run=end_run,
        active_run=lambda: active[0] if active else None,
        log_dict=lambda dictionary, artifact_file: book.calls.append((artifact_file, dictionary)),
        log_metrics=lambda metrics, step=None: book.metrics[active[0]].append((step, metrics)),
    )  # fmt: skip
    return book


def wandb(monkeypatch: pytest.MonkeyPatch) -> Book:
    """W&B's init and Run, with its rule that steps only grow."""
    book = Book()

    class Log:
        def __init__(self, name):
            self.id, self.summary = name, {}
            book.metrics.setdefault(name, [])

        def log(self, data, step=None):
            assert not book.metrics[self.id] or step > book.metrics[self.id][-1][0]
            book.metrics[self.id].append((step, data))

        def mark_preempting(self):
            book.calls.append("preempting")

        def finish(self, exit_code=None):
            book.ends.append((exit_code, self.summary))

    def init(project=None, name=None, id=None, resume=None, dir=None, config=None, settings=None):
        assert (id is None) == (resume is None)
        book.params[name] = config
        print("wandb: Tracking run")
        return Log(id or f"id{len(book.metrics)}")

    install(monkeypatch, "wandb", init=init, Settings=lambda console: console)
    return book
