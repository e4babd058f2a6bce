"""The walk of a dump on disk, so that the second question about it does not walk again.

A folder for each dump in the user's cache folder (`HEAPDUMP_CACHE` names another one): a file for each column of the
block table, opened memory-mapped, and `manifest.json` with everything else. Its name is made of what would change the
answer: the stamp of the dump's content (`dump/stamp.py`) and the code that walked. Nothing of the dump's content is kept but
addresses, sizes, the findings' few bytes and what the walk inferred (keys and rules of the heap).

Decision: checksums are sums of 64-bit words, at the speed of memory: they are there against damage, not against an
enemy, who could as well change heapdump itself. What does not verify is ignored and written anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.kinds import BlockKind
from heapdump.blocks.table import COLUMNS, BlockTable
from heapdump.blocks.walk import Check, CheckKind, HeapCount, HeapFacts, KindCount, Walk

_VERSION = 3
_OWN, _MANIFEST, _FRESH = "blocks", "manifest.json", "new-"
_NAME_LENGTH = 32
_IS_INDEX = re.compile(f"[0-9a-f]{{{_NAME_LENGTH}}}")
_DAY = 86_400
_MOST_BYTES = 8 << 30
_MOST_DUMPS = 128
_SMALL_BYTES = 1 << 20
_STEP, _FACTOR = 1 << 17, 0x100000001B3


class Index:
    """Where the walk of one dump is kept. `remarks`: what was done with it, in words."""

    def __init__(self, stamp: str, root: Path | None = None, remarks: list[str] | None = None) -> None:
        """`stamp`: the name of the dump's content; `root`: the folder of all indexes, None: the user's."""
        self._root = root or _cache_folder()
        self._folder = self._root / _digest(f"{_VERSION} {stamp} {_code()}")[:_NAME_LENGTH]
        self.remarks: list[str] = [] if remarks is None else remarks

    def read(self, walk_again: Callable[[], BlockTable]) -> Walk | None:
        """The walk as it was written; None where there is none that verifies.

        The table is opened when it is first needed; where a column proves damaged then, `walk_again` makes it.
        """
        try:
            manifest = self._manifest()
            if manifest is None:
                return None
            rows, sums = int(manifest["rows"]), {name: str(manifest["checksums"][name]) for name in COLUMNS}
            walk = Walk(
                lambda: self._table_or(rows, sums, walk_again),
                {int(heap): _count(count) for heap, count in manifest["counts"].items()},
                tuple(Finding(**finding) for finding in manifest["findings"]),
                tuple(map(str, manifest["gaps"])),
                {int(heap): _facts(facts) for heap, facts in manifest["facts"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.remarks.append(f"the index in {self._folder} is not understood ({error!r}); walking again")
            return None
        with contextlib.suppress(OSError):  # the time of its last use decides what is deleted first
            os.utime(self._folder / _MANIFEST)
        self.remarks.append(f"the blocks come from the index in {self._folder}")
        return walk

    def write(self, walk: Walk) -> None:
        """Keeps a walk; where that fails, a remark says why and nothing else happens."""
        need = sum(column.nbytes for column in walk.table.columns())
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

    def has(self, name: str) -> bool:
        """True where something is kept under a name that verifies."""
        try:
            self._arrays(name)
        except (OSError, ValueError, TypeError, AttributeError):
            return False
        return True

    def kept(self, name: str) -> dict[str, NDArray[Any]] | None:
        """The arrays that were kept beside the walk under a name, memory-mapped; None where there are none that verify."""
        try:
            found = self._arrays(name)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            self.remarks.append(f"the {name} in {self._folder} is damaged ({error}); made again")
            return None
        self.remarks.append(f"the {name} comes from the index in {self._folder}")
        return found

    def _arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """Raises OSError, ValueError, TypeError, AttributeError: there are none, or not as they were written."""
        columns = json.loads(_verified(self._folder / f"{name}.json"))
        return {
            key: self._column(f"{name}.{key}", np.dtype(kind).type, int(rows), sum_)
            for key, (kind, rows, sum_) in columns.items()
        }

    def keep(self, name: str, columns: dict[str, NDArray[Any]]) -> None:
        """Keeps arrays beside a walk that is kept; where that fails, a remark says why and nothing else happens."""
        need = sum(column.nbytes for column in columns.values())
        try:
            if not (self._folder / _MANIFEST).is_file():
                return
            if need > min(_MOST_BYTES, shutil.disk_usage(self._root).free // 2):
                self.remarks.append(f"the {name} was not kept: it needs {need:,} bytes")
                return
            _make_room(self._root, need)
            with tempfile.TemporaryDirectory(dir=self._root, prefix=_FRESH, ignore_cleanup_errors=True) as fresh:
                for key, column in columns.items():
                    np.ascontiguousarray(column).tofile(Path(fresh) / f"{name}.{key}")
                text = json.dumps(
                    {key: (column.dtype.str, len(column), _checksum(column)) for key, column in columns.items()}
                )
                (Path(fresh) / f"{name}.json").write_text(f"{_digest(text)}\n{text}", encoding="utf-8")
                for part in sorted(
                    Path(fresh).iterdir(), key=lambda path: path.suffix == ".json"
                ):  # the list of columns last
                    part.replace(self._folder / part.name)
        except OSError as error:
            self.remarks.append(f"the {name} could not be kept in {self._folder}: {error.strerror or error}")

    def _write(self, walk: Walk) -> None:
        """Into a folder of its own first, so that nobody ever sees half an index."""
        with tempfile.TemporaryDirectory(dir=self._root, prefix=_FRESH, ignore_cleanup_errors=True) as fresh:
            inner = Path(fresh) / "index"
            inner.mkdir()
            sums = {}
            for name, column in zip(COLUMNS, walk.table.columns(), strict=True):
                column.tofile(inner / name)
                sums[name] = _checksum(column)
            body = {
                "rows": len(walk.table),
                "checksums": sums,
                "counts": {str(heap): asdict(count) for heap, count in walk.counts.items()},
                "findings": [asdict(finding) for finding in walk.findings],
                "gaps": list(walk.gaps),
                "facts": {str(heap): dict(facts) for heap, facts in walk.facts.items()},
            }
            text = json.dumps(body)
            (inner / _MANIFEST).write_text(f"{_digest(text)}\n{text}", encoding="utf-8")
            shutil.rmtree(self._folder, ignore_errors=True)
            try:
                inner.rename(self._folder)
            except OSError:
                if not (self._folder / _MANIFEST).is_file():  # else another process was quicker: the same answer
                    raise
        self.remarks.append(f"the blocks are kept in the index in {self._folder}")

    def _manifest(self) -> dict[str, Any] | None:
        """What was written besides the columns; None where there is no index, or a damaged one."""
        try:
            digest, _, text = (self._folder / _MANIFEST).read_text(encoding="utf-8").partition("\n")
        except FileNotFoundError:
            return None
        if digest != _digest(text):
            self.remarks.append(f"the index in {self._folder} is damaged; walking again")
            return None
        manifest: dict[str, Any] = json.loads(text)
        return manifest

    def _table_or(self, rows: int, sums: dict[str, str], walk_again: Callable[[], BlockTable]) -> BlockTable:
        try:
            return BlockTable(**{name: self._column(name, kind, rows, sums[name]) for name, kind in COLUMNS.items()})
        except (OSError, ValueError) as error:
            self.remarks.append(f"the index in {self._folder} is damaged ({error}); walked again")
            shutil.rmtree(self._folder, ignore_errors=True)
            return walk_again()

    def _column(self, name: str, kind: type[np.generic], rows: int, checksum: str) -> NDArray[Any]:
        """A column, memory-mapped: the bare bytes of an array, so that nothing is parsed.

        Raises:
            OSError, ValueError: it is not what was written.
        """
        path = self._folder / name
        if path.stat().st_size != rows * np.dtype(kind).itemsize:
            raise ValueError(f"column {name} has another length")
        column: NDArray[Any] = np.asarray(np.memmap(path, kind, "r")) if rows else np.empty(0, kind)
        if _checksum(column) != checksum:
            raise ValueError(f"column {name} is not as it was written")
        return column


def _verified(path: Path) -> str:
    """The text of a file that begins with its digest.

    Raises:
        OSError, ValueError: there is no such file, or the digest is another one.
    """
    digest, _, text = path.read_text(encoding="utf-8").partition("\n")
    if digest != _digest(text):
        raise ValueError(f"{path.name} is not as it was written")
    return text


def _count(record: dict[str, Any]) -> HeapCount:
    checks = tuple(Check(**(check | {"kind": CheckKind(check["kind"])})) for check in record["checks"])
    kinds = {name: _kinds(record[name]) for name in ("kinds", "internal", "hosted")}
    return HeapCount(**(record | kinds | {"checks": checks}))


def _facts(record: dict[str, Any]) -> HeapFacts:
    """What the walk of one heap inferred.

    Raises:
        TypeError: a value is none that JSON holds as a scalar.
    """
    if not all(value is None or isinstance(value, int | str) for value in record.values()):
        raise TypeError("a fact is neither a number nor a word")
    return record


def _kinds(records: list[dict[str, Any]]) -> tuple[KindCount, ...]:
    return tuple(KindCount(**(kind | {"kind": BlockKind.of(kind["kind"])})) for kind in records)


def _cache_folder() -> Path:
    if named := os.environ.get("HEAPDUMP_CACHE"):
        return Path(named) / _OWN
    from platformdirs import user_cache_path

    return user_cache_path("heapdump", appauthor=False) / _OWN


@cache
def _code() -> str:
    """Sizes and times of heapdump's own files: an index of another version, or of code being worked on, is not used."""
    files = sorted(path for path in Path(__file__).parent.parent.rglob("*") if path.suffix in (".py", ".json"))
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

    Sizes are looked at when a large index is to be written. Nothing is touched whose name is not an index's.
    """
    mine = [folder for folder in root.iterdir() if _IS_INDEX.fullmatch(folder.name)]
    if need < _SMALL_BYTES and len(mine) < _MOST_DUMPS:
        return
    for folder in root.glob(f"{_FRESH}*"):  # left by a process that was killed while it wrote
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _DAY:
                shutil.rmtree(folder, ignore_errors=True)
    total, kept = need, _MOST_DUMPS if len(mine) < _MOST_DUMPS else _MOST_DUMPS * 3 // 4
    for count, (_, size, folder) in enumerate(sorted(map(_entry, mine), reverse=True), 1):
        total += size
        if total > _MOST_BYTES or count > kept:
            shutil.rmtree(folder, ignore_errors=True)


def _entry(folder: Path) -> tuple[float, int, Path]:
    """(time of last use, bytes, folder) of an index; 0 and 0 for one that another process deletes just now."""
    try:
        return (folder / _MANIFEST).stat().st_mtime, sum(file.stat().st_size for file in folder.iterdir()), folder
    except OSError:
        return 0.0, 0, folder
