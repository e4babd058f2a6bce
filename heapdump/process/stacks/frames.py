"""Call stacks of threads: by unwind data (x64), by the frame pointer chain (x86), else by a scan of the stack."""

from __future__ import annotations

from collections.abc import Iterator

from heapdump.process.model import Process, Thread, View
from heapdump.process.stacks.registers import Registers, read_context
from heapdump.process.stacks.stack_walk import How, StackEnd, StackFrame, StackWalk, ThreadStack
from heapdump.process.symbols.namer import Namer

__all__ = ["How", "StackEnd", "StackFrame", "ThreadStack", "crashed_frames", "thread_frames", "thread_stack"]


def thread_stack(process: Process, thread: Thread, view: View, namer: Namer) -> ThreadStack:
    """The frames of a thread in one view and their end; of the crashed thread from the exception's registers on."""
    registers = thread.registers32 if view.arch == "x86" and thread.registers32 else thread.registers
    if process.exception is not None and process.exception.thread_id == thread.id:
        registers = exception_registers(process, view) or registers
    if registers is None or registers.arch != view.arch:
        return ThreadStack((), StackEnd.REGISTERS)
    stack = next((stack for stack in thread.stacks if stack.view == view.arch), None)
    return StackWalk(process, view, namer, stack, registers).run()


def thread_frames(process: Process, thread: Thread, view: View, namer: Namer) -> list[StackFrame]:
    """The frames of a thread in one view, innermost first; an empty list without registers of that view."""
    return list(thread_stack(process, thread, view, namer).frames)


def crashed_frames(process: Process, namer: Namer) -> list[StackFrame]:
    """The frames of the thread that raised the exception, from where it did; empty without an exception."""
    raised = process.exception
    thread = next((thread for thread in process.threads if raised and thread.id == raised.thread_id), None)
    if thread is None:
        return []
    stacks: Iterator[list[StackFrame]] = (
        thread_frames(process, thread, view, namer) for view in reversed(process.views)
    )
    return next((frames for frames in stacks if frames), [])


def exception_registers(process: Process, view: View) -> Registers | None:
    """The registers at the exception, as this view has them; None where they were not recorded."""
    found = read_context(process.exception.context) if process.exception else None
    return found if found is not None and found.arch == view.arch else None
