"""Members of a tar.gz or of its unpacked folder, read into memory.

Nothing is ever unpacked to disk, so an archive has nowhere to escape to, and a read-only data
folder will do. Names, kinds, sizes and counts are checked all the same.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from kdcli.errors import DATA, KdcliError

MEMBERS = 400_000  # no dataset in the table has more files
TOTAL = 8 << 30  # bytes a tar may hold once decompressed: STL-10 with its unlabelled part has 3.2e9


def find(
    root: Path, folder: str, archive: str, subfolder: str, inside: Iterable[str]
) -> Path | None:
    """The unpacked folder, else the archive, in `root` or `root/subfolder`; None for neither.

    `root` may be the unpacked folder itself, when it holds every name in `inside`. A folder that
    lacks some of them, with no archive beside it, is a KdcliError (data).
    """
    inside = list(inside)
    if root.name == folder and all((root / name).exists() for name in inside):
        return root
    for place in (root, root / subfolder):
        if all((place / folder / name).exists() for name in inside):
            return place / folder
        if (place / archive).is_file():
            return place / archive
    for place in (root / folder, root / subfolder / folder):
        if place.is_dir():
            raise lacking(place, [name for name in inside if not (place / name).exists()])
    return None


def lacking(path: Path, names: Iterable[str]) -> KdcliError:
    """The error for a folder or an archive without some of its files."""
    return KdcliError(
        f"{path} lacks {', '.join(names)}: delete it and fetch the dataset again.", DATA
    )


def broken(path: Path, reason: object) -> KdcliError:
    """The error for a file that cannot be what its name says."""
    return KdcliError(f"{path} is broken ({reason}): delete it and fetch it again.", DATA)


def fault(path: Path, magic: bytes, error: Exception) -> str:
    """Why a file could not be opened as the archive whose first bytes are `magic`."""
    with path.open("rb") as handle:
        head = handle.read(512)
    if head.startswith(magic):
        return f"truncated or damaged: {error}"
    if not head:
        return "it is empty"
    page = head.lstrip().startswith(b"<")
    return "it is a web page, not an archive" if page else "it is no such archive"


def md5(content: bytes) -> str:
    """The checksum that dataset authors publish; it names a file, it secures nothing."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class Members(NamedTuple):
    """Files read into memory."""

    content: dict[str, bytes]
    other: tuple[str, ...]  # those whose MD5 is not the official one, with what it is

    def notes(self, name: str, place: Path) -> list[str]:
        """What to tell the reader of a copy that is not the official one."""
        if not self.other:
            return []
        return [
            f"{name}: {place} differs from the official files in {', '.join(self.other)}; "
            "its structure is right, so it is used."
        ]


def fewer(name: str, split: str, count: int, official: int) -> list[str]:
    """A note when a split has another number of images than the official one."""
    return [] if count == official else [f"{name}: {count:,} of {official:,} {split} images."]


def safe_member(path: Path, name: str) -> str:
    """`name` if it stays inside the folder it would be unpacked to, else KdcliError (data)."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name or "\0" in name or ":" in name:
        raise KdcliError(
            f"{path} holds a member {name[:80]!r} that leaves its folder: refused.", DATA
        )
    return str(parts)


def read_members(path: Path, folder: str, sums: Mapping[str, str], limit: int) -> Members:
    """The files named in `sums`, from `folder` itself or a tar.gz that holds it.

    `sums` are the official MD5s, `limit` the most bytes a file may have. Raises KdcliError (data)
    for a missing or oversized file, a damaged archive, or a member that could leave its folder.
    """
    if path.is_dir():
        return _named(_from_folder(path, sums, limit), sums)
    try:
        with tarfile.open(path, "r:gz") as tar:
            found = _named(_from_tar(path, tar, folder, sums, limit), sums)
            # the archive's own checksum stands at its end; official files need no second proof,
            # and behind those of STL-10 lie 2.7 GB of unlabelled images
            while found.other and tar.fileobj.read(1 << 20):
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise broken(path, fault(path, b"\x1f\x8b", error)) from error
    return found


def _named(found: dict[str, bytes], sums: Mapping[str, str]) -> Members:
    actual = {name: md5(content) for name, content in found.items()}
    other = (name for name in sums if actual[name] != sums[name])
    return Members(found, tuple(f"{name} (md5 {actual[name][:8]}...)" for name in other))


def _from_folder(path: Path, names: Iterable[str], limit: int) -> dict[str, bytes]:
    found = {}
    for name in names:
        file = path / name
        if not file.is_file():
            raise lacking(path, [name])
        if file.stat().st_size > limit:
            raise broken(file, f"{file.stat().st_size:,} bytes, at most {limit:,} are possible")
        found[name] = file.read_bytes()
    return found


def _from_tar(
    path: Path, tar: tarfile.TarFile, folder: str, names: Iterable[str], limit: int
) -> dict[str, bytes]:
    missing = dict.fromkeys(names)
    found: dict[str, bytes] = {}
    total = 0
    for count, member in enumerate(tar):
        name = safe_member(path, member.name)
        if not (member.isreg() or member.isdir()):
            raise KdcliError(f"{path} holds {name!r}, neither file nor folder: refused.", DATA)
        total += member.size
        if count >= MEMBERS or total > TOTAL:
            raise KdcliError(
                f"{path} holds more than {MEMBERS:,} files or {TOTAL:,} bytes: refused.", DATA
            )
        top, _, short = name.partition("/")
        if not member.isreg() or top != folder or short not in missing:
            continue
        if member.size > limit:
            raise broken(path, f"{name} has {member.size:,} bytes, at most {limit:,} are possible")
        found[short] = tar.extractfile(member).read()
        del missing[short]
        if not missing:
            return found
    raise lacking(path, missing)
