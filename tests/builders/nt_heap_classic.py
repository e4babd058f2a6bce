"""Encodes an NT heap of Windows XP (2600, x86) and Server 2003 (3790): header, segments, entries, lists.

In: a `HeapPlan`. Out: bytes in a `MemoryImage`. All layouts are restated by hand on purpose; nothing of the
tool under test is imported.
"""

from __future__ import annotations

import struct

from .memory_image import PAGE, MemoryImage
from .nt_heap_layout import HeapLayout
from .nt_heap_records import Entry, HeapPlan, LargeBlock, Run, Segment

RANGE_SLOTS = 8
"""Descriptors of uncommitted ranges that lie behind the header; more of them have memory of their own."""


class ClassicHeapEncoder:
    """Writes one heap of build 2600 or 3790."""

    def __init__(self, plan: HeapPlan, layout: HeapLayout, image: MemoryImage) -> None:
        """Prepare; entries are never encoded in these builds."""
        self.plan = plan
        self.layout = layout
        self.image = image
        self._slot = 4 * layout.pointer  # one _HEAP_UNCOMMMTTED_RANGE

    def encode(self) -> None:
        """Write everything into the image, whose runs are committed already."""
        slots = [self.plan.base + self.layout.size + i * self._slot for i in range(RANGE_SLOTS)]
        for index, segment in enumerate(self.plan.segments):
            self._segment(index, segment, slots)
            for run in segment.runs:
                self._run(index, run)
        # the descriptors that are left over form a list of their own
        self.image.word(self.plan.base + self.layout.unused_ranges, slots[0] if slots else 0)
        for slot, following in zip(slots, [*slots[1:], 0], strict=False):
            self.image.word(slot, following)
        self._header()
        self._lists()
        for block in self.plan.large:
            self._large(block)

    def _run(self, index: int, run: Run) -> None:
        previous = 0
        for entry in run.entries:
            last = 0x10 if entry is run.entries[-1] else 0
            self._entry(index, entry, previous, last)
            previous = entry.units

    def _entry(self, index: int, entry: Entry, previous: int, last: int) -> None:
        granule = self.layout.granule
        flags = (0 if entry.kind == "free" else 1) | last
        unused = entry.units * granule - entry.requested if entry.kind in ("busy", "internal") else 0
        fresh = entry.kind == "header" or (entry.kind == "free" and last)
        cookie = 0 if fresh else entry.address // granule & 0xFF
        code = struct.pack("<HHBBBB", entry.units, previous, cookie, flags, unused, index)
        self.image.write(entry.address + self.layout.code, code)
        if entry.content:
            self.image.write(entry.address + granule, entry.content)

    def _segment(self, index: int, segment: Segment, slots: list[int]) -> None:
        image, p = self.image, self.layout.pointer
        header = segment.runs[0].entries[1 if index == 0 else 0]
        at = header.address
        first = at + header.units * self.layout.granule
        image.u32(at + 2 * p, 0xFFEEFFEE, 0)
        largest = max((end - start for start, end in segment.holes), default=0)
        image.word(at + 2 * p + 8, self.plan.base, largest, segment.base)
        rest = at + 5 * p + 8
        image.u32(rest, (segment.end - segment.base) // PAGE)
        image.word(rest + p, first, segment.end)
        image.u32(rest + 3 * p, segment.uncommitted // PAGE, len(segment.holes))
        if len(segment.holes) > len(slots):
            raise ValueError(f"more than {RANGE_SLOTS} uncommitted ranges in one heap are not built")
        used = [slots.pop(0) for _ in segment.holes]
        for slot, (start, end), following in zip(used, segment.holes, [*used[1:], 0], strict=False):
            image.word(slot, following, start, end - start)
        ranges = rest + 3 * p + 8
        image.word(ranges, used[0] if used else 0)
        image.word(ranges + 2 * p, segment.runs[-1].entries[-1].address)
        image.word(self.plan.base + self.layout.segments + index * p, at)

    def _header(self) -> None:
        image, at, base = self.image, self.layout, self.plan.base
        x64 = at.pointer == 8
        image.u32(base + at.signature, 0xEEFFEEFF, self.plan.flags, self.plan.flags & 0x6001007D)
        image.u32(base + at.threshold, 0xFF00 if x64 else 0xFE00)
        free_units = sum(entry.units for entry in self.plan.entries("free"))
        top = 0x7FFFFFDEFFF if x64 else 0x7FFDEFFF
        # SegmentReserve, SegmentCommit, two decommit thresholds, TotalFreeSize, MaximumAllocationSize
        image.word(base + at.segment_reserve, 0x100000, 0x2000, 0x200, 0x2000, free_units, top)
        image.u16(base + at.list_index, self.plan.index + 1)
        image.u16(base + at.header_length, at.size + RANGE_SLOTS * self._slot)
        image.word(base + at.align_round, 2 * at.granule - 1, (1 << 8 * at.pointer) - at.granule)
        if self.plan.front_end_entry:
            image.word(base + at.front_end, self.plan.front_end_entry.address + at.granule)
        image.u8(base + at.front_end_type, self.plan.front_end_type)
        image.u8(base + at.last_segment, len(self.plan.segments) - 1)
        if not self.plan.flags & 1:  # serialised: a critical section behind the range descriptors
            lock = base + at.size + RANGE_SLOTS * self._slot
            image.word(base + at.lock, lock)
            image.u32(lock + at.pointer, 0xFFFFFFFF)
            image.word(lock + (0x20 if x64 else 0x14), 0xFA0)  # SpinCount

    def _lists(self) -> None:
        image, at, base = self.image, self.layout, self.plan.base
        image.ring(base + at.virtual_blocks, [block.node for block in self.plan.large])
        lists: dict[int, list[Entry]] = {index: [] for index in range(128)}
        for entry in sorted(self.plan.entries("free"), key=lambda e: (e.units, e.address)):
            lists[entry.units if entry.units < 128 else 0].append(entry)
        bits = 0
        for index, entries in lists.items():
            head = base + at.free_lists + index * 2 * at.pointer
            image.ring(head, [e.address + at.granule for e in entries])
            bits |= bool(entries) << index
        image.write(base + at.lists_in_use, (bits & ~1).to_bytes(16, "little"))
        image.u32(base + at.dedicated_off_count, len(lists[0]))

    def _large(self, block: LargeBlock) -> None:
        p = self.layout.pointer
        self.image.word(block.node + 4 * p, block.commit, block.reserve)
        busy = block.node + 6 * p
        code = struct.pack("<HHBBBB", block.commit - block.size, 0, 0, 0x0B, 0, 0)
        self.image.write(busy + self.layout.code, code)


def header_units(layout: HeapLayout, flags: int) -> int:
    """Granules of a heap's first entry: header, range descriptors and critical section."""
    size = layout.size + RANGE_SLOTS * 4 * layout.pointer
    if not flags & 1:
        size += 0x38 if layout.pointer == 4 else 0x58
    return -(-size // layout.granule)
