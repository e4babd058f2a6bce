"""The call stacks of all threads."""

from __future__ import annotations

from heapdump.process.model import Process
from heapdump.process.stacks.frames import StackFrame, thread_frames
from heapdump.process.symbols.namer import Namer


def all_frames(process: Process, namer: Namer) -> dict[int, list[StackFrame]]:
    """Thread index → its frames, innermost first; under WOW64 those of the 32-bit stack, then of the 64-bit one."""
    return {
        thread.index: [
            found for view in reversed(process.views) for found in thread_frames(process, thread, view, namer)
        ]
        for thread in process.threads
    }
