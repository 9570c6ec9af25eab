"""One run of several, in a process of its own: its order comes in, what happens goes out.

`python -m kdcli.cli.work.worker NAME` reads one line of JSON, the order, and trains as `kdcli`
would in this process. Records go to standard output, a line each: RS, JSON, LF as in RFC 7464; all
other words are for people. When standard input closes the parent is gone: the run then saves and
stops, so that nobody is left behind.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from kdcli.cli.work.jobs import GRACE
from kdcli.errors import STOPPED, KdcliError


def main() -> None:
    """Read the order, train, leave with the exit code of `kdcli`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us all; the parent decides
    signal.signal(signal.SIGTERM, _leave_early)
    from kdcli.cli.main import run

    run(_train)


def _train() -> None:
    order = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_outlive_nobody, daemon=True).start()
    from kdcli.cli.show import screen
    from kdcli.cli.work import training
    from kdcli.cli.work.told import Told

    screen.quieten(order.pop("quiet"))
    cell = training.Cell(**order.pop("cell"))
    places = {key: Path(order.pop(key)) for key in ("data_dir", "run_dir")}
    asked = training.Order(**places, **order, display=Told)
    training.limit_threads(asked.threads)
    training.train(cell, asked)


def _leave_early(number: int, frame: FrameType | None) -> None:
    """SIGTERM before training, which has a handler of its own."""
    raise KdcliError("stopped before the first step.", STOPPED)


def _outlive_nobody() -> None:
    os.read(0, 1)  # returns when the parent closes the pipe or dies; nothing is ever sent
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(STOPPED)


if __name__ == "__main__":
    main()
