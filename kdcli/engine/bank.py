"""A teacher's answers to views of its training images, kept on disk.

Crops and flips are discrete: padding 4 gives 162 views an image. What a frozen teacher says of one
of them never changes, so it is computed once, and every later epoch, seed, method and student finds
it. A bank is a folder:

    bank.json                what it is of: teacher, dataset, views, widths
    logits-<digest>.npy      records (key int32, value [K]); key = image * views + view
    pooled-<digest>.npy      the same of the penultimate features

A shard is named after the BLAKE2b of its bytes and never changes. So several processes add to one
bank without a lock, a killed one leaves whole shards, and a damaged shard is noticed: it is deleted
and its views are computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdcli.errors import CHECKPOINT, KdcliError
from kdcli.files import digest, settle, sync, write_json

FORMAT = 1
HALF_ERROR = 1e-3  # of a row's largest number: what float16 may change
NAME_DIGITS = 12
Note = Callable[[str], None]


def name_of(about: Mapping[str, Any]) -> str:
    """The folder name of a bank: readable, and different for everything that changes an answer."""
    content = hashlib.blake2b(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return f"{about['teacher']}-{about['dataset']}-{content[:NAME_DIGITS]}".replace(":", "-")


class Column:
    """One tensor of the answers: a row of `width` numbers for each view that was asked so far."""

    def __init__(self, folder: Path, name: str, width: int, views: int, note: Note):
        self.folder, self.name, self.width, self.note = folder, name, width, note
        self.where = np.full(views, -1, dtype=np.int32)  # row of each key over all shards
        self.shards: list[np.ndarray] = []
        self.starts: list[int] = []
        self.rows = 0
        self.loaded: set[str] = set()
        self.pending = 0  # shards at the end of the list that are not on disk yet
        self.refresh()

    def refresh(self) -> None:
        """Take in the shards that others have written since."""
        for path in sorted(self.folder.glob(f"{self.name}-*.npy")):
            if path.name not in self.loaded and (shard := self._open(path)) is not None:
                self.loaded.add(path.name)
                self._insert(shard)

    def _open(self, path: Path) -> np.ndarray | None:
        try:
            if digest(path) == path.stem.removeprefix(f"{self.name}-"):
                return np.load(path, mmap_mode="r")
        except FileNotFoundError:  # deleted meanwhile
            return None
        self.note(f"{path} is damaged; it is deleted and what it held computed again.")
        path.unlink(missing_ok=True)
        return None

    def _insert(self, shard: np.ndarray, end: bool = False) -> None:
        self.shards.append(shard)
        self.starts.append(self.rows)
        self.where[shard["key"]] = np.arange(self.rows, self.rows + len(shard), dtype=np.int32)
        self.rows += len(shard)

    def known(self, keys: np.ndarray) -> np.ndarray:
        """Which of these keys have a row; [n] int64 -> [n] bool."""
        return self.where[keys] >= 0

    def read(self, keys: np.ndarray) -> np.ndarray:
        """The rows of known keys; [n] int64 -> [n, width] float32."""
        rows = self.where[keys]
        order = np.argsort(rows, kind="stable")
        ends = np.searchsorted(rows[order], [*self.starts, self.rows][1:])
        found, begin = np.empty((len(keys), self.width), np.float32), 0
        for shard, start, end in zip(self.shards, self.starts, ends, strict=True):
            part = order[begin:end]
            found[part] = shard["value"][rows[part] - start]
            begin = end
        return found

    def add(self, keys: np.ndarray, values: np.ndarray, half: bool = False) -> None:
        """Remember rows, [n] int64 and [n, width] float32; on disk with the next `flush`.

        With `half` they are kept as float16, unless that changes one by more than HALF_ERROR.
        """
        numbers = values.astype(np.float16 if half and fits_half(values) else np.float32)
        shard = np.empty(len(keys), dtype=[("key", "<i4"), ("value", numbers.dtype, self.width)])
        shard["key"], shard["value"] = keys, numbers
        self._insert(shard)
        self.pending += 1

    def flush(self) -> None:
        """Write what was added since, a shard for each precision; OSError if the disk will not."""
        if not self.pending:
            return
        fresh = self.shards[-self.pending :]
        for kind in dict.fromkeys(shard.dtype for shard in fresh):
            shard = np.concatenate([part for part in fresh if part.dtype == kind])
            aside = self.folder / f"{self.name}-{os.getpid()}.part"
            with aside.open("wb") as stream:
                np.save(stream, shard)
            settle(aside)
            final = self.folder / f"{self.name}-{digest(aside)}.npy"
            aside.rename(final)
            sync(self.folder)
            self.loaded.add(final.name)
        self.pending = 0


def fits_half(values: np.ndarray) -> bool:
    """Whether float16 changes no row by more than HALF_ERROR of its largest number."""
    with np.errstate(over="ignore"):
        change = np.abs(values - values.astype(np.float16).astype(np.float32)).max(axis=1)
    return bool((change <= HALF_ERROR * np.abs(values).max(axis=1)).all())


class Bank:
    """All columns of one teacher's answers to one dataset; shared by whoever opens the folder."""

    def __init__(self, root: Path, about: Mapping[str, Any], note: Note = lambda text: None):
        self.about, self.note = dict(about), note
        self.folder = root / name_of(about)
        self.views = about["images"] * about["views"]
        self.columns: dict[str, Column] = {}
        self.kept = True  # false once the disk has refused

    def column(self, name: str) -> Column:
        """The column `name`, read from disk when it is first asked for."""
        if name not in self.columns:
            width = self.about["widths"][name]
            self.columns[name] = Column(self.folder, name, width, self.views, self.note)
        return self.columns[name]

    def refresh(self) -> None:
        """Take in what others have added."""
        for column in self.columns.values():
            column.refresh()

    def flush(self, rows: int = 0) -> None:
        """Write what is in memory alone, where it is at least `rows` rows; a full disk is told."""
        for column in self.columns.values():
            waiting = sum(map(len, column.shards[len(column.shards) - column.pending :]))
            if self.kept and waiting >= max(rows, 1):
                try:
                    path = self.folder / "bank.json"
                    if not path.exists():
                        write_json(path, {"format": FORMAT, **self.about})
                    column.flush()
                except OSError as error:
                    self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.kept = False
        self.note(
            f"The bank {self.folder} cannot be written ({error.strerror}); what the teacher says "
            "is computed again in every run."
        )


def all_banks(root: Path) -> list[dict[str, Any]]:
    """What there is in `root`: name, bytes, rows of each column, and what each bank is of."""
    found = []
    for path in sorted(root.glob("*/bank.json")):
        shards = list(path.parent.glob("*-*.npy"))
        rows: dict[str, int] = {}
        for shard in shards:
            column = shard.name.partition("-")[0]
            rows[column] = rows.get(column, 0) + len(np.load(shard, mmap_mode="r"))
        size = sum(shard.stat().st_size for shard in shards)
        found.append(
            {"name": path.parent.name, "bytes": size, "rows": rows, **_about(path)},
        )
    return found


def _about(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise KdcliError(
            f"{path} is damaged ({error}); kdcli bank rm {path.parent.name} deletes the bank.",
            CHECKPOINT,
        ) from error


def remove(root: Path, name: str) -> None:
    """Delete a bank's folder."""
    shutil.rmtree(root / name)
