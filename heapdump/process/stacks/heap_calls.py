"""Threads inside ntdll's heap functions at the moment of the dump: the heap they change may be inconsistent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile

from heapdump.process.model import Process, Thread, View
from heapdump.process.stacks.frames import How, thread_frames
from heapdump.process.symbols.namer import Namer

_NTDLL = "ntdll.dll"
_CHANGES = re.compile(r"Rtl(Allocate|ReAllocate|Free|Create|Destroy|Compact|MultipleAllocate|MultipleFree)Heap")


def inside_heap_functions(process: Process, view: View) -> Iterator[tuple[Thread, str]]:
    """(thread, exported function that changes a heap) for threads whose innermost frames, up to it, all lie in ntdll.

    The heap that the function changes is not known. Functions that ntdll does not export may lie between.
    """
    namer = Namer(process)
    for thread in process.threads:
        inner = takewhile(
            lambda found: (found.frame.module or "").lower() == _NTDLL and found.how is not How.SCAN,
            thread_frames(process, thread, view, namer),
        )
        name = next(
            (found.frame.symbol for found in inner if found.frame.symbol and _CHANGES.fullmatch(found.frame.symbol)),
            None,
        )
        if name:
            yield thread, name
