"""Threads inside ntdll's heap functions at the moment of the dump: the heap they change may be inconsistent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from heapdump.process.model import Process, Thread, View
from heapdump.process.stacks.frames import How, StackFrame, thread_frames
from heapdump.process.symbols.namer import Namer

_NTDLL = "ntdll.dll"
_ARGUMENT_BYTES, _MOST_BYTES = 0x100, 0x4000
"""Bytes of the stack from a frame on that hold its arguments, or saved copies; the most that are read of one thread."""

_CHANGES = re.compile(r"Rtl(Allocate|ReAllocate|Free|Create|Destroy|Compact|MultipleAllocate|MultipleFree)Heap")


@dataclass(frozen=True, slots=True)
class HeapCall:
    """A thread inside an exported function that changes a heap.

    Attributes:
        thread: the thread.
        function: name of the function.
        words: values of its registers, and of the words in its innermost frames.
    """

    thread: Thread
    function: str
    words: frozenset[int]


def inside_heap_functions(process: Process, view: View) -> Iterator[HeapCall]:
    """Threads whose innermost frames, up to that of such a function, all lie in ntdll.

    Functions that ntdll does not export may lie between. A thread that raised the exception of the dump is none: it
    stopped at damage.
    """
    namer = Namer(process)
    raised = process.exception.thread_id if process.exception else None
    for thread in process.threads:
        if thread.id == raised:
            continue
        inner = takewhile(
            lambda found: (found.frame.module or "").lower() == _NTDLL and found.how is not How.SCAN,
            thread_frames(process, thread, view, namer),
        )
        found = next((one for one in inner if one.frame.symbol and _CHANGES.fullmatch(one.frame.symbol)), None)
        if found is not None and found.frame.symbol:
            yield HeapCall(thread, found.frame.symbol, _words(thread, view, found))


def _words(thread: Thread, view: View, frame: StackFrame) -> frozenset[int]:
    """The registers of the thread and the words of its stack, up to the arguments of the frame."""
    registers = thread.registers32 if view.arch == "x86" and thread.registers32 else thread.registers
    if registers is None:
        return frozenset()
    pointer, start = view.pointer_bytes, registers.sp
    end = min(frame.sp + _ARGUMENT_BYTES, start + _MOST_BYTES)
    words = (view.space.try_pointer(at) for at in range(start, end, pointer))
    return frozenset({*registers.values.values(), *(word for word in words if word is not None)})
