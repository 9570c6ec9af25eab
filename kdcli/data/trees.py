"""A folder of files, on the disk or inside a zip that is never unpacked."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Protocol

from kdcli.data.archives import MEMBERS, broken, fault, safe_member
from kdcli.errors import DATA, KdcliError

LIMIT = 64 << 20  # bytes of one file in a zip


class Tree(Protocol):
    """Files by their path below the top, with forward slashes, sorted."""

    path: Path
    files: list[str]

    def read(self, file: str) -> bytes:
        """The content of one of `files`."""


class Folder:
    """A Tree on the disk, links followed; names that begin with a dot are passed over."""

    def __init__(self, path: Path):
        self.path = path
        self.files = []
        for place, folders, names in os.walk(path, followlinks=True):
            folders[:] = [name for name in folders if not name.startswith(".")]
            below = Path(place).relative_to(path).as_posix()
            start = "" if below == "." else f"{below}/"  # a Path a file costs ten times as much
            self.files += [f"{start}{name}" for name in names if not name.startswith(".")]
        self.files.sort()

    def read(self, file: str) -> bytes:
        """The content of one of `files`; OSError if it cannot be read."""
        return (self.path / file).read_bytes()


class Zip:
    """The folder `top` of a zip as a Tree. Reading is safe from several threads."""

    def __init__(self, path: Path, top: str):
        self.path, self.top = path, top
        try:
            self.archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, EOFError, ValueError) as error:
            raise broken(path, fault(path, b"PK", error)) from error
        members = self.archive.infolist()
        if len(members) > MEMBERS:
            raise KdcliError(f"{path} holds more than {MEMBERS:,} files: refused.", DATA)
        names = [safe_member(path, member.filename) for member in members if not member.is_dir()]
        self.files = sorted(
            name.removeprefix(top + "/") for name in names if name.startswith(top + "/")
        )

    def read(self, file: str) -> bytes:
        """The content of one of `files`; KdcliError (data) if it is damaged or over 64 MiB."""
        name = f"{self.top}/{file}"
        try:
            if self.archive.getinfo(name).file_size > LIMIT:
                raise broken(self.path, f"{name} would have more than {LIMIT:,} bytes")
            return self.archive.read(name)  # checks the CRC; stops at the size just compared
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, KeyError) as error:
            raise broken(self.path, f"{name}: {error}") from error
