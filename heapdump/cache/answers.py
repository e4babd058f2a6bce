"""Stores answers of analyses on disk, beside the walk from which they were made, and reads them back.

An analysis knows nothing about files. It converts its answer into columns or a JSON record, and back; `StoredAnswer`
holds both conversions. `snapshot.py` connects the two.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.stored_checks import require_types
from heapdump.cache.store import Store, write_column
from heapdump.cache.texts import write_text

T = TypeVar("T")
Columns = dict[str, NDArray[Any]]
"""Name → one-dimensional array."""

Reader = Callable[[Columns, int], T]
"""(columns, number of nodes of the graph) → the answer; raises ValueError where the columns do not fit."""

_UNUSABLE = (OSError, ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError, MemoryError)
"""The exceptions of a missing, damaged or forged file. MemoryError: a column of equal numbers takes no bytes in its
file, whatever its length."""


@dataclass(frozen=True, slots=True)
class StoredAnswer(Generic[T]):
    """How an answer is stored.

    Attributes:
        name: of its files.
        read: columns → the answer; None where the columns belong to another question.
        write: the answer → columns.
    """

    name: str
    read: Callable[[Columns], T | None]
    write: Callable[[T], Columns]


def json_answer(
    name: str, read: Callable[[dict[str, Any]], T], write: Callable[[T], dict[str, Any]]
) -> StoredAnswer[T]:
    """A `StoredAnswer` for an answer that is one JSON object: a column with its UTF-8 bytes."""

    def from_columns(columns: Columns) -> T:
        """The answer of the column `text`, (bytes,) uint8."""
        return read(json.loads(columns["text"].tobytes()))

    def to_columns(answer: T) -> Columns:
        """Its JSON text as the column `text`, (bytes,) uint8."""
        return {"text": np.frombuffer(json.dumps(write(answer)).encode(), np.uint8)}

    return StoredAnswer(name, from_columns, to_columns)


_WORDS = {
    "graph": "pointers between blocks", "reach": "what roots reach", "retained": "dominator tree",
    "retained-top": "blocks that retain most",
    "leak-suspects": "leak suspects", "typing": "types of blocks", "damage": "damage of the heaps",
    "guards": "guards of the CRT's debug heap", "clusters": "clusters of blocks",
    "typing-declared": "types of blocks by PDBs", "owners-declared": "owners of blocks by PDBs",
}  # fmt: skip


def _in_words(name: str) -> str:
    """What a stored answer is; `groups-type` is `groups by type`."""
    return _WORDS.get(name) or name.replace("-", " by ", 1)


def answer_from(store: Store, answer: StoredAnswer[T], make: Callable[[], T]) -> T:
    """The stored answer; where there is none, or it does not verify, the answer of `make`, which is then stored."""
    found = _read(store, answer)
    if found is None:
        found = make()
        _write(store, answer.name, answer.write(found))
    return found


def _read(store: Store, answer: StoredAnswer[T]) -> T | None:
    """The stored answer; None where there is none, it belongs to another question, or does not verify."""
    if not store.has_manifest:
        return None
    try:
        found = answer.read(_columns(store, answer.name))
        require_types(found, store.counts)
    except FileNotFoundError:
        return None
    except _UNUSABLE as error:
        store.remarks.append(f"damaged in the index in {store.folder} ({error}), made again: {_in_words(answer.name)}")
        return None
    if found is not None:
        store.remarks.append(f"read from the index in {store.folder}: {_in_words(answer.name)}")
    return found


def _columns(store: Store, name: str) -> Columns:
    columns = json.loads(store.text(f"{name}.json"))
    return {
        key: store.column(f"{name}.{key}", np.dtype(kind).type, int(rows), seal)
        for key, (kind, rows, seal) in columns.items()
    }


def _write(store: Store, name: str, columns: Columns) -> None:
    """Writes columns where a walk is stored. A failure is a remark, no error."""
    need = sum(column.nbytes for column in columns.values())
    try:
        if not store.has_manifest:
            return
        if need > store.allowed_bytes():
            store.remarks.append(f"not kept in the index, needs {need:,} bytes: {_in_words(name)}")
            return
        with store.fresh(need) as fresh:
            _write_files(fresh, name, columns)
            for file in sorted(fresh.iterdir(), key=lambda path: path.suffix == ".json"):  # the list of columns last
                file.replace(store.folder / file.name)
    except OSError as error:
        store.remarks.append(f"not kept in {store.folder} ({error.strerror or error}): {_in_words(name)}")


def _write_files(folder: Path, name: str, columns: Columns) -> None:
    seals = {key: write_column(folder / f"{name}.{key}", column) for key, column in columns.items()}
    entries = {key: (column.dtype.str, len(column), seals[key]) for key, column in columns.items()}
    write_text(folder / f"{name}.json", json.dumps(entries))
