"""Arrays with an element for each block or pointer: in memory, or in files without a name where a plan says so.

Pages of a file can leave memory and come back, those of an array cannot. Whether arrays lie in files changes no answer.
Room: ground floor.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from heapdump import system

Kind = TypeVar("Kind", bound=np.generic)

LARGE_BYTES = 1 << 22
"""Arrays below this size stay in memory."""

PART = 1 << 18
"""Elements of a piece of an array."""

_FOLDERS: list[Path] = []


def use_files(folder: Path | None) -> None:
    """From now on large arrays lie in files of this folder; None: in memory."""
    _FOLDERS[:] = [] if folder is None else [folder]


def empty(count: int, kind: type[Kind]) -> NDArray[Kind]:
    """(count,) elements of any value."""
    return _in_file(count, kind) if _FOLDERS else np.empty(count, kind)


def zeros(count: int, kind: type[Kind]) -> NDArray[Kind]:
    """(count,) zeros."""
    return _in_file(count, kind) if _FOLDERS else np.zeros(count, kind)


def full(count: int, value: int, kind: type[Kind]) -> NDArray[Kind]:
    """(count,) elements of one value."""
    out = empty(count, kind)
    out[:] = value
    return out


def resized(array: NDArray[Kind], count: int) -> NDArray[Kind]:
    """The array with room for `count` elements; the one given is not used any more."""
    if not _FOLDERS and array.base is None:
        array.resize(count, refcheck=False)
        return array
    out = empty(count, array.dtype.type)
    copied = min(count, len(array))
    out[:copied] = array[:copied]
    return out


def batches(count: int) -> Iterator[slice]:
    """[0, count) in pieces: numpy makes temporary arrays of what it computes, which are small then."""
    return (slice(low, min(low + PART, count)) for low in range(0, count, PART))


def look_up(numbers: NDArray[np.int32], table: NDArray[np.integer[Any]]) -> None:
    """Replaces each number k by `table[k]`, in place."""
    for part in batches(len(numbers)):
        numbers[part] = table[numbers[part]]


def count_each(numbers: NDArray[np.integer[Any]], count: int) -> NDArray[np.int64]:
    """How often each number below `count` is there, (count,) int64; negative numbers do not count."""
    out = np.zeros(count, np.int64)
    for part in batches(len(numbers)):
        out += np.bincount(numbers[part].astype(np.int64) + 1, minlength=count + 1)[1:]
    return out


def _in_file(count: int, kind: type[Kind]) -> NDArray[Kind]:
    """(count,) zeros in a file; in memory where they are few, or the disk has no room for them."""
    size = count * np.dtype(kind).itemsize
    if size < LARGE_BYTES:
        return np.zeros(count, kind)
    with contextlib.suppress(OSError, ValueError):
        if shutil.disk_usage(_FOLDERS[0]).free > 2 * size:
            with system.temporary_file("heapdump-array-", _FOLDERS[0]) as file:
                _reserve(file.fileno(), size)
                mapped: Any = mmap.mmap(file.fileno(), size)
                return np.frombuffer(mapped, kind)
    return np.zeros(count, kind)


def _reserve(file: int, size: int) -> None:
    """Gives the file its size, on the disk too where the system can: a full disk ends a process that writes there.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)
