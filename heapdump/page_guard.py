"""Keeps a process alive when a mapped file becomes shorter, or its disk fails, while it is read.

Linux and macOS send SIGBUS for a page of a mapping that the file no longer has, which ends a process. While a guard is
active, such a page and those behind it are replaced by zeros, and the guard remembers it: the reader asks afterwards
and gives its answer up. Windows refuses to shorten a mapped file; there, and on other systems, a guard does nothing.

The handler is process-wide, so the list of guards is, too. It decides no answer: it only keeps `faulted`.
Sources: sigaction(2), mmap(2); `struct sigaction`, `siginfo_t` of glibc, musl and XNU on 64-bit processors.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import signal
import sys
from typing import Any

_MAP_FIXED = 0x10
_PROCESSORS = ("x86_64", "AMD64", "aarch64", "arm64")


class _LinuxAction(ctypes.Structure):
    """`struct sigaction` of glibc and musl."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_uint64 * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class _DarwinAction(ctypes.Structure):
    """`struct sigaction` of macOS."""

    _fields_ = (("handler", ctypes.c_void_p), ("mask", ctypes.c_uint32), ("flags", ctypes.c_int))


_SYSTEMS: dict[str, tuple[type[Any], int, int]] = {
    "linux": (_LinuxAction, 0x4, 16),
    "darwin": (_DarwinAction, 0x40, 24),
}
"""`sys.platform` → (struct sigaction, SA_SIGINFO, offset of `si_addr` in siginfo_t)."""


class PageGuard:
    """Guards the mapping [start, start + size) from `start()` to `stop()`.

    Attributes:
        faulted: True after a page could not be read; what was read from then on may be zeros.
    """

    def __init__(self, start: int, size: int) -> None:
        """`start`: address of the mapping in this process; `size` in bytes."""
        self.first, self.end = start, start + -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self.faulted = False

    def start(self) -> None:
        """Begins to guard; does nothing where the system has no such signal or its structures are not known."""
        if _handler is None:
            return
        if not _GUARDS:
            _handler.install()
        _GUARDS.append(self)

    def stop(self) -> None:
        """Ends guarding, before the mapping goes. A second call does nothing."""
        if self in _GUARDS:
            _GUARDS.remove(self)
            if not _GUARDS and _handler is not None:
                _handler.restore()


_GUARDS: list[PageGuard] = []


class _Handler:
    """The handler of SIGBUS, and the one that was there before."""

    def __init__(self, system: str) -> None:
        """`system`: a key of `_SYSTEMS`."""
        self._action, self._flags, self._offset = _SYSTEMS[system]
        self._libc = ctypes.CDLL(None)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
        self._before = self._action()
        self._function = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(self._fault)

    def install(self) -> None:
        """Takes the place of the present handler."""
        action = self._action(handler=ctypes.cast(self._function, ctypes.c_void_p).value, flags=self._flags)
        self._libc.sigaction(signal.SIGBUS, ctypes.byref(action), ctypes.byref(self._before))

    def restore(self) -> None:
        """Gives its place back."""
        self._libc.sigaction(signal.SIGBUS, ctypes.byref(self._before), None)

    def _fault(self, number: int, info: int, context: int) -> None:
        """Replaces the rest of the mapping by zeros; any other address is a matter of the handler before."""
        address = ctypes.c_size_t.from_address(info + self._offset).value
        for guard in _GUARDS:
            if guard.first <= address < guard.end:
                page = address // mmap.PAGESIZE * mmap.PAGESIZE
                flags = mmap.MAP_PRIVATE | mmap.MAP_ANON | _MAP_FIXED
                self._libc.mmap(page, guard.end - page, mmap.PROT_READ, flags, -1, 0)
                guard.faulted = True
                return
        self.restore()  # the instruction is repeated and meets that handler


def _handler_of_this_system() -> _Handler | None:
    is_known = sys.platform in _SYSTEMS and platform.machine() in _PROCESSORS and sys.maxsize > 1 << 32
    return _Handler(sys.platform) if is_known else None


_handler = _handler_of_this_system()
