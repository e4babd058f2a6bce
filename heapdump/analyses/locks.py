"""The locks of heaps: owners, threads that wait, and why a hang does not end.

In: the process and its heaps. Out: the lock of each heap, and the worst hang. A thread that waits is found by the
address of the critical section in its registers or just above its stack pointer; the number of waiters is Windows' own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from heapdump.blocks.heap import Heap
from heapdump.process.critical_sections import CriticalSection, read_section, sections_near, thread_exists
from heapdump.process.model import Process, Thread, View

_MOST_STEPS = 64


@dataclass(frozen=True, slots=True)
class HeapLock:
    """The lock of one heap.

    Attributes:
        heap: the heap.
        section: its critical section.
        owner_exists: True where the owner is a thread of the dump; None while nobody owns the lock, and where the
            threads of the process are not known.
        waiting: ids of the threads that were found waiting, at most `section.waiters`.
    """

    heap: Heap
    section: CriticalSection
    owner_exists: bool | None
    waiting: tuple[int, ...]

    @property
    def is_orphaned(self) -> bool:
        """True where the owner ended and still holds the lock."""
        return self.owner_exists is False

    @property
    def hangs(self) -> bool:
        """True for a lock that threads wait for, or whose owner ended."""
        return self.section.owner is not None and (self.section.waiters > 0 or self.is_orphaned)


@dataclass(frozen=True, slots=True)
class Wait:
    """A thread that waits for a critical section.

    Attributes:
        thread: id of the thread.
        section: the critical section.
        heap: heap that the section guards; None for a section of no heap.
    """

    thread: int
    section: CriticalSection
    heap: Heap | None


@dataclass(frozen=True, slots=True)
class Hang:
    """The lock that most likely stopped the process.

    Attributes:
        lock: the lock.
        others: locks of other heaps that threads wait for, or whose owners ended.
        chain: the wait of its owner, the wait of the owner of that section, and so on.
        is_deadlock: True where the chain comes back to a thread that is in it.
    """

    lock: HeapLock
    others: tuple[HeapLock, ...]
    chain: tuple[Wait, ...]
    is_deadlock: bool


def heap_locks(process: Process, heaps: Sequence[Heap]) -> dict[int, HeapLock]:
    """Index of a heap → its lock; heaps without one, and heaps whose lock is not in the dump, are left out."""
    sections: dict[int, tuple[Heap, View, CriticalSection]] = {}
    for heap in heaps:
        view = next(view for view in process.views if view.arch == heap.view)
        layout = next((layout for layout in view.layouts if layout.name == heap.layout), None)
        section = read_section(process, view, heap.lock, layout) if heap.lock else None
        if section is not None:
            sections[heap.index] = (heap, view, section)
    waiting = _waiting(process, [(view, section) for _, view, section in sections.values()])
    return {
        index: HeapLock(
            heap,
            section,
            None if section.owner is None else thread_exists(process, section.owner),
            waiting.get(section.address, ()),
        )
        for index, (heap, _, section) in sections.items()
    }


def _waiting(process: Process, sections: Sequence[tuple[View, CriticalSection]]) -> dict[int, tuple[int, ...]]:
    """Address of a section → the threads that wait for it, those that name it nearest to their stack pointer first."""
    found: dict[int, list[tuple[int, int]]] = {}
    for view in process.views:
        wanted = {one.address: one for at, one in sections if at is view and one.waiters and one.owner is not None}
        for thread in process.threads if wanted else ():
            near = ((at, wanted[value]) for at, value in sections_near(process, view, thread) if value in wanted)
            at, section = next(((at, one) for at, one in near if one.owner != thread.id), (0, None))
            if section is not None:
                found.setdefault(section.address, []).append((at, thread.id))
    counts = {section.address: section.waiters for _, section in sections}
    return {
        address: tuple(thread for _, thread in sorted(pairs)[: counts[address]]) for address, pairs in found.items()
    }


def worst_hang(process: Process, locks: Mapping[int, HeapLock]) -> Hang | None:
    """The hang to begin with: a deadlock, then an orphaned lock, then the one with most waiters; None without one."""
    hangs = [_hang(process, locks, lock) for lock in locks.values() if lock.hangs]
    if not hangs:
        return None
    worst = max(hangs, key=lambda hang: (hang.is_deadlock, hang.lock.is_orphaned, hang.lock.section.waiters))
    others = tuple(hang.lock for hang in hangs if hang is not worst)
    return Hang(worst.lock, others, worst.chain, worst.is_deadlock)


def _hang(process: Process, locks: Mapping[int, HeapLock], lock: HeapLock) -> Hang:
    chain, seen, owner = list[Wait](), set[int](), lock.section.owner
    while owner is not None and owner not in seen and len(seen) < _MOST_STEPS:
        seen.add(owner)
        wait = _waits_for(process, locks, owner)
        if wait is not None:
            chain.append(wait)
        owner = wait.section.owner if wait is not None else None
    return Hang(lock, (), tuple(chain), is_deadlock=owner in seen)


def _waits_for(process: Process, locks: Mapping[int, HeapLock], thread: int) -> Wait | None:
    """The section that a thread waits for, of a heap or another one; None where none was found."""
    for lock in locks.values():
        if thread in lock.waiting:
            return Wait(thread, lock.section, lock.heap)
    found = next((one for one in process.threads if one.id == thread), None)
    others = _other_sections(process, found) if found else ()
    return next((Wait(thread, section, None) for section in others), None)


def _other_sections(process: Process, thread: Thread) -> Iterator[CriticalSection]:
    """Sections that are no heap's: another thread owns them, threads wait, and their debug information is whole.

    DebugInfo is -1 where Windows keeps none, else a structure that points back to the section.
    """
    for view in process.views:
        size = view.pointer_bytes
        for _, value in sections_near(process, view, thread):
            section = read_section(process, view, value) if value and value % size == 0 else None
            if section is None or not section.waiters or section.owner in (None, thread.id):
                continue
            debug = view.space.try_pointer(value)
            has_none = debug == (1 << 8 * size) - 1
            is_whole = has_none or (debug and view.space.try_pointer(debug + size) == value)
            if is_whole and section.owner and thread_exists(process, section.owner):
                yield section
