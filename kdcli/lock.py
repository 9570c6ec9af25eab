"""One process at a time: a file that says who holds a folder, void once it is gone."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdcli.errors import KdcliError
from kdcli.files import environment_errors


@contextmanager
def held(path: Path, what: str, otherwise: str) -> Iterator[None]:
    """Hold the lock `path`; KdcliError "`what` in use ...; wait for it, or `otherwise`." if held.

    A lock of a process that is gone, or of before the machine was last started, is taken over.
    """
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "boot": _boot()}
    with environment_errors(f"the lock {path}"):
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            holder = _holder(path)
            if _alive(holder):
                raise KdcliError(
                    f"{what} in use by process {holder['pid']} on {holder['host']}; "
                    f"wait for it, or {otherwise}."
                ) from None
            handle = os.open(path, os.O_TRUNC | os.O_WRONLY)
        with os.fdopen(handle, "w") as stream:
            json.dump(mine, stream)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _holder(path: Path) -> dict[str, Any]:
    """What a lock says; empty if it was cut off while it was written, or is gone."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def _boot() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def _alive(holder: Mapping[str, Any]) -> bool:
    """Whether the process that wrote a lock may still run; on another host it may."""
    if not holder:
        return False
    if holder["host"] != socket.gethostname():
        return True
    if holder["boot"] != _boot():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
