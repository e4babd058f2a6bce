"""The walk of a dump on disk, so that the second question about it does not walk again.

A folder for each dump in the user's cache folder (`HEAPDUMP_CACHE` names another one): a file for each column of the
block table, opened memory-mapped, and `manifest.json` with everything else. Its name is made of what would change the
answer: size, time and first bytes of the dump, and the code that walked. Nothing of the dump's content is kept but
addresses, sizes and the findings' few bytes.

Decision: checksums are sums of 64-bit words, at the speed of memory: they are there against damage, not against an
enemy, who could as well change heapdump itself. What does not verify is ignored and written anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.table import BlockKind, BlockTable
from heapdump.blocks.walk import Check, HeapCount, KindCount, Walk

_VERSION = 1
_HEAD_BYTES = 1 << 16
_MOST_BYTES = 8 << 30
_MOST_DUMPS = 128
_SMALL_BYTES = 1 << 20
_COLUMNS: dict[str, type[np.generic]] = {
    "entry": np.uint64, "units": np.uint32, "spare": np.uint32, "lead": np.uint8, "heap": np.uint16, "tags": np.uint16,
}  # fmt: skip
_STEP, _FACTOR = 1 << 17, 0x100000001B3


class Index:
    """Where the walk of one dump is kept. `remarks`: what was done with it, in words."""

    def __init__(self, dump: Path, root: Path | None = None, remarks: list[str] | None = None) -> None:
        """`root`: the folder of all indexes; None: the user's.

        Raises:
            OSError: the dump cannot be read.
        """
        self._root = root or _cache_folder()
        self._folder = self._root / _key(dump)
        self.remarks: list[str] = [] if remarks is None else remarks

    def read(self, walk_again: Callable[[], BlockTable]) -> Walk | None:
        """The walk as it was written; None where there is none that verifies.

        The table is opened when it is first needed; where a column proves damaged then, `walk_again` makes it.
        """
        manifest = self._manifest()
        if manifest is None:
            return None
        try:
            walk = Walk(
                lambda: self._table_or(manifest, walk_again),
                {int(heap): _count(count) for heap, count in manifest["counts"].items()},
                tuple(Finding(**finding) for finding in manifest["findings"]),
                tuple(manifest["gaps"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            self.remarks.append(f"the index in {self._folder} is not understood ({error}); walking again")
            return None
        with contextlib.suppress(OSError):  # the time of its last use decides what is deleted first
            os.utime(self._folder / "manifest.json")
        self.remarks.append(f"the blocks come from the index in {self._folder}")
        return walk

    def write(self, walk: Walk) -> None:
        """Keeps a walk; where that fails, a remark says why and nothing else happens."""
        need = sum(getattr(walk.table, name).nbytes for name in _COLUMNS)
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            room = min(_MOST_BYTES, shutil.disk_usage(self._root).free // 2)
            if need > room:
                self.remarks.append(f"no index was written: it needs {need:,} bytes, {room:,} are allowed")
                return
            _make_room(self._root, need)
            self._write(walk)
        except OSError as error:
            self.remarks.append(f"no index could be written to {self._root}: {error.strerror or error}")

    def _write(self, walk: Walk) -> None:
        """Into a folder of its own first, so that nobody ever sees half an index."""
        with tempfile.TemporaryDirectory(dir=self._root, prefix="new-", ignore_cleanup_errors=True) as fresh:
            inner = Path(fresh) / "index"
            inner.mkdir()
            sums = {}
            for name in _COLUMNS:
                column = getattr(walk.table, name)
                np.save(inner / f"{name}.npy", column, allow_pickle=False)
                sums[name] = _checksum(column)
            body = {
                "rows": len(walk.table),
                "checksums": sums,
                "counts": {str(heap): asdict(count) for heap, count in walk.counts.items()},
                "findings": [asdict(finding) for finding in walk.findings],
                "gaps": list(walk.gaps),
            }
            text = json.dumps(body)
            (inner / "manifest.json").write_text(f"{_digest(text)}\n{text}", encoding="utf-8")
            shutil.rmtree(self._folder, ignore_errors=True)
            with contextlib.suppress(FileExistsError):  # another process was quicker: the same answer
                inner.rename(self._folder)
        self.remarks.append(f"the blocks are kept in the index in {self._folder}")

    def _manifest(self) -> dict[str, Any] | None:
        try:
            digest, _, text = (self._folder / "manifest.json").read_text(encoding="utf-8").partition("\n")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            self.remarks.append(f"the index in {self._folder} cannot be read ({error}); walking again")
            return None
        if digest != _digest(text):
            self.remarks.append(f"the index in {self._folder} is damaged; walking again")
            return None
        manifest: dict[str, Any] = json.loads(text)
        return manifest

    def _table_or(self, manifest: dict[str, Any], walk_again: Callable[[], BlockTable]) -> BlockTable:
        try:
            return BlockTable(**{name: self._column(name, kind, manifest) for name, kind in _COLUMNS.items()})
        except (OSError, ValueError, EOFError) as error:
            self.remarks.append(f"the index in {self._folder} is damaged ({error}); walked again")
            shutil.rmtree(self._folder, ignore_errors=True)
            return walk_again()

    def _column(self, name: str, kind: type[np.generic], manifest: dict[str, Any]) -> NDArray[Any]:
        """A column, memory-mapped.

        Raises:
            OSError, ValueError, EOFError: it is not what was written.
        """
        column = np.asarray(np.load(self._folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
        if column.shape != (manifest["rows"],) or column.dtype != kind or _checksum(column) != manifest["checksums"][name]:
            raise ValueError(f"column {name} is not as it was written")
        return column


def _count(record: dict[str, Any]) -> HeapCount:
    kinds = tuple(KindCount(**(kind | {"kind": BlockKind(kind["kind"])})) for kind in record["kinds"])
    checks = tuple(Check(**check) for check in record["checks"])
    return HeapCount(**(record | {"kinds": kinds, "checks": checks}))


def _cache_folder() -> Path:
    if named := os.environ.get("HEAPDUMP_CACHE"):
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("heapdump", appauthor=False)


def _key(dump: Path) -> str:
    """A name for what decides the answer: the dump's size, time and first bytes, and the code that reads it."""
    state = dump.stat()
    with dump.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    whole = hashlib.sha256(f"{_VERSION} {state.st_size} {state.st_mtime_ns} {_code()}\n".encode() + head)
    return whole.hexdigest()[:32]


@cache
def _code() -> str:
    """Sizes and times of heapdump's own files: an index of another version, or of code being worked on, is not used."""
    files = sorted(path for path in Path(__file__).parent.rglob("*") if path.suffix in (".py", ".json"))
    states = [(path.name, state.st_size, state.st_mtime_ns) for path in files for state in [path.stat()]]
    return _digest(repr(states))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _checksum(column: NDArray[Any]) -> str:
    """Sum of its 64-bit words, those of each stretch weighted by its place; and its last bytes."""
    raw = np.ascontiguousarray(column).view(np.uint8).reshape(-1)
    words = raw[: len(raw) // 8 * 8].view(np.uint64)
    total = len(raw)
    for first in range(0, len(words), _STEP):
        total = (total * _FACTOR + int(words[first : first + _STEP].sum(dtype=np.uint64))) % (1 << 64)
    return f"{total:016x}{raw[len(raw) // 8 * 8 :].tobytes().hex()}"


def _make_room(root: Path, need: int) -> None:
    """Deletes the indexes that were not used for longest where a limit would be passed, a quarter of them at once.

    Sizes are looked at when a large index is to be written.
    """
    number = sum(1 for _ in root.iterdir())
    if need < _SMALL_BYTES and number < _MOST_DUMPS:
        return
    total, kept = need, _MOST_DUMPS if number < _MOST_DUMPS else _MOST_DUMPS * 3 // 4
    for count, (_, size, folder) in enumerate(sorted(_entries(root), reverse=True), 1):
        total += size
        if total > _MOST_BYTES or count > kept:
            shutil.rmtree(folder, ignore_errors=True)


def _entries(root: Path) -> Iterator[tuple[float, int, Path]]:
    """(time of last use, bytes, folder) of every index."""
    for folder in root.iterdir():
        with contextlib.suppress(OSError):  # another process deletes it just now
            used = (folder / "manifest.json").stat().st_mtime
            yield used, sum(file.stat().st_size for file in folder.iterdir()), folder
