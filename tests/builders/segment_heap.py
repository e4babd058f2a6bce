"""A segment heap as it lies in memory, Windows 10 to 11.

In: calls that append page ranges to the current segment, and large blocks. Out: `BuiltSegmentHeap`: memory, regions and
truth. The layouts are restated by hand on purpose; nothing of the tool under test is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .memory_image import PAGE, MemoryImage
from .nt_heap_layout import HeapArch
from .process import ProcessBuilder
from .segment_heap_layout import CONSTANT, segment_layout

Kind = Literal["vs", "lfh", "pages", "large"]
_OWN = 0x10000
_VS_LIST, _LFH_LIST = 0xD00, 0xE00
_UNITS = 256


@dataclass(frozen=True)
class SegmentTruth:
    """What is in the heap. `busy`: user address → (bytes asked for, kind); `free`: kind → free blocks of it.

    `metadata`: nodes of the large blocks; `subsegments` of VS and LFH blocks, `headers` of all chunks, in order.
    """

    address: int
    busy: dict[int, tuple[int, Kind]]
    free: dict[Kind, int]
    large: tuple[int, ...]
    segments: tuple[tuple[int, int], ...]
    metadata: tuple[int, ...]
    subsegments: tuple[int, ...]
    headers: tuple[int, ...]
    reserved_bytes: int
    committed_bytes: int


@dataclass
class _Segment:
    """A segment in the making: address, bytes of a unit, units used so far and how many are committed."""

    base: int
    unit: int
    used: int
    ranges: list[tuple[int, int, int, int]] = field(default_factory=list)  # first unit, units, flags, unused
    committed: list[tuple[int, int]] = field(default_factory=list)  # [first unit, end)


@dataclass(frozen=True)
class LargePart:
    """A large block in the making: committed and unused bytes; `has_extra`: a stack record stands behind it."""

    address: int
    commit: int
    unused: int
    has_extra: bool


class SegmentHeapBuilder:
    """One heap in the making. Contents of blocks are random bytes."""

    def __init__(
        self, *, arch: HeapArch = "x64", build: int = 19041, base: int, seed: int = 0, padding: bool = False,
        keys: tuple[int, int] | None = None, trace: int = 0,
    ) -> None:  # fmt: skip
        """Begin a heap at `base`. `padding`: blocks begin with a header of a granule; `keys`: heap key, LFH key.

        `trace`: address of the record of the allocation stack of all VS and LFH blocks (0: they have none).
        """
        self._layout = lay = segment_layout(arch, build)
        self._random = np.random.default_rng(seed)
        self._build, self._base, self._top = build, base, (1 << 8 * lay.pointer) - 1
        drawn = [int(value) for value in self._random.integers(1, 1 << 62, 2)]
        self._heap_key, self._lfh_key = (key & self._top for key in keys or drawn)
        self._chunk_key = self._lfh_key if build < 16299 else self._heap_key
        self._padding = lay.granule if padding else 0
        self._trace = trace
        self._image = MemoryImage(lay.pointer)
        self._image.commit(base, PAGE)
        if trace:
            self._image.word(base + lay.interceptor, 1)
        self._segments: list[_Segment] = []
        self._large: list[LargePart] = []
        self._busy: dict[int, tuple[int, Kind]] = {}
        self._free: dict[Kind, int] = {"vs": 0, "lfh": 0}
        self._subsegments: list[int] = []
        self._vs: list[int] = []
        self._lfh: list[int] = []
        self._headers: list[NDArray[np.int64]] = []
        self._free_chunks: list[int] = []

    def segment(self, base: int, *, big: bool = False) -> None:
        """Begin a segment: 1 MiB with pages as units, or 16 MiB with 64 KiB ones."""
        unit = 0x10000 if big else PAGE
        if base % (_UNITS * unit):
            raise ValueError("a segment lies on a multiple of its size")
        own = -(-_UNITS * self._layout.descriptor // unit)
        self._segments.append(_Segment(base, unit, own, committed=[(0, own)]))

    def _range(self, size: int, flags: int, unused: int = 0, *, guard: bool = False) -> int:
        """Append a range of `size` bytes to the current segment; a `guard` page at its end is not committed. Its address."""
        part = self._segments[-1]
        units = -(-size // part.unit) + guard
        if part.used + units > _UNITS:
            raise ValueError("the segment is full")
        part.ranges.append((part.used, units, flags, unused))
        part.committed.append((part.used, part.used + units - guard))
        address = part.base + part.used * part.unit
        part.used += units
        self._image.commit(address, (units - guard) * part.unit)
        return address

    def _flags(self, kind: Literal["pages", "lfh", "vs", "free"]) -> int:
        if self._build < 16299:
            return {"pages": 0x0E, "lfh": 0x0F, "vs": 0x2E, "free": 0x08}[kind]
        high = 0x20 if self._layout.pointer == 4 and kind in ("lfh", "vs") else 0
        lfh, vs = self._layout.kinds
        return high | {"pages": 3, "lfh": 3 | lfh << 2, "vs": 3 | vs << 2, "free": 2}[kind]

    def pages(self, size: int) -> int:
        """Append a block of whole units; its user address."""
        unit, asked = self._segments[-1].unit, size + self._padding
        address = self._range(asked, self._flags("pages"), -asked % unit)
        self._image.write(address, self._random.bytes(min(asked, 64)))
        return self._take(address, size, "pages")

    def free_range(self, units: int, committed: int = 0) -> None:
        """Append a free range of which the first units are committed."""
        part = self._segments[-1]
        part.ranges.append((part.used, units, self._flags("free"), 0))
        part.committed.append((part.used, part.used + committed))
        if committed:
            self._image.commit(part.base + part.used * part.unit, committed * part.unit)
        part.used += units

    def large(self, address: int, size: int, *, trace: int = 0) -> int:
        """Add a block with a reservation of its own at a multiple of 64 KiB; its user address.

        `trace`: address of the record of its allocation stack, which stands behind the block (0: none does).
        """
        granule = self._layout.granule
        end = size + self._padding
        record = -(-end // granule) * granule + granule  # behind _SEGMENT_HEAP_EXTRA, one granule
        commit = -(-(record + self._layout.pointer if trace else end) // PAGE) * PAGE
        self._image.commit(address, commit)
        self._image.write(address, self._random.bytes(64))
        if trace:
            self._image.word(self._base + self._layout.interceptor, 1)
            self._image.word(address + record, trace)
        self._large.append(LargePart(address, commit, commit - end, bool(trace)))
        if self._padding and self._build < 17134:  # there the padding of a large block lies behind it
            self._busy[address] = (size, "large")
            return address
        return self._take(address, size, "large")

    def _take(self, address: int, size: int, kind: Kind) -> int:
        if self._padding and self._build >= 17134:
            self._image.word(address, self._padding, 0)
        elif self._padding:
            self._image.word(address, 0, 0)
        self._busy[address + self._padding] = (size, kind)
        return address + self._padding

    def chunks(self, sizes: Sequence[int] | NDArray[np.int64], *, pages: int = 16) -> int:
        """Append a VS subsegment of so many pages: a busy chunk for each size, a free one of -size granules for others.

        What is left at its end is one free chunk. Returns the subsegment's address.
        """
        lay, g, pad = self._layout, self._layout.granule, self._padding
        base = self._range(pages * PAGE, self._flags("vs"), PAGE, guard=True)
        asked = np.asarray(sizes, np.int64)
        busy = asked >= 0
        units = np.where(busy, np.maximum(2, -(-(asked + pad) // g) + 1 + self._extra_bytes // g), -asked)
        total = (pages * PAGE - lay.vs_first) // g
        left = total - int(units.sum())
        if left < 0 or left == 1:
            raise ValueError("the chunks do not fill the subsegment")
        if left:
            units, busy, asked = np.append(units, left), np.append(busy, False), np.append(asked, -left)
        at = base + lay.vs_first + (np.cumsum(units) - units) * g
        self._image.write(base + lay.vs_first, self._random.bytes(total * g))
        self._image.u16(base + lay.vs_size, total)
        self._image.u16(base + lay.vs_mark, (total ^ 0x2BED) & 0x7FFF)
        self._write_chunks(at, units, busy, asked)
        self._subsegments.append(base)
        self._vs.append(base)
        self._headers.append(at)
        self._free_chunks += at[~busy & (units > 1)].tolist()
        self._free["vs"] += int((~busy).sum())
        return base

    def _write_chunks(
        self, at: NDArray[np.int64], units: NDArray[np.int64], busy: NDArray[np.bool_], asked: NDArray[np.int64]
    ) -> None:
        lay, g, pad = self._layout, self._layout.granule, self._padding
        before = np.concatenate([[0], units[:-1]])
        unused = np.where(busy, (units - 1) * g - pad - asked, 0)
        page = ((at >> 12) - (at[0] >> 12) ^ at ^ self._chunk_key & 0xFF) & 0xFF
        flag_word = (unused > 0).astype(np.int64) << 8 | page
        cost = self._random.integers(0, 2, len(at))
        if lay.pointer == 8:
            head = cost | units << 16 | before << 32 | busy.astype(np.int64) << 48
            self._image.scatter(
                at, (head.astype(np.uint64) ^ at.astype(np.uint64) ^ np.uint64(self._chunk_key)).astype(np.int64)
            )
            self._image.scatter(at + 8, flag_word)
        else:
            head = cost | units << 1 | before << 16 | busy.astype(np.int64) << 31
            self._image.scatter(at, ((head ^ at ^ self._chunk_key) & 0xFFFFFFFF) | flag_word << 32)
        for address, size, spare in zip(
            (at + g)[busy].tolist(), asked[busy].tolist(), unused[busy].tolist(), strict=True
        ):
            self._count(address + pad + size, spare)
            self._take(address, size, "vs")

    @property
    def _extra_bytes(self) -> int:
        """Bytes that a block needs for the extra behind its user data, and the address of its stack."""
        return 2 * self._layout.granule if self._trace else 0

    def _count(self, end: int, unused: int) -> None:
        """Write the number of unused bytes behind the user data that ends at `end`, and the extra, where blocks have one."""
        if self._trace:
            extra = -(-end // self._layout.granule) * self._layout.granule
            self._image.write(extra, b"\0\0\1\1".ljust(self._layout.granule, b"\0"))
            self._image.word(extra + self._layout.granule, self._trace)
            self._image.u16(end + unused - 2, unused | 0x4000)
        elif unused > 1:
            self._image.u16(end + unused - 2, unused)
        elif unused:
            self._image.u8(end, 0x80)

    def lfh_blocks(
        self, block: int, asked: Sequence[int] | NDArray[np.int64], *, pages: int = 1, listed: Sequence[int] = ()
    ) -> int:
        """Append an LFH subsegment: an LFH block of `block` bytes for each size asked for, free where that is negative.

        `listed` (26100): numbers of busy blocks that were freed and wait on its list; their bits and counts are as they
        were (recorded). Returns its address.
        """
        pad, count = self._padding, len(asked)
        base = self._range(pages * PAGE, self._flags("lfh"))
        sizes = np.asarray(asked, np.int64)
        busy = sizes >= 0
        waiting = np.isin(np.arange(count), np.array(listed, np.int64))
        unused = np.where(busy, block - pad - sizes, 0)
        first = self._lfh_header(base, block, busy | waiting, unused > 0, pages)
        if first + block * count > pages * PAGE or (busy & (unused < 0)).any():
            raise ValueError("the LFH blocks do not fit")
        self._image.write(base + first, self._random.bytes(block * count))
        self._freed_list(base, first, block, list(listed))
        for i in np.flatnonzero(busy).tolist():
            address = base + first + i * block
            if not waiting[i]:
                self._take(address, int(sizes[i]), "lfh")
            self._count(address + pad + int(sizes[i]), int(unused[i]))
        self._subsegments.append(base)
        self._lfh.append(base)
        self._free["lfh"] += int((~busy | waiting).sum())
        return base

    def most_lfh_blocks(self, block: int, pages: int) -> int:
        """The number of LFH blocks of `block` bytes that fill a subsegment."""
        count = pages * PAGE // block
        while self._first_block(count, pages)[1] + block * count > pages * PAGE:
            count -= 1
        return count

    def _first_block(self, count: int, pages: int) -> tuple[int, int]:
        """(end of the bitmap, offset of the first block)."""
        lay, group = self._layout, 8 * self._layout.pointer
        bits = -(-count // 32) * 64 if lay.lfh_free is None else -(-2 * count // group) * group
        end = lay.bitmap + bits // 8
        return end, -(-(end + 2 * min(pages, 255)) // lay.granule) * lay.granule

    def _lfh_header(
        self, base: int, block: int, busy: NDArray[np.bool_], has_count: NDArray[np.bool_], pages: int
    ) -> int:
        """Header and bitmap; the offset of the first block."""
        lay, count, new = self._layout, len(busy), self._layout.lfh_free is None
        group = 32 if new else 1
        room = -(-count // 32) * 32
        bits = np.ones((2, room), bool)
        bits[0, :count], bits[1, :count] = busy, has_count
        if new:
            bits[1, count:] = False
        order = bits.reshape(2, -1, group).transpose(1, 0, 2).reshape(-1)
        data = np.packbits(order, bitorder="little").tobytes()
        self._image.write(base + lay.bitmap, data[: self._first_block(count, pages)[0] - lay.bitmap])
        end, first = self._first_block(count, pages)
        units = min(pages, 255)
        self._image.u16(base + lay.lfh_count, count)
        self._image.u8(base + lay.lfh_commit[0], units)
        if new:
            self._image.u8(base + lay.lfh_commit[1], end // 8)
        else:
            self._image.u16(base + (lay.lfh_free or 0), int((~busy).sum()))
            self._image.u16(base + lay.lfh_commit[1], end)
        shifted = base >> 12 if new else (base & 0xFFFFFFFF) >> 12
        self._image.u32(
            base + lay.lfh_offsets, (block | first << 16) ^ (self._lfh_key & 0xFFFFFFFF) ^ (shifted & 0xFFFFFFFF)
        )
        return first

    def _freed_list(self, base: int, first: int, block: int, listed: list[int]) -> None:
        if not listed:
            return
        self._image.u32(base + 0x10, listed[0] + 1 | len(listed) << 16)
        for number, following in zip(listed, [*listed[1:], -1], strict=True):
            self._image.u32(base + first + number * block, following + 1)

    def _free_tree(self, chunks: Sequence[int], parent: int) -> int:
        """Link free chunks to a balanced tree: its nodes lie behind the first word of each. The root's address, 0 for none."""
        if not chunks:
            return 0
        middle, pointer = len(chunks) // 2, self._layout.pointer
        node = chunks[middle] + pointer
        links = [self._free_tree(part, node) for part in (chunks[:middle], chunks[middle + 1 :])]
        self._image.word(node, *links, parent | (1 if parent else 0))
        return node

    def _link_subsegments(self) -> None:
        """Put the subsegments of each kind on a list, whose head lies in the heap's own page.

        Links of VS subsegments are XORed with the address of the entry that holds them, from 16299 on.
        """
        for nodes, head, is_encoded in (
            (self._vs, self._base + _VS_LIST, self._build >= 16299), (self._lfh, self._base + _LFH_LIST, False),
        ):  # fmt: skip
            ring = [head, *nodes]
            for i, node in enumerate(ring):
                code = node if is_encoded else 0
                self._image.word(node, ring[(i + 1) % len(ring)] ^ code, ring[i - 1] ^ code)
        if self._layout.lfh_free is not None:  # 26100 has its State there
            for node in self._lfh:
                self._image.word(node + 2 * self._layout.pointer, self._base + _LFH_LIST)

    def build(self) -> BuiltSegmentHeap:
        """The heap."""
        from .segment_heap_frame import finish

        self._free_tree(sorted(self._free_chunks), 0)
        self._link_subsegments()
        memory, regions, segments, metadata, sums = finish(
            self._layout, self._image, self._build, self._base, self._heap_key, self._segments, self._large
        )  # fmt: skip
        truth = SegmentTruth(
            self._base, dict(self._busy), dict(self._free), tuple(block.address for block in self._large), segments, metadata,
            tuple(self._subsegments), tuple(np.concatenate([np.empty(0, np.int64), *self._headers]).tolist()), *sums,
        )  # fmt: skip
        return BuiltSegmentHeap(memory, regions, truth)


@dataclass(frozen=True)
class BuiltSegmentHeap:
    """The heap's committed memory, (address, bytes); (base, size, is committed, allocation base) of each region; truth."""

    memory: tuple[tuple[int, bytes], ...]
    regions: tuple[tuple[int, int, bool, int], ...]
    truth: SegmentTruth

    def add_to(self, process: ProcessBuilder) -> ProcessBuilder:
        """Puts the heap on the process' list, and its memory and regions into it."""
        process.heap_handle(self.truth.address)
        for base, size, is_committed, allocation in self.regions:
            state = "MEM_COMMIT" if is_committed else "MEM_RESERVE"
            process.region(base, size, state=state, protect=4 if is_committed else 0, allocation_base=allocation)
        for address, data in self.memory:
            process.memory(address, data)
        return process


__all__ = ["CONSTANT", "BuiltSegmentHeap", "SegmentHeapBuilder", "SegmentTruth"]
