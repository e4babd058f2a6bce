"""Contexts that the functions of this package share: one NT heap to read, and one that is being walked."""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.heap import Heap
from heapdump.heaps.jobs import WalkLog
from heapdump.heaps.nt.entry_format import EntryFormat, entry_format_of
from heapdump.heaps.nt.segment_map import NtSegmentMap
from heapdump.layouts import Layout
from heapdump.memory.space import AddressSpace
from heapdump.process.model import View


@dataclass(frozen=True, slots=True)
class HeapContext:
    """One NT heap to read.

    Attributes:
        view: the 64-bit or 32-bit half of the process that it lies in.
        heap: its record.
        entry_format: layout and encoding of its entry headers.
        segments: finds its segments by address.
    """

    view: View
    heap: Heap
    entry_format: EntryFormat
    segments: NtSegmentMap

    @property
    def address(self) -> int:
        """The address of the heap."""
        return self.heap.address

    @property
    def name(self) -> str:
        """The beginning of messages about the heap: `heap 0x…`."""
        return f"heap {self.heap.address:#x}"

    @property
    def space(self) -> AddressSpace:
        """The memory of the view."""
        return self.view.space

    @property
    def layout(self) -> Layout:
        """The layout that verified for the heap."""
        return self.entry_format.layout

    def header_word(self, entry: int) -> int | None:
        """The header word of an entry before decoding, 64 bits unsigned; None where it is not in the dump."""
        return self.view.space.try_integer(entry + self.entry_format.word_offset, 8)

    def heap_pointer(self, member: str) -> int:
        """The pointer in this member of _HEAP; 0 where it is not in the dump."""
        return self.view.space.try_pointer(self.heap.address + self.layout["_HEAP"].offset(member)) or 0


@dataclass(frozen=True, slots=True)
class WalkContext(HeapContext):
    """One NT heap that is being walked.

    Attributes:
        columns: gets its rows.
        log: gets its findings, gaps and counts of headers.
    """

    columns: BlockColumns
    log: WalkLog


def heap_context(view: View, heap: Heap) -> HeapContext:
    """The context of a verified NT heap."""
    return HeapContext(view, heap, entry_format_of(view, heap), NtSegmentMap(heap.segments))
