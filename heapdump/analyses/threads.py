"""The call stacks of all threads, and of one."""

from __future__ import annotations

from collections.abc import Sequence

from heapdump.process.model import Process, Thread
from heapdump.process.stacks.frames import StackFrame, ThreadStack, thread_frames, thread_stack
from heapdump.process.symbols.namer import Namer


def all_stacks(process: Process, threads: Sequence[Thread], namer: Namer) -> dict[int, list[ThreadStack]]:
    """Thread index → its stacks; under WOW64 the 32-bit one, then the 64-bit one."""
    return {
        thread.index: [thread_stack(process, thread, view, namer) for view in reversed(process.views)]
        for thread in threads
    }


def frames_of_thread(process: Process, thread: int, namer: Namer) -> list[StackFrame]:
    """The frames of the thread with this id, innermost first, of the first view that has some."""
    found = next((one for one in process.threads if one.id == thread), None)
    stacks = (thread_frames(process, found, view, namer) for view in reversed(process.views)) if found else ()
    return next((frames for frames in stacks if frames), [])
