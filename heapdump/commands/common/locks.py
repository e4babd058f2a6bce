"""Locks of heaps and hangs as JSON records, and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.thread_stacks import stack_frame_record
from heapdump.render import text
from heapdump.render.view import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heapdump.analyses.locks import Hang, HeapLock, Wait
    from heapdump.process.model import Thread
    from heapdump.process.stacks.frames import StackFrame
    from heapdump.snapshot import Snapshot


class ThreadLocks:
    """The locks of heaps that each thread holds, and the one that it waits for."""

    def __init__(self, snapshot: Snapshot) -> None:
        """One for all threads of a dump."""
        self._locks = list(snapshot.locks.values())

    def waits_for(self, thread: Thread) -> Record | None:
        """The heap whose lock the thread waits for; None where no such wait was found."""
        found = next((lock for lock in self._locks if thread.id in lock.waiting), None)
        return None if found is None else {"heap": hex(found.heap.address)}

    def holds(self, thread: Thread) -> list[Record]:
        """The heaps whose locks the thread holds, how often, and how many threads wait."""
        return [
            {"heap": hex(lock.heap.address), "recursion": lock.section.recursion, "waiters": lock.section.waiters}
            for lock in self._locks
            if lock.section.owner == thread.id
        ]

    def words(self, thread: Thread) -> str:
        """`holds heap 0x10000`, `waits for heap 0x10000`; "" for neither."""
        held = [f"holds heap {one['heap']}" for one in self.holds(thread)]
        waited = self.waits_for(thread)
        return ", ".join([*held, *([f"waits for heap {waited['heap']}"] if waited else [])])


def lock_record(lock: HeapLock | None) -> Record | None:
    """The JSON record of a heap's lock; None where the heap has none, or the dump lacks it."""
    if lock is None:
        return None
    section = lock.section
    return {
        "owner": section.owner,
        "owner_exists": lock.owner_exists,
        "waiters": section.waiters,
        "recursion": section.recursion,
        "waiting": list(lock.waiting),
    }


def lock_words(lock: HeapLock | None) -> str:
    """`0x2d8c, 2 wait`, `0x2d8c ended, 1 waits`; "" while nobody owns the lock."""
    if lock is None or lock.section.owner is None:
        return ""
    ended = " ended" if lock.is_orphaned else ""
    waiters = lock.section.waiters
    return f"{lock.section.owner:#x}{ended}" + (f", {waiters:,} wait{'s' if waiters == 1 else ''}" if waiters else "")


def lock_sentence(lock: HeapLock) -> str:
    """`heap 0x10000 is locked by thread 0x2d8c (entered once); 2 threads wait for it`."""
    section = lock.section
    owner = f"heap {lock.heap.address:#x} is locked by thread {section.owner:#x} (entered {_times(section.recursion)})"
    ended = ", which no longer exists: orphaned (TerminateThread?)" if lock.is_orphaned else ""
    waiters = f"{text.plural(section.waiters, 'thread')} {'waits' if section.waiters == 1 else 'wait'} for it"
    named = ", ".join(f"{thread:#x}" for thread in lock.waiting)
    return f"{owner}{ended}; {waiters}{f' ({named})' if named else ''}"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


def hang_lines(snapshot: Snapshot, hang: Hang, frames: Sequence[StackFrame]) -> list[str]:
    """The hang in sentences: the lock, the chain of waits, the frames of the owner, other locks that hang."""
    lines = [lock_sentence(hang.lock)]
    lines += [_wait_words(snapshot, wait) for wait in hang.chain]
    if hang.is_deadlock:
        lines.append("deadlock: none of them can go on")
    elif not hang.lock.is_orphaned and frames:
        lines.append(f"thread {hang.lock.section.owner:#x} is at {_activity(frames)}")
    lines += [lock_sentence(other) for other in hang.others]
    return lines


def _wait_words(snapshot: Snapshot, wait: Wait) -> str:
    where = snapshot.process.where(wait.section.address)
    what = f"heap {wait.heap.address:#x}" if wait.heap else f"the critical section {where}"
    return f"thread {wait.thread:#x} waits for {what}, held by thread {wait.section.owner:#x}"


def _activity(frames: Sequence[StackFrame]) -> str:
    """The innermost frame, and the first frame outside the allocator's modules."""
    from heapdump.analyses.allocated.stack_keys import passes_on

    folds = passes_on(())
    first = frames[0].frame
    caller = next((found.frame for found in frames if not folds(found.frame)), None)
    return str(first) + (f", called by {caller}" if caller is not None and caller != first else "")


def hang_record(snapshot: Snapshot, hang: Hang | None, frames: Sequence[StackFrame]) -> Record | None:
    """The JSON record of a hang. `waiters`: ids of the threads that wait; their number where not all were found."""
    if hang is None:
        return None
    section = hang.lock.section
    return {
        "heap": hex(hang.lock.heap.address),
        "owner": section.owner,
        "owner_exists": hang.lock.owner_exists,
        "recursion": section.recursion,
        "waiters": list(hang.lock.waiting) if len(hang.lock.waiting) == section.waiters else section.waiters,
        "deadlock": hang.is_deadlock,
        "chain": [
            {
                "thread": wait.thread,
                "section": hex(wait.section.address),
                "heap": hex(wait.heap.address) if wait.heap else None,
                "owner": wait.section.owner,
            }
            for wait in hang.chain
        ],
        "frames": [stack_frame_record(found, args=False) for found in frames],
        "others": [{"heap": hex(other.heap.address)} | (lock_record(other) or {}) for other in hang.others],
        "text": "; ".join(hang_lines(snapshot, hang, frames)),
    }
