"""Critical sections: who owns one, how often, and how many threads wait for it.

RTL_CRITICAL_SECTION in docs/reference/heap-structures.md §2.10. The owner is a thread id; Windows clears it when the
owner leaves, not when the owner ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from heapdump.layouts import Layout
from heapdump.process.model import Process, Thread, View

_SERVER_2003, _SP1 = 3790, 1830
"""Build and revision of the first Windows whose LockCount keeps two flags in its low bits."""

_MOST = 0x10000
"""Waiters or recursions of one section; more are damage."""

_NEAR_WORDS = 128
"""Words above the stack pointer in which a thread that waits keeps the address of the section it waits for."""


@dataclass(frozen=True, slots=True)
class CriticalSection:
    """A critical section. `owner`: thread id, None while nobody owns it; `recursion`: entries of the owner."""

    address: int
    owner: int | None
    recursion: int
    waiters: int


def read_section(process: Process, view: View, address: int, layout: Layout | None = None) -> CriticalSection | None:
    """The section at an address; None where it is not in the dump, or its members contradict each other."""
    fields = view.struct("_RTL_CRITICAL_SECTION", address, layout) if address else None
    if fields is None or len(fields) < len((layout or view.layout)["_RTL_CRITICAL_SECTION"].fields):
        return None
    owner, recursion, count = fields["OwningThread"], fields["RecursionCount"], fields["LockCount"]
    waiters = _waiters(process, count, recursion)
    if owner >> 32 or not 0 <= recursion <= _MOST or not 0 <= waiters <= _MOST:
        return None
    if owner and (not recursion or count == -1):
        return None
    return CriticalSection(address, owner or None, recursion if owner else 0, waiters)


def _waiters(process: Process, count: int, recursion: int) -> int:
    """Threads that wait, by LockCount, which is -1 while nobody owns the section.

    XP counts every entry from -1 on, recursions and waiters alike. From Server 2003 SP1 on bit 0 is clear while the
    section is owned, bit 1 is clear while a waiter is woken, and each waiter subtracts 4.
    """
    build, revision = process.windows.build, process.windows.revision
    if build < _SERVER_2003 or (build == _SERVER_2003 and 0 < revision < _SP1):
        return count + 1 - recursion
    return (-1 - count) >> 2


def thread_exists(process: Process, thread: int) -> bool | None:
    """True for a thread of the dump; None where the dump has no list of threads, or a damaged one."""
    if any(one.id == thread for one in process.threads):
        return True
    return False if process.has_all_threads else None


def sections_near(process: Process, view: View, thread: Thread) -> Iterator[tuple[int, int]]:
    """(bytes above the stack pointer, word) for the words in which a waiting thread keeps its section.

    Only of a thread that stands in ntdll, as every thread does that waits: first the registers, then the stack.
    """
    registers = thread.registers32 if view.arch == "x86" and thread.registers32 else thread.registers
    if registers is None or registers.arch != view.arch or not _is_in_ntdll(process, registers.ip):
        return
    yield from ((0, value) for value in registers.values.values())
    size = view.pointer_bytes
    for i in range(_NEAR_WORDS):
        value = view.space.try_pointer(registers.sp + i * size)
        if value is None:
            return
        yield i * size, value


def _is_in_ntdll(process: Process, address: int) -> bool:
    module = process.module_map.at(address)
    return module is not None and module.name.lower() == "ntdll.dll"
