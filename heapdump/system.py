"""Everything that differs between Windows and other systems, in one file: standard streams, files, signals.

Each function asks `IS_WINDOWS` or whether the system has a call, when it is called: the tests run both branches on
any system. Room: ground floor, the standard library only.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import functools
import mmap
import ntpath
import os
import re
import secrets
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import IO, BinaryIO, cast

IS_WINDOWS = os.name == "nt"

_OWN_FILE = os.O_RDWR | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_BINARY", "O_CLOEXEC", "O_NONBLOCK"))
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|com[\d¹²³]|lpt[\d¹²³])(\..*)?")
_SHORT_PATH, _VIRTUAL_TERMINAL = 240, 0x4  # ENABLE_VIRTUAL_TERMINAL_PROCESSING of consoleapi.h
_TRIES = 100
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _LARGE = -1, -3, 8 << 20  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
_DAY_SECONDS = 86_400
_OPEN_FILES = Path("/proc/self/fd")
_QUERY_LIMITED_INFORMATION, _ACCESS_DENIED, _STILL_ACTIVE = 0x1000, 5, 259
"""PROCESS_QUERY_LIMITED_INFORMATION, ERROR_ACCESS_DENIED, STILL_ACTIVE of winnt.h, winerror.h, minwinbase.h."""


def fill_standard_streams() -> None:
    """Opens the null device for each of the descriptors 0, 1 and 2 that the caller closed (`2>&-`).

    Else the next file that is opened would get the number, and whatever is written to the stream would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def leave_pipe(stream: IO[str]) -> None:
    """Connects a stream that cannot be written any more with the null device, so that the flush at exit succeeds."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def is_closed_pipe(error: OSError) -> bool:
    """True where the reader of a pipe has gone. Windows reports EINVAL for it, too."""
    return isinstance(error, BrokenPipeError) or (IS_WINDOWS and error.errno == errno.EINVAL)


def reader(file: BinaryIO, data: mmap.mmap) -> Callable[[int, int], bytes]:
    """A function (size, offset) → bytes of an opened file, fewer at its end; it raises OSError.

    `data`: the file mapped, read where there is no `pread` (Windows).
    """
    if hasattr(os, "pread"):
        return functools.partial(os.pread, file.fileno())
    return lambda size, offset: data[offset : offset + size]


def give_large_memory_back() -> None:
    """Memory of freed arrays of 8 MB and more goes back to the system at once, where the C library can be told (glibc).

    Else it does so at the beginning only: once an array of up to 32 MB was freed, it keeps arrays of that size.
    """
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        tell = ctypes.CDLL(None).mallopt
        tell(_MMAP_THRESHOLD, _LARGE)
        tell(_TRIM_THRESHOLD, _LARGE)


def advise(data: mmap.mmap, advice: str, start: int, size: int) -> None:
    """Gives the system advice on a part of a mapping; does nothing where it takes none (Windows)."""
    if hasattr(data, "madvise") and hasattr(mmap, advice):
        data.madvise(getattr(mmap, advice), start, size)


def temporary_file(prefix: str, folder: Path | None = None) -> BinaryIO:
    """A file for writing and reading that is gone when it is closed, and when the process is killed.

    `folder` None: the system's for temporary files.

    It has no name from the beginning; on Windows it has one that the system deletes with the last handle. What a crash
    of the system leaves there is deleted by the next call after a day.

    Raises:
        OSError: it cannot be made.
    """
    if IS_WINDOWS:
        for left in Path(folder or tempfile.gettempdir()).glob(f"{prefix}*.tmp"):
            with contextlib.suppress(OSError):  # in use, or of another user
                if time.time() - left.stat().st_mtime > _DAY_SECONDS:
                    left.unlink()
    return cast(BinaryIO, tempfile.TemporaryFile(prefix=prefix, suffix=".tmp", dir=folder))


@contextlib.contextmanager
def temporary_copy(prefix: str, fill: Callable[[BinaryIO], None]) -> Iterator[Path]:
    """The path of a file that `fill` writes; it is gone at the end of the block.

    On Linux it is gone with the process, too, however that ends: the path is that of an open file without a name.
    Elsewhere the next call deletes what a killed process left, after a day.

    Raises:
        OSError: it cannot be made.
    """
    if _OPEN_FILES.is_dir():
        with contextlib.closing(temporary_file(prefix)) as file:
            fill(file)
            file.flush()
            yield _OPEN_FILES / str(file.fileno())
        return
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _DAY_SECONDS and not others_can_write(left):
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        copy = Path(folder) / "copy"
        with copy.open("wb") as target:
            fill(target)
        yield copy


def is_running(process: int) -> bool:
    """True for the id of a process that runs, also of another user. Windows: `os.kill` would end it."""
    if IS_WINDOWS:
        return _is_running_windows(process)
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # not ours
        return True
    return True


def _is_running_windows(process: int) -> bool:
    """OpenProcess, and STILL_ACTIVE of GetExitCodeProcess; a process that may not be opened runs."""
    import ctypes

    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]  # there on Windows only
    handle = kernel.OpenProcess(_QUERY_LIMITED_INFORMATION, False, process & 0xFFFFFFFF)
    if not handle:
        return bool(kernel.GetLastError() == _ACCESS_DENIED)
    code = ctypes.c_ulong()
    is_known = kernel.GetExitCodeProcess(handle, ctypes.byref(code))
    kernel.CloseHandle(handle)
    return not is_known or code.value == _STILL_ACTIVE


def others_can_write(folder: Path) -> bool:
    """True for a folder that another user owns or may write to, and for a link in its place; False where there is none.

    False on Windows, where the user's own folders are private and permissions are no numbers.
    """
    if IS_WINDOWS:
        return False
    try:
        state = folder.lstat()
    except OSError:
        return False
    return stat.S_ISLNK(state.st_mode) or state.st_uid != os.geteuid() or bool(state.st_mode & 0o022)


def create_exclusively(folder: Path, begin: str = "") -> tuple[int, Path]:
    """(descriptor, path) of a new empty file of a random name, readable for this user only; `begin`: of its name.

    A file or a link that is there already is never opened.

    Raises:
        OSError: the system refuses.
    """
    for _ in range(_TRIES):
        path = folder / f".heapdump-{begin}{secrets.token_hex(8)}.part"
        with contextlib.suppress(FileExistsError):
            return os.open(path, _OWN_FILE | os.O_CREAT | os.O_EXCL, 0o600), path
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))


def open_own(path: Path) -> int | None:
    """Descriptor for reading and writing of a file that is there; None for a link, a second name, or another's."""
    try:
        descriptor = os.open(path, _OWN_FILE)
    except OSError:
        return None
    state = os.fstat(descriptor)
    is_own = IS_WINDOWS or (state.st_uid == os.geteuid() and state.st_nlink == 1)
    if is_own and stat.S_ISREG(state.st_mode):
        return descriptor
    os.close(descriptor)
    return None


def new_file_mode() -> int:
    """Permissions of a file that is made without asking for any. 0o666 on Windows, which has no umask of its own."""
    if IS_WINDOWS:
        return 0o666
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def is_stream_path(path: Path) -> bool:
    """True for paths that name an open stream or a device: written to as they are, never replaced.

    Windows: `NUL` and `CON`, in any folder.
    """
    if IS_WINDOWS:
        return path.name.lower() in ("nul", "con", "conout$")
    names = path.absolute().parts
    return len(names) > 2 and names[1] in ("dev", "proc")


def is_device_name(path: Path) -> bool:
    """True for a name that no file of Windows can have: `COM1`, `aux.json`; False for `NUL` and `CON`, and elsewhere.

    Source: Microsoft's page "Naming Files, Paths, and Namespaces".
    """
    return IS_WINDOWS and not is_stream_path(path) and bool(_DEVICES.fullmatch(path.name.rstrip(" ")))


def long_path(path: Path) -> Path:
    """The path in a form that Windows opens whatever its length: `\\\\?\\C:\\…` from some 240 characters on.

    Without the prefix Windows refuses 260 characters and more, unless its registry says otherwise. Elsewhere, and for a
    path that is short, has the prefix, or is relative to a drive, the path itself.
    """
    if not IS_WINDOWS or (len(os.fspath(path)) < _SHORT_PATH and path.is_absolute()):
        return path
    full = ntpath.abspath(os.fspath(path))
    if len(full) < _SHORT_PATH or full.startswith(("\\\\?\\", "\\\\.\\")):
        return path
    return Path(f"\\\\?\\UNC\\{full[2:]}" if full.startswith("\\\\") else f"\\\\?\\{full}")


def understands_escapes(number: int) -> bool:
    """True where the terminal of descriptor 1 or 2 understands escape sequences; on Windows they are switched on first.

    False for a console of Windows before 10 and one in legacy mode: colours would be shown as characters.
    """
    if not IS_WINDOWS:
        return True
    import ctypes

    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]  # there on Windows only
    handle, mode = kernel.GetStdHandle(-10 - number), ctypes.c_ulong()
    if not kernel.GetConsoleMode(handle, ctypes.byref(mode)):
        return True  # no console: a terminal of its own, such as that of Git
    return bool(mode.value & _VIRTUAL_TERMINAL or kernel.SetConsoleMode(handle, mode.value | _VIRTUAL_TERMINAL))


def pager_encoding() -> str:
    """The encoding that the pager of the system reads: UTF-8; `more` of Windows reads the code page of the console."""
    if not IS_WINDOWS:
        return "utf-8"
    import ctypes

    page = ctypes.windll.kernel32.GetConsoleOutputCP()  # type: ignore[attr-defined,unused-ignore]
    try:
        return codecs.lookup(f"cp{page}").name
    except LookupError:
        return "ascii"


def on_end_signals(end: Callable[[int], None]) -> None:
    """Calls `end(number)` in the main thread when the process is asked to end: Ctrl-C, TERM, HUP, Ctrl-Break.

    A signal that the caller ignores (`nohup`) stays ignored.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        """Passes the number on."""
        end(number)

    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            with contextlib.suppress(ValueError, OSError):  # not the main thread
                signal.signal(number, handle)
