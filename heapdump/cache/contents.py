"""Lists and deletes the indexes of all dumps in the cache folder.

Only folders with the name of an index, or of one that was being written, are counted or deleted.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from heapdump.cache.store import FRESH_PREFIX, INDEX_NAME, MANIFEST, cache_folder


@dataclass(frozen=True, slots=True)
class Entry:
    """The index of one dump.

    Attributes:
        folder: of the index.
        bytes: sum of the sizes of its files.
        files: number of its files.
        last_used: time of the last use, seconds since 1970; None for an index that a killed process left unfinished.
    """

    folder: Path
    bytes: int
    files: int
    last_used: float | None


@dataclass(frozen=True, slots=True)
class Cleared:
    """The result of `clear`.

    Attributes:
        deleted: indexes that were deleted.
        remaining: indexes that could not be deleted, or only in part.
    """

    deleted: tuple[Entry, ...]
    remaining: tuple[Entry, ...]


def entries(root: Path | None = None) -> tuple[Entry, ...]:
    """The indexes in the cache folder: the most recently used first, unfinished ones last; empty without a folder.

    `root` None: the user's cache folder. Reads only names, sizes and times.
    """
    found = [entry for entry in map(_entry, _folders(root or cache_folder())) if entry is not None]
    return tuple(sorted(found, key=lambda entry: (-(entry.last_used or 0), entry.folder.name)))


def clear(root: Path | None = None) -> Cleared:
    """Deletes every index. On Windows an index that another process has open may remain."""
    found = entries(root)
    for entry in found:
        shutil.rmtree(entry.folder, ignore_errors=True)
    left = tuple(after for after in (_entry(entry.folder) for entry in found) if after is not None)
    gone = {entry.folder for entry in left}
    return Cleared(tuple(entry for entry in found if entry.folder not in gone), left)


def _folders(root: Path) -> list[Path]:
    """The folders of indexes, finished or not; links are left out."""
    try:
        inside = list(root.iterdir())
    except OSError:
        return []
    named = (path for path in inside if INDEX_NAME.fullmatch(path.name) or path.name.startswith(FRESH_PREFIX))
    return [path for path in named if path.is_dir() and not path.is_symlink()]


def _entry(folder: Path) -> Entry | None:
    """The entry of a folder; None where the folder is gone."""
    if not folder.is_dir():
        return None
    sizes = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process deletes it just now
            state = path.lstat()
            sizes += [] if path.is_dir() else [state.st_size]
    try:
        last_used = (folder / MANIFEST).stat().st_mtime
    except OSError:
        last_used = None
    return Entry(folder, sum(sizes), len(sizes), last_used)
