"""The call stacks of all threads."""

from __future__ import annotations

from heapdump.process.model import Process
from heapdump.process.stacks.frames import ThreadStack, thread_stack
from heapdump.process.symbols.namer import Namer


def all_stacks(process: Process, namer: Namer) -> dict[int, list[ThreadStack]]:
    """Thread index → its stacks; under WOW64 the 32-bit one, then the 64-bit one."""
    return {
        thread.index: [thread_stack(process, thread, view, namer) for view in reversed(process.views)]
        for thread in process.threads
    }
