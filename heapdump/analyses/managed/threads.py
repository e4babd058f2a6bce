"""The managed frames of threads."""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.analyses.threads import all_stacks
from heapdump.process.model import Process, Thread
from heapdump.process.stacks.frames import How, StackFrame
from heapdump.process.symbols.namer import Namer


@dataclass(frozen=True, slots=True)
class ManagedThread:
    """A thread that runs managed code, and its frames there, innermost first."""

    thread: Thread
    frames: tuple[StackFrame, ...]


def managed_threads(process: Process, namer: Namer) -> list[ManagedThread]:
    """The threads with a frame in jitted or precompiled code."""
    out = []
    for index, stacks in all_stacks(process, process.threads, namer).items():
        frames = tuple(one for stack in stacks for one in stack.frames if _is_managed(one, namer))
        if frames:
            out.append(ManagedThread(process.threads[index], frames))
    return out


def _is_managed(found: StackFrame, namer: Namer) -> bool:
    return namer.code.holds(found.frame.address - (found.how is not How.CONTEXT))
