"""What the shell may complete on a command line; nothing here imports torch."""

from __future__ import annotations

from pathlib import Path


def recipe(incomplete: str) -> list[str]:
    """Recipe names that begin so; after a `+`, of the part behind it."""
    from kdcli import recipes

    head, plus, tail = incomplete.rpartition("+")
    return [f"{head}{plus}{name}" for name in recipes.names() if name.startswith(tail)]


def model(incomplete: str) -> list[str]:
    """Model names that begin so."""
    from kdcli import models

    return [name for name in models.TABLE if name.lower().startswith(incomplete.lower())]


def dataset(incomplete: str) -> list[str]:
    """Dataset names that begin so."""
    from kdcli import data

    return [name for name in data.TABLE if name.startswith(incomplete)]


def run(incomplete: str) -> list[str]:
    """Names of finished and unfinished runs that begin so."""
    import os

    from kdcli import runs

    folder = Path(os.environ.get("KDCLI_RUN_DIR", "runs"))
    return [run.name for run in runs.all_runs(folder) if run.name.startswith(incomplete)]


def log(incomplete: str) -> list[str]:
    """Names of services for the log; after a comma, the last of them."""
    from kdcli import logs

    head, comma, tail = incomplete.rpartition(",")
    return [f"{head}{comma}{name}" for name in logs.names() if name.startswith(tail)]
