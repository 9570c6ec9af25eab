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


def differences(
    name: str, place: Path, members: Mapping[str, bytes], sums: Mapping[str, str]
) -> list[str]:
    """A note that names the members whose MD5 is not the official one; none when all are."""
    actual = {member: md5(members[member]) for member in sums}
    other = [
        f"{member} (md5 {actual[member][:8]}...)"
        for member in sums
        if actual[member] != sums[member]
    ]
    if not other:
        return []
    return [
        f"{name}: {place} differs from the official files in {', '.join(other)}; "
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


def read_members(path: Path, folder: str, wanted: Mapping[str, int]) -> dict[str, bytes]:
    """`{name: bytes}` of the wanted files in `folder`, from the folder itself or a tar.gz of it.

    `wanted` maps each name to the most bytes it may have. Raises KdcliError (data) for a missing
    or oversized member, a damaged archive, or one with a member that could leave its folder.
    """
    found = _from_folder(path, wanted) if path.is_dir() else _from_tar(path, folder, wanted)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise lacking(path, missing)
    return found


def _from_folder(path: Path, wanted: Mapping[str, int]) -> dict[str, bytes]:
    found = {}
    for name, limit in wanted.items():
        file = path / name
        if not file.is_file():
            continue
        if file.stat().st_size > limit:
            raise broken(file, f"{file.stat().st_size:,} bytes, at most {limit:,} are possible")
        found[name] = file.read_bytes()
    return found


def _from_tar(path: Path, folder: str, wanted: Mapping[str, int]) -> dict[str, bytes]:
    try:
        with tarfile.open(path, "r:gz") as tar:
            return _collect(path, tar, folder, wanted)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise broken(path, fault(path, b"\x1f\x8b", error)) from error


def _collect(
    path: Path, tar: tarfile.TarFile, folder: str, wanted: Mapping[str, int]
) -> dict[str, bytes]:
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
        if not member.isreg() or top != folder or short not in wanted:
            continue
        if member.size > wanted[short]:
            raise broken(
                path, f"{name} has {member.size:,} bytes, at most {wanted[short]:,} are possible"
            )
        found[short] = tar.extractfile(member).read()
        if len(found[short]) != member.size:
            raise broken(path, f"truncated inside {name}")
        if len(found) == len(wanted):
            break
    return found
