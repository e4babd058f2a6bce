"""Files that commands write: complete or not there at all, and never in the place of a dump.

The text goes to a new file of a random name in the folder of the target, which takes the target's place once it is
complete. A link in the target's place is replaced, not followed; a link to a device or a pipe is written to.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from heapdump import system
from heapdump.errors import CannotWrite, WrongUsage

_PIECES, _AT_ONCE = 256, 1 << 18
"""Pieces and characters of an answer that are written together."""
STDOUT_WORD = Path("-")
"""The value of `-o` that means the standard output."""
_MAGICS = (b"MDMP", b"PAGEDU64", b"PAGEDUMP")
_DUMP_NAME = re.compile(r".*\.[mh]?dmp(\.(gz|xz|zst|zip|cab))?", re.IGNORECASE)


@contextlib.contextmanager
def output(target: Path | None, dumps: Iterable[Path]) -> Iterator[IO[str]]:
    """The stream that a command writes to: the target as `replaced` makes it, the standard output for None.

    Raises:
        WrongUsage: the target is a dump.
        CannotWrite: the system refuses. A reader of the standard output that has seen enough (`| head`) is no error.
    """
    try:
        if target is None:
            yield sys.stdout
        else:
            with replaced(target, dumps) as stream:
                yield stream
    except OSError as error:
        if target is not None or not system.is_closed_pipe(error):
            raise CannotWrite(target, error) from error
        system.leave_pipe(sys.stdout)


@contextlib.contextmanager
def replaced(target: Path, dumps: Iterable[Path]) -> Iterator[IO[str]]:
    """A file that takes the target's place once it is complete, with the target's permissions.

    Raises:
        WrongUsage: the target is one of the dumps that are read, by whatever name, another dump, or a device.
        OSError: the system refuses to write.
    """
    sources = tuple(dumps)
    target, state = _checked(target, sources)
    if _is_stream(target, state):
        # neither made nor cut: what is opened is there already
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_APPEND), "w", encoding="utf-8", newline="\n") as stream:
            yield stream
        return
    handle, part = system.create_exclusively(target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as stream:
            yield stream
        part.chmod(system.new_file_mode() if state is None else stat.S_IMODE(state.st_mode))
        _refuse_dump(target, sources)  # again: writing may have taken minutes
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def refuse_unwritable(target: Path, dumps: Iterable[Path]) -> None:
    """Refuses a target that `output` would refuse, before minutes of reading. A file that is there stays as it is.

    Raises:
        WrongUsage: the target is a dump.
        CannotWrite: the system refuses.
    """
    try:
        found, state = _checked(target, tuple(dumps))
        if not _is_stream(found, state):
            handle, part = system.create_exclusively(found.parent)
            os.close(handle)
            part.unlink()
    except OSError as error:
        raise CannotWrite(target, error) from error


def _checked(target: Path, dumps: Sequence[Path]) -> tuple[Path, os.stat_result | None]:
    """(the target as the system takes it, its state).

    Raises:
        WrongUsage: the target is a dump, a device, or `-`, which only -o takes for the standard output.
        OSError: the target is a folder, or a file that may not be written.
    """
    if target == STDOUT_WORD:
        raise WrongUsage("- is no file; only -o takes it for stdout")
    if system.is_device_name(target):
        raise WrongUsage(f"{target} is the name of a device on Windows; name another file")
    target = system.long_path(target)
    _refuse_dump(target, dumps)
    state = _state(target)
    if state is not None and stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if state is not None and stat.S_ISREG(state.st_mode) and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return target, state


def _is_stream(target: Path, state: os.stat_result | None) -> bool:
    return system.is_stream_path(target) or (state is not None and not stat.S_ISREG(state.st_mode))


def _state(target: Path) -> os.stat_result | None:
    """The state of the file that the target is or links to; None where there is none."""
    try:
        return target.stat()
    except FileNotFoundError:
        return None


def _refuse_dump(target: Path, dumps: Sequence[Path]) -> None:
    """Refuses a target that is a dump.

    Raises:
        WrongUsage: the target is one of the dumps, by whatever name, or another dump.
    """
    if not target.is_file():
        return
    if any(dump.exists() and target.samefile(dump) for dump in dumps):
        raise WrongUsage(f"{target} is the dump itself; name another file")
    if _is_dump(target):
        raise WrongUsage(f"{target} is a dump; heapdump never writes over a dump: name another file")


def _is_dump(path: Path) -> bool:
    """True for a dump by its content, or a file with a dump's name, packed ones too."""
    if _DUMP_NAME.fullmatch(path.name):
        return True
    try:
        with path.open("rb") as file:
            return file.read(8).startswith(_MAGICS)
    except OSError:
        return False


def copy_pieces(pieces: Iterable[str], stream: IO[str]) -> None:
    """Writes the pieces of an answer, many together."""
    waiting: list[str] = []
    characters = 0
    for piece in pieces:
        waiting.append(piece)
        characters += len(piece)
        if characters >= _AT_ONCE or len(waiting) >= _PIECES:
            stream.write("".join(waiting))
            waiting, characters = [], 0
    stream.write("".join(waiting))
    stream.flush()
