"""Verifier stops: the report with which Application Verifier ended the process (heap-structures.md §7.2).

verifier.dll raises an exception with six parameters: the word 'AVr2', the stop code, and what the code says four more
are. On a real machine the exception stream holds it; where the dump was taken later, as the process terminated itself,
the record still lies on the thread's stack (recorded dumps of 19041).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heapdump.process.model import Process, Thread
from heapdump.spans import Span

STOP = 0xC0000421
BREAKPOINTS = (0x80000003, 0x4000001F)
"""That of native code, and STATUS_WX86_BREAKPOINT: the one of a 32-bit process on a 64-bit Windows."""

_MAGIC = 0x32725641  # 'AVr2'
_PARAMETERS = 6
_HEAP_CODES = {
    0x1: "unclassified", 0x2: "access violation near a heap block", 0x3: "two threads inside a heap without a lock",
    0x4: "absurd request size", 0x5: "heap handle without a valid signature", 0x6: "block belongs to another heap",
    0x7: "block already freed", 0x8: "corrupted heap block", 0x9: "the process heap was destroyed",
    0xA: "exception inside heap code", 0xB: "exception while reading a block header",
    0xC: "exception while probing a block", 0xD: "block header changed after free",
    0xE: "freed block changed", 0xF: "bytes behind the block changed", 0x10: "start stamp changed",
    0x11: "end stamp changed", 0x12: "bytes before the block changed", 0x13: "first-chance access violation",
    0x14: "heap list is inconsistent",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class VerifierStop:
    """A stop: its code, four parameters, the thread that hit it; `witness` says where it was read."""

    code: int
    parameters: tuple[int, int, int, int]
    thread_id: int
    witness: str

    @property
    def words(self) -> str:
        """The meaning of the code."""
        return _HEAP_CODES.get(self.code, "stop of another layer")

    @property
    def block(self) -> int | None:
        """The block of a heap stop: its user address or its page-heap node; None for stops without a block."""
        return self.parameters[1] or None if 6 <= self.code <= 8 or 0xB <= self.code <= 0x12 else None


def find_stop(process: Process) -> VerifierStop | None:
    """The stop in the exception stream, else the newest one on the stack of the thread that failed."""
    raised = process.exception
    if raised is None or raised.code not in (STOP, *BREAKPOINTS):
        return None
    if raised.code == STOP and len(raised.parameters) >= _PARAMETERS and raised.parameters[0] == _MAGIC:
        code, *rest = raised.parameters[1:_PARAMETERS]
        return VerifierStop(code, _parameters(rest), raised.thread_id, "the exception's parameters")
    thread = next((thread for thread in process.threads if thread.id == raised.thread_id), None)
    return _on_stack(process, thread) if thread is not None else None


def _on_stack(process: Process, thread: Thread) -> VerifierStop | None:
    """An EXCEPTION_RECORD of a stop on the stack; the deepest one is the newest.

    Its members: code u32, flags u32, record, address, number of parameters u32 (and padding on x64), parameters.
    """
    for stack in thread.stacks:
        view = next(view for view in process.views if view.arch == stack.view)
        pointer = view.pointer_bytes
        for base, words in view.space.mapped.words(Span(stack.limit, stack.base), view.pointer_bytes):
            for i in np.flatnonzero(words == _MAGIC).tolist():
                at = base + i * pointer
                record = at - (0x20 if pointer == 8 else 0x14)
                if view.space.try_integer(record, 4) != STOP or view.space.try_integer(at - pointer, 4) != _PARAMETERS:
                    continue
                values = [view.space.try_pointer(at + k * pointer) for k in range(1, _PARAMETERS)]
                code, *rest = (value or 0 for value in values)
                return VerifierStop(
                    code, _parameters(rest), thread.id, f"the exception record at {record:#x} on its stack"
                )
    return None


def _parameters(values: list[int]) -> tuple[int, int, int, int]:
    first, second, third, fourth = values
    return first, second, third, fourth
