"""A name for heapdump's own code: an index of another version, or of changed code, is not used."""

from __future__ import annotations

import contextlib
import hashlib
import os
from functools import cache
from pathlib import Path

from heapdump import system
from heapdump.cache.texts import digest, read_text, write_text

_OWN, _MOST_KEPT, _NAME_LENGTH = "code", 8, 32


@cache
def code_digest(folder: Path, home: Path = Path(__file__).parent.parent) -> str:
    """The SHA-256 of the sources and tables of heapdump in `home`, wherever they lie and whenever they were written.

    `folder`: of heapdump's caches. The digest is kept there, under a name made of sizes and times of the files, which
    are found sooner than the files are read.
    """
    states = _states(home)
    own = folder / _OWN
    file = own / digest(repr(states))[:_NAME_LENGTH]
    with contextlib.suppress(OSError, ValueError):
        if not system.others_can_write(own):
            return read_text(file)
    found = _content_digest(home, states)
    with contextlib.suppress(OSError):
        _keep(file, found)
    return found


@cache
def _states(home: Path) -> tuple[tuple[str, int, int], ...]:
    """(path, bytes, time of the last change) of each source and table; those of the first call in this process."""
    found, folders = list[tuple[str, int, int]](), [str(home)]
    for folder in folders:
        with contextlib.suppress(OSError):  # a folder that may not be listed, or a zip file
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            folders += [one.path for one in entries if one.is_dir(follow_symlinks=False) and one.name != "__pycache__"]
            for entry in (one for one in entries if one.name.endswith((".py", ".json"))):
                with contextlib.suppress(OSError):  # a link that leads nowhere
                    state = entry.stat()
                    found.append((entry.path, state.st_size, state.st_mtime_ns))
    return tuple(sorted(found))


@cache
def _content_digest(home: Path, states: tuple[tuple[str, int, int], ...]) -> str:
    """SHA-256 of the files, in hex. `states`: what `_states` found."""
    found = hashlib.sha256()
    for path in (Path(path) for path, _, _ in states):
        data = path.read_bytes()
        found.update(f"{path.relative_to(home).as_posix()} {len(data)}\n".encode() + data)
    return found.hexdigest()


def _keep(path: Path, text: str) -> None:
    """Writes a digest at once, and deletes the oldest ones where there are too many.

    Raises:
        OSError: it cannot be written.
    """
    own = path.parent
    own.mkdir(parents=True, exist_ok=True, mode=0o700)
    if system.others_can_write(own):
        return
    old = sorted(own.iterdir(), key=lambda one: one.stat().st_mtime)
    for one in old[: max(0, len(old) - _MOST_KEPT + 1)]:
        one.unlink(missing_ok=True)
    fresh = path.with_name(f"{path.name}-{os.getpid()}")
    write_text(fresh, text)
    fresh.replace(path)
