"""The index of one dump: columns and texts with checksums in a folder, and the deletion of indexes that are used least.

Each dump has a folder in the user's cache folder (or in `HEAPDUMP_CACHE`). The folder's name is a digest of everything
that can change an answer: the stamp of the dump's content (`dump/stamp.py`) and heapdump's own code. `MANIFEST` is
written last; a folder without it is no index. This module knows only files; `walk.py` and `answers.py` know their
meaning.

Decision: docs/decisions/0008-index-checks-against-damage-only.md.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump import system
from heapdump.cache.code import code_digest
from heapdump.cache.packing import Packing, pack, unpack
from heapdump.cache.texts import digest, read_text

MANIFEST = "manifest.json"
"""The file whose time of modification is the time of the last use of its folder."""

FRESH_PREFIX = "new-"
"""The beginning of the name of a folder that is being written."""

_VERSION = 6
_COLUMN_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_]+)?")
_OWN = "blocks"
_NAME_LENGTH = 32
INDEX_NAME = re.compile(f"[0-9a-f]{{{_NAME_LENGTH}}}")
"""Matches the name of the folder of one dump."""

_DAY_SECONDS = 86_400
_DISK_SHARE = 8
"""All indexes together take at most this part of the disk."""

_MOST_DUMPS = 128
_SMALL_BYTES = 1 << 20
_MOST_COPIED_BYTES = 1 << 16
"""Mapping a file takes as long as reading so many bytes."""

_STEP, _FACTOR = 1 << 17, 0x100000001B3


class Store:
    """The index folder of one dump.

    Attributes:
        root: the cache folder, which holds the index folders of all dumps.
        remarks: gets a sentence about each use; `-v` prints them.
        counts: name of a field → number of items that its integers are indices of, for checks of stored answers.
    """

    def __init__(
        self,
        stamp: str,
        root: Path | None = None,
        remarks: list[str] | None = None,
        require_whole: Callable[[], None] = lambda: None,
    ) -> None:
        """Writes nothing yet.

        Args:
            stamp: name of the dump's content (`dump.stamp`).
            root: the cache folder; None for the user's.
            remarks: gets the remarks.
            require_whole: raises where the dump became shorter while it was read; called before anything is written.
        """
        self._require_whole = require_whole
        self.root = root or cache_folder()
        self.folder = self.root / digest(f"{_VERSION} {stamp} {code_digest(self.root.parent)}")[:_NAME_LENGTH]
        self.remarks: list[str] = [] if remarks is None else remarks
        self.counts: dict[str, int] = {}

    @property
    def has_manifest(self) -> bool:
        """True where the folder holds a complete index that may be used."""
        return not self.refusal and (self.folder / MANIFEST).is_file()

    @property
    def refusal(self) -> str:
        """The reason why the folder is neither read nor written, in words; "" for none."""
        found = [folder for folder in (self.root, self.folder) if system.others_can_write(folder)]
        return f"others can write to {found[0]}" if found else ""

    def touch(self) -> None:
        """Sets the time of the last use to now, where possible; deletes unfinished folders of killed processes."""
        _delete_left(self.root)
        with contextlib.suppress(OSError):
            os.utime(self.folder / MANIFEST)

    def allowed_bytes(self) -> int:
        """The most bytes that may be written: the smaller of the limit for all indexes and half of the free space.

        Raises:
            OSError: the folder of all dumps is not there.
        """
        return min(_most_bytes(self.root), shutil.disk_usage(self.root).free // 2)

    def make_root(self) -> None:
        """Makes the cache folder, for this user only.

        Raises:
            OSError: it cannot be made.
        """
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextlib.contextmanager
    def fresh(self, need_bytes: int) -> Iterator[Path]:
        """A new empty folder beside the indexes, which is deleted when the context ends.

        Old indexes are deleted first where `need_bytes` need the room. Files are written there and then moved, so that
        no other process sees an unfinished index.

        Raises:
            OSError: it cannot be made.
        """
        self._require_whole()
        _delete_left(self.root)
        _make_room(self.root, need_bytes)
        own = f"{FRESH_PREFIX}{os.getpid()}-"
        with tempfile.TemporaryDirectory(dir=self.root, prefix=own, ignore_cleanup_errors=True) as fresh:
            yield Path(fresh)

    def replace_with(self, folder: Path) -> None:
        """Moves a finished folder to the place of this index.

        Raises:
            OSError: it cannot be moved, and no other process has written the same index in the meantime.
        """
        self.delete()
        try:
            folder.rename(self.folder)
        except OSError:
            if not self.has_manifest:
                raise

    def delete(self) -> None:
        """Deletes the index, where possible."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def text(self, name: str) -> str:
        """The text of a file that `write_text` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            OSError, ValueError: it cannot be read, or does not verify.
        """
        return read_text(self.folder / name)

    def column(self, name: str, kind: type[np.generic], rows: int, seal: str) -> NDArray[Any]:
        """A column of `rows` values of dtype `kind`, (rows,). `seal`: what `write_column` returned.

        Memory-mapped where the column lies in its file as it is.

        Raises:
            OSError, ValueError: there is no such file, it does not verify, or `name` or `kind` is none of a column.
        """
        if not _COLUMN_NAME.fullmatch(name) or np.dtype(kind).kind not in "biuf" or rows < 0:
            raise ValueError(f"{name!r} is no column")
        path, dtype = self.folder / name, np.dtype(kind)
        checksum, _, record = seal.partition(" ")
        packing = Packing.of(list(map(int, record.split())))
        size = path.stat().st_size
        if size != packing.file_bytes(rows, dtype.itemsize):
            raise ValueError(f"column {name} has another length")
        data = _file_bytes(path, size)
        if _checksum(data) != checksum:
            raise ValueError(f"column {name} is not as it was written")
        return unpack(data, packing, rows, dtype)


def _file_bytes(path: Path, size: int) -> NDArray[np.uint8]:
    """The bytes of a file of `size` bytes; memory-mapped, but for small ones, which are read sooner."""
    with path.open("rb") as file:
        if size <= _MOST_COPIED_BYTES:
            return np.frombuffer(file.read(), np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def write_column(path: Path, column: NDArray[Any]) -> str:
    """Writes a column, packed where that is shorter. Returns its seal: checksum of the file in hex, and the packing."""
    packing, data = pack(column)
    data.tofile(path)
    return " ".join([_checksum(data), *map(str, packing.record())])


def cache_folder() -> Path:
    """The folder of all indexes: in `HEAPDUMP_CACHE`, else in the cache folder of the user's system."""
    if named := os.environ.get("HEAPDUMP_CACHE"):
        return Path(named) / _OWN
    from platformdirs import user_cache_path

    return user_cache_path("heapdump", appauthor=False) / _OWN


def array_folder() -> Path:
    """The folder of large arrays that have no room in memory; beside the indexes."""
    return cache_folder().parent / "arrays"


def symbol_folder() -> Path:
    """The folder for files of symbol servers where the symbol path names no folder; it lies beside the indexes."""
    return cache_folder().parent / "symbols"


def _checksum(column: NDArray[Any]) -> str:
    """Checksum of a column, in hex.

    Sum over steps s of (sum of the u64 words of step s) * _FACTOR ** (last step - s), modulo 2**64; then the last 0 to
    7 bytes. A step has _STEP words.
    """
    raw = np.ascontiguousarray(column).view(np.uint8).reshape(-1)
    words = raw[: len(raw) // 8 * 8].view(np.uint64)
    total = len(raw)
    for first in range(0, len(words), _STEP):
        total = (total * _FACTOR + int(words[first : first + _STEP].sum(dtype=np.uint64))) % (1 << 64)
    return f"{total:016x}{raw[len(raw) // 8 * 8 :].tobytes().hex()}"


def _delete_left(root: Path) -> None:
    """Deletes unfinished folders of processes that no longer run, and all that are older than a day."""
    for folder in root.glob(f"{FRESH_PREFIX}*"):
        process = folder.name.removeprefix(FRESH_PREFIX).split("-")[0]
        with contextlib.suppress(OSError):
            is_old = time.time() - folder.stat().st_mtime > _DAY_SECONDS
            if is_old or (process.isdecimal() and not system.is_running(int(process))):
                shutil.rmtree(folder, ignore_errors=True)


def _make_room(root: Path, need_bytes: int) -> None:
    """Deletes the indexes with the oldest last use, a quarter of all at once, where a limit would be exceeded.

    Sizes are summed only before a large index is written. Only folders with the name of an index are deleted.
    """
    indexes = [folder for folder in root.iterdir() if INDEX_NAME.fullmatch(folder.name)]
    if need_bytes < _SMALL_BYTES and len(indexes) < _MOST_DUMPS:
        return
    most_bytes = _most_bytes(root)
    total, most = need_bytes, _MOST_DUMPS if len(indexes) < _MOST_DUMPS else _MOST_DUMPS * 3 // 4
    for count, (_, size, folder) in enumerate(sorted(map(_last_use, indexes), reverse=True), 1):
        total += size
        if total > most_bytes or count > most:
            shutil.rmtree(folder, ignore_errors=True)


def _most_bytes(root: Path) -> int:
    """The most bytes of all indexes together.

    Raises:
        OSError: the folder of all dumps is not there.
    """
    return shutil.disk_usage(root).total // _DISK_SHARE


def _last_use(folder: Path) -> tuple[float, int, Path]:
    """(last use in seconds since 1970, bytes, folder); (0, 0, folder) where another process is deleting it."""
    try:
        return (folder / MANIFEST).stat().st_mtime, sum(file.stat().st_size for file in folder.iterdir()), folder
    except OSError:
        return 0.0, 0, folder
