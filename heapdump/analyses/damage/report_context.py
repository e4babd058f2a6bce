"""The context in which reports of Windows are explained: process, heaps, blocks, and how to look deeper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from heapdump.analyses.blocks.locate import Located, locate
from heapdump.analyses.damage.crt_guards import FindCrtBlocks
from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import HeapKind
from heapdump.blocks.page_nodes import PageNodes
from heapdump.blocks.table import BlockTable
from heapdump.blocks.walk import Walk
from heapdump.process.model import Process
from heapdump.process.reports.asan_exception import exception_report
from heapdump.process.reports.asan_report import AsanReports, asan_reports
from heapdump.process.reports.asan_text import AsanReport
from heapdump.process.reports.failure_record import FailureRecord, find_failure
from heapdump.process.reports.verifier_stop import VerifierStop, find_stop

if TYPE_CHECKING:
    from heapdump.process.stacks.faulting import FaultingInstruction

_INSIDE_HEAP_BYTES = 0x2000
"""Bytes from the address of a segment heap in which its contexts lie."""


@dataclass(frozen=True)
class ReportContext:
    """The facts by which reports of Windows are explained.

    Attributes:
        process: the process.
        heaps: its heaps.
        walk: their blocks.
        nodes: gives the nodes of a page heap; None for other heaps.
        find_crt: gives the CRT debug blocks among rows of the block table.
        is_checked_by: (entry, own, other) → True where the checksum of the header at `entry`, a block of heap `own`,
            holds under the key of heap `other` alone.
        failure: ntdll's failure record; None without one.
        stop: the verifier stop; None without one.
        instruction: the instruction that failed; None where it is not known.
    """

    process: Process
    heaps: Sequence[Heap]
    walk: Walk
    nodes: Callable[[Heap], PageNodes | None]
    find_crt: FindCrtBlocks
    is_checked_by: Callable[[int, Heap, Heap], bool]
    failure: FailureRecord | None
    stop: VerifierStop | None
    instruction: FaultingInstruction | None

    @cached_property
    def handed_report(self) -> AsanReport | None:
        """The report that AddressSanitizer's exception hands over; None without one."""
        return exception_report(self.process)

    @cached_property
    def asan_reports(self) -> AsanReports:
        """AddressSanitizer's reports in memory, which is searched only where its runtime was in the process."""
        is_there = any(heap.kind == "asan" for heap in self.heaps) or self.handed_report is not None
        if is_there or any(module.name.lower().startswith("clang_rt.asan") for module in self.process.modules):
            return asan_reports(self.process)
        return AsanReports((), None)

    @property
    def table(self) -> BlockTable:
        """Every block of every heap."""
        return self.walk.table

    def locate(self, address: int) -> Located:
        """The block at an address."""
        return locate(self.table, self.process.space, address)

    def heap_at(self, address: int) -> Heap | None:
        """The heap with that address, or the segment heap whose context lies there; None without one."""
        exact = next((heap for heap in self.heaps if heap.address == address), None)
        if exact is not None:
            return exact
        near = (
            heap
            for heap in self.heaps
            if heap.kind == HeapKind.SEGMENT and 0 < address - heap.address < _INSIDE_HEAP_BYTES
        )
        return next(near, None)


def report_context(
    process: Process,
    heaps: Sequence[Heap],
    walk: Walk,
    nodes: Callable[[Heap], PageNodes | None],
    find_crt: FindCrtBlocks,
    is_checked_by: Callable[[int, Heap, Heap], bool],
) -> ReportContext:
    """The context with what Windows and the processor left in the process; see `ReportContext`."""
    failure = find_failure(process, [heap.address for heap in heaps])
    stop = find_stop(process)
    return ReportContext(process, heaps, walk, nodes, find_crt, is_checked_by, failure, stop, _instruction(process))


def _instruction(process: Process) -> FaultingInstruction | None:
    """The instruction at the exception; None without an exception, and then no code for instructions is loaded."""
    if process.exception is None:
        return None
    from heapdump.process.stacks.faulting import faulting_instruction

    return faulting_instruction(process)
