"""One file from the network: retried, checked, and under its name only when it is whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import socket
import sys
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path

from kdcli.errors import DATA, ENVIRONMENT, KdcliError
from kdcli.files import environment_errors, replacing

ATTEMPTS = 4
PAUSE = 1.0  # seconds before the second attempt; doubled before each further one
TIMEOUT = 30.0  # seconds without a byte before a connection counts as lost
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO}


def obtain(
    name: str, root: Path, folder: str, archive: str, url: str, checksum: str, *, allowed: bool
) -> Path:
    """The archive of a dataset that is not under `root`: downloaded to there if that is allowed."""
    if not allowed:
        raise KdcliError(
            f"{name} was not found: looked for {folder}/ and {archive} in {root} and "
            f"{root / name}; put one there, point --data-dir (KDCLI_DATA_DIR) at it, or allow "
            "the download.",
            DATA,
        )
    return download(url, root / archive, checksum)


def download(url: str, path: Path, checksum: str) -> Path:
    """Fetch `url` to `path` (its folder is made); returns `path`.

    Tried again after 1, 2 and 4 seconds, unless the same wrong content comes twice. Raises
    KdcliError: data when the network or the file's MD5 fails, environment when the disk does.
    """
    with environment_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
    reason: object = ""
    seen = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            with replacing(path) as aside:
                _fetch(url, aside)
                actual = _md5_of(aside)
                if actual != checksum:
                    raise ValueError(actual)
            return path
        except ValueError as error:
            reason = f"what comes has md5 {error} instead of {checksum}"
            if seen == str(error):
                break
            seen = str(error)
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            if 400 <= error.code < 500 and error.code not in (408, 429):
                break
        except (OSError, http.client.HTTPException, RecursionError) as error:
            if getattr(error, "errno", None) in DISK:
                raise KdcliError(f"cannot write {path}: {error.strerror}.", ENVIRONMENT) from error
            reason = getattr(error, "reason", None) or error
    raise KdcliError(
        f"cannot download {url} ({reason}): fetch it on another machine and put it at {path}, "
        "or point --data-dir (KDCLI_DATA_DIR) to where it is.",
        DATA,
    )


def _fetch(url: str, path: Path) -> None:
    try:
        from torchvision.datasets.utils import download_url
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise KdcliError(
            f"torchvision cannot be imported ({error}): install the release made for this torch, "
            f"or put {url} into the data folder by hand.",
            ENVIRONMENT,
        ) from error
    # its notices go to stdout, which belongs to the answer of the command
    with contextlib.redirect_stdout(sys.stderr), _timeout():
        download_url(url, str(path.parent), filename=path.name)


@contextlib.contextmanager
def _timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _md5_of(path: Path) -> str:
    with path.open("rb") as handle:
        state = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False))
    return state.hexdigest()
