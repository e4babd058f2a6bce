"""An NT heap as it lies in memory, from Windows XP to 11.

In: calls that append entries, uncommitted ranges, segments and large blocks. Out:
`BuiltHeap`, its memory, regions and truth. The layouts that the encoders use are restated by hand on purpose;
nothing of the tool under test is imported.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from . import nt_heap_classic, nt_heap_modern
from .memory_image import PAGE, MemoryImage
from .nt_heap_layout import HeapArch, heap_layout
from .nt_heap_lfh import LfhEncoder, LfhPlan, subsegment_truth
from .nt_heap_lfh_layout import lfh_layout
from .nt_heap_records import Entry, EntryKind, HeapPlan, LargeBlock, Run, Segment, Stopped
from .nt_heap_truth import BuiltHeap, BusyTruth, FreeTruth, FrontEnd, HeapTruth, LargeTruth, ManyTruth, Region

_UCR_UNITS = 4
_MAX_UNITS = 0xFE00
_GROWABLE = 2
_GUARDED_FROM = 9200
"""First build whose growable heaps end each reservation in a page that no segment counts."""


class NtHeapBuilder:
    """One heap in the making; entries are appended to the current segment in ascending order."""

    def __init__(
        self,
        *,
        arch: HeapArch = "x64",
        build: int = 19041,
        base: int,
        reserve: int = 0x100000,
        flags: int = 0x2,
        encoded: bool | None = None,
        seed: int = 0,
        index: int = 0,
        front_end: FrontEnd = "none",
        lock_collisions: int = 0,
        lfh_key: int = 0x5A31_7C15_9D0F_6B27,
    ) -> None:
        """Begin a heap at `base` whose first segment reserves `reserve` bytes.

        `flags` are the HEAP_ flags (class bits included); `encoded` None means as the build does it;
        `index` is the place in the process' list of heaps; `lfh_key` is RtlpLFHKey, one for all heaps of a view.

        Raises:
            ValueError: that build has no such architecture or front end.
        """
        self.arch: HeapArch = arch
        self._layout = heap_layout(arch, build)
        self._granule = self._layout.granule
        self._classic = build < 6000
        if front_end == "lookaside" and not self._classic:
            raise ValueError(f"front end {front_end!r} is not built for {build}")
        kind = {"none": 0, "lookaside": 1, "lfh": 2}[front_end]
        encode = (not self._classic) if encoded is None else encoded
        self._plan = HeapPlan(base, flags, build, seed, index, encode, None, kind, lock_collisions, lfh_key)
        self._front_end: FrontEnd = front_end
        self._built: BuiltHeap | None = None
        self._open_segment(base, reserve)
        self._lfh: LfhPlan | None = None
        if front_end != "none" and self._classic:
            self._plan.front_end_entry = self._lookasides()
        if front_end == "lfh":
            lfh = lfh_layout(arch, build)
            self._plan.front_end_entry = self._internal(lfh.context_bytes)
            self._lfh = LfhPlan(lfh, self._plan.front_end_entry)

    def busy(self, size: int, fill: bytes = b"", trace: int = 0, spare: int = 0) -> int:
        """Append a busy entry for a request of `size` bytes; returns the user pointer.

        `fill` goes to the start of the user area, the rest of which is zero. `trace`: the block gets a front
        prefix that points at this record of an allocation stack (from 6000 on). `spare`: granules that it has too many.
        """
        if len(fill) > size or (trace and self._classic):
            raise ValueError(f"a block of {size} bytes cannot have these {len(fill)} bytes, or no front prefix")
        prefix = 2 * self._granule if trace else 0
        entry = self._append("busy", self._units(size + prefix) + spare, size, bytes(fill))
        entry.trace = trace
        return entry.address + self._granule + prefix

    def many(self, sizes: NDArray[np.int64]) -> int:
        """Append busy entries for requests of `sizes` bytes, millions if need be; returns the first entry's address.

        Their truth is one `ManyTruth`. For builds from 6000 on and sizes that leave fewer than 63 bytes unused.
        """
        if self._classic:
            raise ValueError("many entries are built for Vista and later")
        units = np.maximum(2, (sizes + 8 + self._granule - 1) // self._granule)
        entry = self._append("many", int(units.sum()))
        entry.many = (units, sizes)
        return entry.address

    def free(self, units: int) -> int:
        """Append a free entry of `units` granules (2 or more); returns the entry's address."""
        if units < 2:
            raise ValueError("a free entry has at least 2 granules")
        return self._append("free", units).address

    def subsegment(self, units: int, asked: Sequence[int], *, trace: int = 0, spare: int = 0) -> int:
        """Append an LFH subsegment of a block of `units` granules for each of `asked`; returns its address.

        `asked`: requested bytes, -1 for a free block; `trace` as in `busy`, for all of them. `spare`: bytes of the user
        blocks behind the last block.

        Raises:
            ValueError: the heap has no LFH, or the blocks cannot hold that.
        """
        if self._lfh is None:
            raise ValueError("a heap without LFH has no subsegments")
        return self._lfh.add(self._internal, units, asked, trace, spare).address

    def uncommitted(self, size: int) -> None:
        """End the committed run on a page boundary and leave `size` bytes (whole pages) uncommitted."""
        if size <= 0 or size % PAGE:
            raise ValueError(f"0x{size:x} bytes are not whole pages")
        segment = self._plan.segments[-1]
        run = self._close_run()
        if run.end + size > segment.end:
            raise ValueError(f"the segment at 0x{segment.base:x} ends before the uncommitted range does")
        run.hole = size
        if run.end + size < segment.end:
            segment.runs.append(Run(run.end + size))
        self._at = run.end + size

    def segment(self, base: int, reserve: int) -> None:
        """Close the current segment and begin another one of `reserve` bytes at `base`."""
        self._close_segment()
        self._open_segment(base, reserve)

    def stop_at(self, address: int, header: Stopped, owner: int) -> None:
        """The dump is taken while thread `owner` holds the lock of the heap and works on the entry at `address`.

        `header`: plain, as ntdll decodes it in place, or not written yet (from 6000 on).
        """
        entry = next(e for s in self._plan.segments for e, _previous in s.entries() if e.address == address)
        entry.stopped, self._plan.lock_owner = header, owner

    def virtual(self, node: int, size: int, *, reserve: int | None = None, fill: bytes = b"", trace: int = 0) -> int:
        """Add a large block whose list entry is at `node` (page aligned); returns the user pointer.

        `reserve` counts from the 64 KiB boundary at or below `node`, as Windows 8 and later place such blocks
        a few pages into their reservation. `fill` goes to the start of the user area; `trace` as in `busy`.
        """
        if trace and self._classic:
            raise ValueError("no front prefix before Vista")
        header = (12 if trace else 8) * self._layout.pointer
        commit = -(-(size + header) // PAGE) * PAGE
        lead = node & 0xFFFF
        least = lead + commit
        wanted = least + (PAGE if self._plan.build >= _GUARDED_FROM else 0) if reserve is None else reserve
        if node % PAGE or wanted < least or len(fill) > size:
            raise ValueError(f"large block at 0x{node:x}: bad place, reservation or content")
        self._plan.large.append(LargeBlock(node, size, commit, wanted, bytes(fill), trace))
        return node + header

    def build(self) -> BuiltHeap:
        """Close the last segment and return the heap; later calls return the same."""
        if self._built is None:
            self._close_segment()
            self._built = self._encode()
        return self._built

    def _units(self, size: int) -> int:
        """Granules of an entry for `size` bytes; x64 user areas reach 8 bytes into the next header."""
        return max(2, (size + 8 + self._granule - 1) // self._granule)

    def _internal(self, size: int) -> Entry:
        """Append an entry of the heap's own."""
        return self._append("internal", self._units(size), size)

    def _lookasides(self) -> Entry:
        """The lookaside lists before Vista, none of which holds a block; they stay when the LFH replaces them."""
        size = 0x30 if self.arch == "x86" else 0x40  # _HEAP_LOOKASIDE
        record = bytes(2 * self._layout.pointer) + struct.pack("<HH", 4, 0x100)  # Depth, MaximumDepth
        entry = self._internal(128 * size)
        entry.content = 128 * record.ljust(size, b"\0")
        return entry

    def _open_segment(self, base: int, reserve: int) -> None:
        if base % 0x10000 or reserve % PAGE:
            raise ValueError(f"a segment cannot lie at 0x{base:x} and have 0x{reserve:x} bytes")
        guarded = self._plan.build >= _GUARDED_FROM and self._plan.flags & _GROWABLE
        end = base + reserve - (PAGE if guarded else 0)
        first = not self._plan.segments
        self._plan.segments.append(Segment(base, reserve, end, [Run(base)]))
        self._at = base
        if first and self._classic:
            self._append("header", nt_heap_classic.header_units(self._layout, self._plan.flags))
        elif first:
            units = nt_heap_modern.header_units(self._layout, self._plan.build, self._plan.flags)
            self._append("header", units)
        if self._classic or not first:
            old, new = (0x3C, 0x40) if self.arch == "x86" else (0x68, 0x70)
            size = old if self._classic else new
            self._append("header", -(-size // self._granule))

    def _append(self, kind: EntryKind, units: int, requested: int = 0, content: bytes = b"") -> Entry:
        segment = self._plan.segments[-1]
        tail = 0 if self._classic or kind == "ucr" else _UCR_UNITS * self._granule
        if (units > 0xFFFF and kind != "many") or self._at + units * self._granule + tail > segment.end:
            raise ValueError(f"0x{self._at:x}: no room for an entry of {units} granules in this segment")
        if (self._at >> 16) - (segment.base >> 16) + 1 > 0xFF:
            raise ValueError("a segment of more than 254 * 64 KiB cannot number its entries")
        entry = Entry(self._at, units, kind, requested, content)
        segment.runs[-1].entries.append(entry)
        self._at += units * self._granule
        return entry

    def _close_run(self) -> Run:
        """Pad the current run to a page boundary, as the allocator commits whole pages."""
        run = self._plan.segments[-1].runs[-1]
        if self._at == self._plan.segments[-1].end and not run.entries:
            raise ValueError("the segment is closed")
        tail = 0 if self._classic else _UCR_UNITS * self._granule
        page_end = -(-(self._at + tail) // PAGE) * PAGE
        last = run.entries[-1] if run.entries else None
        gap = (page_end - tail - self._at) // self._granule
        extend = last is not None and last.kind in ("busy", "internal", "free") and gap > 0
        if last and extend and (gap == 1 or (last.kind == "free" and last.units + gap <= _MAX_UNITS)):
            last.units += gap
            self._at += gap * self._granule
        elif gap == 1:
            self._append("free", gap + PAGE // self._granule)
            page_end += PAGE
        elif gap:
            self._append("free", gap)
        if not self._classic:
            self._append("ucr", _UCR_UNITS)
        run.end = page_end
        return run

    def _close_segment(self) -> None:
        segment = self._plan.segments[-1]
        if segment.runs[-1].end:  # an uncommitted range up to the end closed it
            return
        if not segment.runs[-1].entries:  # nothing behind the last range: that range goes on to the end
            segment.runs.pop()
            segment.runs[-1].hole = segment.end - segment.runs[-1].end
            return
        run = self._close_run()
        run.hole = segment.end - run.end

    def _encode(self) -> BuiltHeap:
        image = MemoryImage(self._layout.pointer)
        for segment in self._plan.segments:
            for run in segment.runs:
                image.commit(run.start, run.end - run.start)
        zeros = []
        for block in self._plan.large:
            header = block.user(self._layout.pointer) - block.node
            head = -(-(header + len(block.content)) // PAGE) * PAGE
            image.commit(block.node, head)
            image.write(block.node + header, block.content)
            if block.commit > head:
                zeros.append((block.node + head, block.commit - head))
        encoder = nt_heap_classic.ClassicHeapEncoder if self._classic else nt_heap_modern.ModernHeapEncoder
        encoder(self._plan, self._layout, image).encode()
        if self._lfh is not None:
            LfhEncoder(self._plan, self._lfh, image).encode()
        regions = tuple(sorted(_regions(self._plan)))
        return BuiltHeap(image.pieces(), tuple(zeros), regions, self._truth())

    def _truth(self) -> HeapTruth:
        plan, granule = self._plan, self._granule
        free = tuple(FreeTruth(e.address, e.units * granule) for e in plan.entries("free"))
        reserved = sum(s.end - s.base for s in plan.segments)
        return HeapTruth(
            address=plan.base,
            arch=self.arch,
            build=plan.build,
            flags=plan.flags,
            segments=tuple((s.base, s.end) for s in plan.segments),
            uncommitted=tuple(hole for s in plan.segments for hole in s.holes),
            reserved_bytes=reserved,
            committed_bytes=reserved - sum(s.uncommitted for s in plan.segments),
            large=tuple(self._large_truth(block) for block in plan.large),
            busy=tuple(self._busy_truth(e) for e in plan.entries("busy")),
            free=free,
            many=tuple(ManyTruth(e.address, *e.many) for e in plan.entries("many") if e.many is not None),
            internal=tuple(self._busy_truth(e) for e in plan.entries("internal")),
            free_bytes=sum(entry.entry_size for entry in free),
            front_end=self._front_end,
            lock_collisions=plan.lock_collisions,
            lfh=tuple(subsegment_truth(self._lfh.layout, s) for s in self._lfh.subsegments) if self._lfh else (),
        )

    def _busy_truth(self, entry: Entry) -> BusyTruth:
        user = entry.address + self._granule * (3 if entry.trace else 1)
        return BusyTruth(entry.address, user, entry.requested, entry.units * self._granule)

    def _large_truth(self, block: LargeBlock) -> LargeTruth:
        return LargeTruth(block.node, block.user(self._layout.pointer), block.size, block.commit, block.reserve)


def _regions(plan: HeapPlan) -> list[Region]:
    out: list[Region] = []
    for segment in plan.segments:
        limit = segment.base + segment.reserve
        for i, run in enumerate(segment.runs):
            out.append((run.start, run.end - run.start, "MEM_COMMIT", "MEM_PRIVATE", 4, segment.base))
            following = segment.runs[i + 1].start if i + 1 < len(segment.runs) else limit
            if following > run.end:
                out.append((run.end, following - run.end, "MEM_RESERVE", "MEM_PRIVATE", 0, segment.base))
    for block in plan.large:
        base = block.allocation
        end = block.node + block.commit
        limit = base + block.reserve
        if block.node > base:
            out.append((base, block.node - base, "MEM_RESERVE", "MEM_PRIVATE", 0, base))
        out.append((block.node, block.commit, "MEM_COMMIT", "MEM_PRIVATE", 4, base))
        if limit > end:
            out.append((end, limit - end, "MEM_RESERVE", "MEM_PRIVATE", 0, base))
    return out
