"""How much memory this process may still have: of the machine, its control group, its limits, its job on Windows.

Room: ground floor, the standard library only. Sources: proc(5) (MemAvailable), the kernel's cgroup-v1/memory.rst and
cgroup-v2.rst, getrlimit(2), GlobalMemoryStatusEx and JOBOBJECT_EXTENDED_LIMIT_INFORMATION of the Windows SDK.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heapdump import system
from heapdump.wording import size

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60
_EXTENDED_LIMITS, _LIMIT_PROCESS, _LIMIT_JOB = 9, 0x100, 0x200
"""JobObjectExtendedLimitInformation, JOB_OBJECT_LIMIT_PROCESS_MEMORY, JOB_OBJECT_LIMIT_JOB_MEMORY of winnt.h."""


@dataclass(frozen=True, slots=True, order=True)
class Available:
    """`bytes` that may still be taken; `whose`: what sets the limit, in words. `counts_files`: mapped files count."""

    bytes: int
    whose: str
    counts_files: bool = False


def available_memory() -> Available | None:
    """The tightest of all limits; None where this system tells none."""
    return min(_windows() if system.IS_WINDOWS else _posix(), default=None)


_LEAST_BYTES = 96 << 20
"""Memory below which libraries end the process while they are loaded."""


def require_memory() -> None:
    """Makes sure that libraries can be loaded.

    Raises:
        MemoryError: a limit of this process leaves too little.
    """
    if not system.IS_WINDOWS and any(one.bytes < _LEAST_BYTES for one in _process_limits()):
        raise MemoryError(f"at least {size(_LEAST_BYTES)} are needed")


def is_shortage(error: BaseException) -> bool:
    """True for an exception that says that memory ran out, in whatever words: of a library, a mapping, a thread."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = ("failed to map segment", "cannot allocate memory", "can't start new thread")
    is_told = isinstance(error, (ImportError, RuntimeError)) and any(one in str(error).lower() for one in words)
    return isinstance(error, MemoryError) or is_told


def shortage(error: BaseException) -> str:
    """The line for it."""
    have = available_memory()
    left = f"; {have.whose} leaves {size(have.bytes)}" if have is not None else ""
    what = " ".join(str(error).split()) or "no more memory"
    return f"not enough memory: {what}{left}; a machine with more, or a higher limit, answers this"


def _posix() -> Iterator[Available]:
    text = _text(_PROC / "meminfo")
    if found := re.search(r"^MemAvailable:\s*(\d+) kB", text, re.MULTILINE):
        yield Available(int(found[1]) << 10, "this machine")
    elif "SC_PHYS_PAGES" in os.sysconf_names:
        yield Available(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "this machine")
    yield from _groups()
    yield from _process_limits()


def _groups() -> Iterator[Available]:
    """Limits of the process's control group and of those around it, versions 1 and 2."""
    for line in _text(_PROC / "self" / "cgroup").splitlines():
        number, controllers, group = line.split(":", 2)
        if number == "0":
            folders, limit, used, files = _GROUPS, "memory.max", "memory.current", ("inactive_file", "active_file")
        elif "memory" in controllers.split(","):
            folders, limit, used = _GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            files = ("total_inactive_file", "total_active_file")
        else:
            continue
        inner = folders / group.lstrip("/")
        # inside a container its group is mounted as the root
        for folder in (inner, *inner.parents) if inner.is_dir() else (folders,):
            if not folder.is_relative_to(folders):
                break
            most, now = _number(folder / limit), _number(folder / used)
            if most is not None and now is not None and most < _NO_LIMIT:
                counts = dict(line.split(" ", 1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
                cached = sum(int(counts.get(name, 0)) for name in files)  # given back when memory is asked for
                yield Available(max(0, most - now + min(cached, now)), "its control group")


def _process_limits() -> Iterator[Available]:
    try:
        import resource
    except ImportError:
        return
    pages = _text(_PROC / "self" / "statm").split()
    page = os.sysconf("SC_PAGE_SIZE")
    for name, column, words in (("RLIMIT_AS", 0, "ulimit -v"), ("RLIMIT_DATA", 5, "ulimit -d")):
        most = resource.getrlimit(getattr(resource, name))[0]
        if most != resource.RLIM_INFINITY and most < _NO_LIMIT:
            used = int(pages[column]) * page if len(pages) > column else 0
            yield Available(max(0, most - used), words, counts_files=name == "RLIMIT_AS")


def _windows() -> Iterator[Available]:
    """Memory that the system can still commit, and the limits of the job that the process belongs to."""
    import ctypes

    kernel: Any = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]  # there on Windows only
    status = (ctypes.c_uint64 * 8)()  # MEMORYSTATUSEX: two DWORDs, then total and available bytes of each kind
    ctypes.memmove(status, ctypes.byref(ctypes.c_uint32(64)), 4)
    if kernel.GlobalMemoryStatusEx(status):
        yield Available(min(status[2], status[4]), "this machine")
    limits = (ctypes.c_uint64 * 18)()  # JOBOBJECT_EXTENDED_LIMIT_INFORMATION, 144 bytes on 64-bit Windows
    if kernel.QueryInformationJobObject(None, _EXTENDED_LIMITS, limits, 144, None):
        flags, used = limits[2] & 0xFFFFFFFF, limits[16]
        for bit, most in ((_LIMIT_PROCESS, limits[14]), (_LIMIT_JOB, limits[15])):
            if flags & bit:
                yield Available(max(0, most - used), "its job")


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="ascii", errors="replace")
    return ""
