"""Encodes an NT heap of Windows Vista and later: header, segments, entries, lists.

In: a `HeapPlan`. Out: bytes in a `MemoryImage`. All layouts are restated by hand on purpose; nothing of the
tool under test is imported.
"""

from __future__ import annotations

import random
import struct

import numpy as np

from .memory_image import PAGE, MemoryImage
from .nt_heap_layout import HeapLayout
from .nt_heap_records import Entry, HeapPlan, LargeBlock, Segment

ENCODE_MASK = 0x100000


class ModernHeapEncoder:
    """Writes one heap of build 6000 or later."""

    def __init__(self, plan: HeapPlan, layout: HeapLayout, image: MemoryImage) -> None:
        """Prepare; the encoding word comes from the plan's seed."""
        self.plan = plan
        self.layout = layout
        self.image = image
        random_words = random.Random(plan.seed * 1_000_003 + plan.base)
        self._key = (random_words.getrandbits(32) | ENCODE_MASK) if plan.encoded else 0
        self._previous_key = random_words.getrandbits(16) if plan.encoded else 0
        self._routine_key = random_words.getrandbits(8 * layout.pointer - 4)
        x64 = layout.pointer == 8
        self._list_entry = 0x18 if x64 else 0x10  # _HEAP_SEGMENT.SegmentListEntry
        self._ucr_list = 0x60 if x64 else 0x38  # _HEAP_SEGMENT.UCRSegmentList

    def encode(self) -> None:
        """Write everything into the image, whose runs are committed already."""
        for segment in self.plan.segments:
            self._segment(segment)
            for entry, previous in segment.entries():
                self._entry(segment, entry, previous)
        self._ranges()
        self._header()
        self._lists()
        for block in self.plan.large:
            self._large(block)

    def _code(self, units: int, flags: int, previous: int, offset: int, unused: int) -> bytes:
        """The eight meaningful header bytes, checksummed and encoded."""
        checksum = (units & 0xFF) ^ (units >> 8) ^ flags if self.plan.encoded else 0
        first = (units | flags << 16 | checksum << 24) ^ self._key
        return struct.pack("<IHBB", first, previous ^ self._previous_key, offset, unused)

    def _entry(self, segment: Segment, entry: Entry, previous: int) -> None:
        granule = self.layout.granule
        if entry.many is not None:
            self._many(segment, entry, previous)
            return
        flags, unused = {
            "header": (1, 1),
            "busy": (1, 0x42 if entry.trace else entry.units * granule - entry.requested),
            "internal": (9, entry.units * granule - entry.requested),
            "free": (0, 0),
            "ucr": (1, 3),
        }[entry.kind]
        if unused >= 0x3F and not entry.trace:  # the count stands at the end, on x64 in the granule behind
            place = entry.address + entry.units * granule - (4 if self.layout.pointer == 4 else 0)
            self.image.word(place, unused)
            unused = 0x3F
        offset = 0 if segment.base == self.plan.base else (entry.address >> 16) - (segment.base >> 16) + 1
        code = self._code(entry.units, flags, previous, offset, unused)
        if entry.stopped == "plain":  # bits 0-31 as they are, the checksum not there yet
            code = struct.pack("<I", entry.units | flags << 16) + code[4:]
        if entry.stopped != "unwritten":
            self.image.write(entry.address + self.layout.code, code)
        user = entry.address + granule
        if entry.trace:
            self.image.word(user, entry.trace)
            whole = entry.units * granule - entry.requested
            self.image.write(user + granule + self.layout.code, struct.pack("<IHBB", 1, whole, 2, 5))
            user += 2 * granule
        if entry.content:
            self.image.write(user, entry.content)

    def _many(self, segment: Segment, entry: Entry, previous: int) -> None:
        """The headers of many busy entries at once, as in `_code`."""
        assert entry.many is not None
        granule = self.layout.granule
        units, sizes = entry.many
        unused = units * granule - sizes
        if unused.max() >= 0x3F or unused.min() < 4:
            raise ValueError("these sizes have no short count of unused bytes")
        address = entry.address + (np.cumsum(units) - units) * granule
        before = np.concatenate([[previous], units[:-1]])
        checksum = (units & 0xFF) ^ (units >> 8) ^ 1 if self.plan.encoded else 0
        first = (units | 1 << 16 | checksum << 24) ^ self._key
        offset = 0 if segment.base == self.plan.base else (address >> 16) - (segment.base >> 16) + 1
        code = first | (before ^ self._previous_key) << 32 | offset << 48 | unused << 56
        self.image.scatter(address + self.layout.code, code)

    def _segment(self, segment: Segment) -> None:
        image, base, p = self.image, segment.base, self.layout.pointer
        guarded = segment.end < segment.base + segment.reserve
        image.u32(base + 2 * p, 0xFFEEFFEE, 2 if guarded else 0)
        body = base + 2 * p + 8 + 2 * p  # behind SegmentListEntry
        image.word(body, self.plan.base, base)
        image.u32(body + 2 * p, (segment.end - base) // PAGE)
        first = segment.runs[0].entries[0]
        image.word(body + 2 * p + p, base + first.units * self.layout.granule, segment.end)
        image.u32(body + 5 * p, segment.uncommitted // PAGE, len(segment.runs))

    def _ranges(self) -> None:
        """UCR descriptors, linked per segment and, when not empty, in the heap's list."""
        p, granule = self.layout.pointer, self.layout.granule
        of_heap: list[int] = []
        for segment in self.plan.segments:
            of_segment: list[int] = []
            for run in segment.runs:
                descriptor = run.entries[-1].address + granule
                self.image.word(descriptor + 4 * p, run.end, run.hole)
                of_segment.append(descriptor + 2 * p)
                if run.hole:
                    of_heap.append(descriptor)
            self.image.ring(segment.base + self._ucr_list, of_segment)
        self.image.ring(self.plan.base + self.layout.ucr_list, of_heap)

    def _header(self) -> None:
        image, at, base = self.image, self.layout, self.plan.base
        image.u32(base + at.flags, self.plan.flags, self.plan.flags & 0x6001007D)
        if self.plan.encoded:
            image.u32(base + at.encode_mask, ENCODE_MASK)
            image.write(base + at.encoding + at.code, struct.pack("<IH", self._key, self._previous_key))
        if at.pointer_key:
            image.word(base + at.pointer_key, self._routine_key)
        x64 = at.pointer == 8
        image.u32(base + at.threshold, 0xFF00 if x64 else 0xFE00)
        image.u32(base + at.signature, 0xEEFFEEFF)
        free_units = sum(entry.units for entry in self.plan.entries("free"))
        top = 0x7FFDEFFF if not x64 else (0x7FFFFFFDEFFF if self.plan.build >= 9600 else 0x7FFFFFDEFFF)
        # SegmentReserve, SegmentCommit, two decommit thresholds, TotalFreeSize, MaximumAllocationSize
        image.word(base + at.segment_reserve, 0x400000, 0x2000, 0x100, 0x1000, free_units, top)
        image.u16(base + at.list_index, self.plan.index + 1)
        image.u16(base + at.header_length, at.size)
        image.word(base + at.align_round, 2 * at.granule - 1, (1 << 8 * at.pointer) - at.granule)
        image.word(base + at.lock + at.pointer, self._routine_key)
        if self.plan.front_end_entry:
            image.word(base + at.front_end, self.plan.front_end_entry.address + at.granule)
        image.u8(base + at.front_end_type, self.plan.front_end_type)
        self._counters()

    def _counters(self) -> None:
        image, at, plan = self.image, self.layout, self.plan
        counters = plan.base + at.counters
        reserved = sum(s.end - s.base for s in plan.segments)
        uncommitted = sum(s.uncommitted for s in plan.segments)
        threshold = (0xFF00 if at.pointer == 8 else 0xFE00) * at.granule
        large_holes = sum(b - a for s in plan.segments for a, b in s.holes if b - a >= threshold)
        virtual = sum(block.commit for block in plan.large)
        image.word(counters, reserved, reserved - uncommitted, large_holes, virtual)
        count = counters + 4 * at.pointer
        image.u32(count, len(plan.segments), sum(len(s.runs) for s in plan.segments))
        image.u32(count + 0x14, plan.lock_collisions)

    def _lists(self) -> None:
        image, at, base = self.image, self.layout, self.plan.base
        image.ring(base + at.segment_list, [s.base + self._list_entry for s in self.plan.segments])
        image.ring(base + at.virtual_blocks, [block.node for block in self.plan.large])
        frees = sorted(self.plan.entries("free"), key=lambda e: (e.units, e.address))
        image.ring(base + at.free_lists, [e.address + at.granule for e in frees])
        lookup = base + at.size
        if not self.plan.flags & 1:  # serialised: a critical section behind the header
            image.word(base + at.lock, lookup)
            image.word(lookup, (1 << 8 * at.pointer) - 1)  # no debug information
            image.u32(lookup + at.pointer, 0xFFFFFFFE if self.plan.lock_owner else 0xFFFFFFFF, 1)
            image.word(lookup + at.pointer + 8, self.plan.lock_owner)
            image.word(lookup + (0x20 if at.pointer == 8 else 0x14), 0x20007D0)  # SpinCount
            lookup += 0x28 if at.pointer == 8 else 0x18
        image.word(base + at.blocks_index, lookup)
        self._lookup(lookup, frees)

    def _lookup(self, lookup: int, frees: list[Entry]) -> None:
        """The _HEAP_LIST_LOOKUP of the 128 smallest sizes; index 127 stands for everything larger."""
        image, p = self.image, self.layout.pointer
        extra = 1 if self.plan.build < 9200 else 0
        in_use = lookup + (0x38 if p == 8 else 0x24)
        hints = in_use + 16
        image.word(lookup, 0)
        out_of_range = sum(1 for e in frees if e.units >= 0x7F)
        image.u32(lookup + p, 0x80, extra, len(frees), out_of_range, 0)
        pointers = lookup + (0x20 if p == 8 else 0x18)
        image.word(pointers, self.plan.base + self.layout.free_lists, in_use, hints)
        bits = 0
        for entry in reversed(frees):
            index = min(entry.units, 0x7F)
            bits |= 1 << index
            image.word(hints + index * (1 + extra) * p, entry.address + self.layout.granule)
        image.write(in_use, bits.to_bytes(16, "little"))

    def _large(self, block: LargeBlock) -> None:
        p = self.layout.pointer
        self.image.word(block.node + 4 * p, block.commit, block.reserve)
        busy = block.node + 6 * p
        unused = block.commit - block.size
        code = bytearray(self._code(unused, 3, 0, 2 if block.trace else 0, 4))
        code[4:6] = b"\0\0"  # seen on 7601 to 19041: PreviousSize of these is not encoded
        self.image.write(busy + self.layout.code, bytes(code))
        if block.trace:
            self.image.word(block.node + 8 * p, block.trace)
            second = struct.pack("<IHBB", 1, min(unused, 0xFFFF), 2, 5)
            self.image.write(block.user(p) - 8, second)


def header_units(layout: HeapLayout, build: int, flags: int) -> int:
    """Granules of a heap's first entry: header, critical section, list lookup, bitmap and hints."""
    x64 = layout.pointer == 8
    size = layout.size + (0x38 if x64 else 0x24) + 16
    size += 128 * layout.pointer * (2 if build < 9200 else 1) + 4
    if not flags & 1:
        size += 0x28 if x64 else 0x18
    return -(-size // layout.granule)
