"""Verifier stops: the report with which Application Verifier ended the process (heap-structures.md §7.2).

verifier.dll raises an exception with six parameters: the word 'AVr2', the stop code, and what the code says four more
are. On a real machine the exception stream holds it; where the dump was taken later, as the process terminated itself,
the record still lies on the thread's stack (recorded dumps of 19041).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heapdump.process.model import Process, Thread
from heapdump.process.reports.stop_codes import LEAKED_BLOCK, STOP_TITLES, parameter_names, stop_words
from heapdump.spans import Span

STOP = 0xC0000421
BREAKPOINTS = (0x80000003, 0x4000001F)
"""That of native code, and STATUS_WX86_BREAKPOINT: the one of a 32-bit process on a 64-bit Windows."""

_MAGIC = 0x32725641  # 'AVr2'
_PARAMETERS = 6
_SAID_BY_TITLE = (0x7, 0x8, 0x13)
"""Stops whose meaning is Microsoft's text."""


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
        return stop_words(self.code)

    @property
    def title(self) -> str | None:
        """Microsoft's text of the code, as far as it is known here."""
        return STOP_TITLES.get(self.code)

    @property
    def sentence(self) -> str:
        """The stop with Microsoft's text and the meaning of the code; one of them where both say the same."""
        words = [self.title] if self.title else []
        words += [self.words] if self.code not in _SAID_BY_TITLE else []
        return f"Application Verifier stop {self.code:#x} ({': '.join(words)})"

    @property
    def block(self) -> int | None:
        """The block of a stop: its user address or its page-heap node; None for stops without a block."""
        if self.code == LEAKED_BLOCK:
            return self.parameters[0] or None
        return self.parameters[1] or None if 6 <= self.code <= 8 or 0xB <= self.code <= 0x12 else None

    @property
    def parameter_words(self) -> str:
        """`heap 0x1000, block 0x2000, block size 0x79`; parameters without a meaning are left out where they are 0."""
        named = zip(parameter_names(self.code), self.parameters, strict=True)
        return ", ".join(f"{name} {value:#x}".strip() for name, value in named if name or value)


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
