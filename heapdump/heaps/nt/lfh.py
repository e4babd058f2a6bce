"""The front ends of the NT heap: LFH subsegments of every entry_format, found from the segment walk alone.

A carrier is a busy back-end block whose user area starts with a _HEAP_USERDATA_HEADER: its signature is F0E0D0C0, and
the subsegment it points at points back (heap-structures.md §3.5). The process-wide key is derived from the carriers
(§3.4): for the first block's offset there are few choices, and the right one decodes several headers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import BlockTable
from heapdump.heaps.jobs import WalkLog
from heapdump.heaps.nt.entry import BUSY_FLAG, INTERNAL_FLAG
from heapdump.heaps.nt.entry_format import EntryFormat
from heapdump.heaps.nt.lfh_blocks import Code, Slots, add_slots
from heapdump.heaps.nt.windows import Window
from heapdump.kernels.row import FLAGS_SHIFT, UNIT
from heapdump.layouts import Struct
from heapdump.process.model import View

SIGNATURE = 0xF0E0D0C0
_MAX_BLOCKS = 0x10000
_U32 = 0xFFFFFFFF
_MOST_FAILURES = 64
"""Carriers that are asked for the key: in a healthy process the first one knows it."""

_FIRST_OFFSETS = range(0x20, 0x1000, 8)


@dataclass(frozen=True, slots=True)
class Carrier:
    """One subsegment: `user` = address of its user data header, `bytes` behind it, `blocks` of `units` granules each."""

    user: int
    bytes: int
    subsegment: int
    units: int
    blocks: int


@dataclass
class FrontEnd:
    """What is known of the front end of one process view while its heaps are walked.

    `key`: RtlpLFHKey as far as it matters, None until a carrier told it; `failures` that did not.
    """

    key: int | None = None
    failures: int = 0
    carriers: set[int] = field(default_factory=set)
    subsegments: set[int] = field(default_factory=set)


class LfhWalk:
    """Walks the front end of one heap, window by window."""

    def __init__(
        self, view: View, heap: Heap, entry_format: EntryFormat, front: FrontEnd, columns: BlockColumns, walked: WalkLog
    ) -> None:
        """`front` is shared by the heaps of a view."""
        self._view, self._heap, self._format, self._front = view, heap, entry_format, front
        self._columns, self._walked = columns, walked

    def add(self, window: Window, first: int) -> None:
        """Adds the blocks of every subsegment whose carrier is among the rows from `first` on, and sorts those rows."""
        found = [slots for carrier in self._carriers(window, first) if (slots := self._slots(window, carrier))]
        if found:
            add_slots(self._format, self._heap, window, found, self._columns, self._walked)
            self._columns.sort(first)

    def _carriers(self, window: Window, first: int) -> Iterator[Carrier]:
        front = self._front
        for carrier in _carriers(self._view, self._format, window, self._columns.since(first)):
            if self._format.is_pre_vista:  # later ones are marked by a flag in their header
                front.carriers.add(carrier.user)
                front.subsegments.add(carrier.subsegment)
            if front.key is None and front.failures < _MOST_FAILURES:
                front.key = _derive_key(self._view, self._heap, self._format, carrier)
                front.failures += front.key is None
            yield carrier

    def _slots(self, window: Window, carrier: Carrier) -> Slots | None:
        view, entry_format, heap = self._view, self._format, self._heap
        header, key = entry_format.layout["_HEAP_USERDATA_HEADER"], self._front.key
        offset = _first_offset(view, entry_format, heap, carrier, key)
        fits = offset is not None and offset + carrier.units * carrier.blocks * entry_format.granule <= carrier.bytes
        if offset is not None and fits and offset % entry_format.granule == 0:
            base = int(window.bases(np.array([carrier.user]))[0])
            first = (carrier.user + offset - base) // entry_format.granule
            bitmap = _bitmap(view, header, carrier)
            return Slots(
                first, base, carrier.units, carrier.blocks, _code(view, heap, entry_format, carrier, key), bitmap
            )
        message = f"the LFH subsegment at {carrier.subsegment:#x} of heap {heap.address:#x} cannot be decoded"
        self._walked.find(
            Finding(
                "lfh_subsegment",
                "error",
                heap.address,
                carrier.user,
                header.size,
                message,
                "offsets inside the carrier",
                f"{offset}",
            )
        )
        self._walked.gap(f"{message}: {carrier.blocks} blocks are missing")
        return None


def _carriers(view: View, entry_format: EntryFormat, window: Window, rows: BlockTable) -> list[Carrier]:
    header = entry_format.layout["_HEAP_USERDATA_HEADER"]
    # from Vista on a flag marks the blocks that the allocator took for itself
    wanted = np.uint16((BUSY_FLAG if entry_format.is_pre_vista else BUSY_FLAG | INTERNAL_FLAG) << FLAGS_SHIFT)
    if np.bitwise_or.reduce(rows.tags) & wanted != wanted:
        return []
    flagged = np.flatnonzero(rows.tags & wanted == wanted)
    entry = rows.entry[flagged].astype(np.int64)
    user = entry + rows.header8[flagged].astype(np.int64) * UNIT
    end = entry + rows.size8[flagged].astype(np.int64) * UNIT
    where = (user - window.bases(entry)) // 8 + header.offset("Signature") // 8
    shift = header.offset("Signature") % 8 * 8
    where[where >= len(window.words)] = 0
    signed_ones = np.flatnonzero(window.words[where] >> shift & _U32 == SIGNATURE)
    found = (
        _carrier(view, entry_format, start, stop - start)
        for start, stop in zip(user[signed_ones].tolist(), end[signed_ones].tolist(), strict=True)
    )
    return [carrier for carrier in found if carrier is not None]


def _carrier(view: View, entry_format: EntryFormat, user: int, size: int) -> Carrier | None:
    subsegment = view.space.try_pointer(user) or 0
    fields = view.struct("_HEAP_SUBSEGMENT", subsegment, entry_format.layout) if subsegment else None
    if fields is None or fields["UserBlocks"] != user:
        return None
    units, blocks = fields["BlockSize"], fields["BlockCount"]
    if not units > 0 or not 0 < blocks <= _MAX_BLOCKS or units * blocks * entry_format.granule > size:
        return None
    return Carrier(user, size, subsegment, units, blocks)


def _entry_word(view: View, entry_format: EntryFormat, entry: int) -> int:
    """The 8 header bytes that count, as an unsigned word; 0 where they are not in the dump."""
    return view.space.try_integer(entry + entry_format.word_index * 8, 8) or 0


def _shift(view: View) -> int:
    return 4 if view.pointer_bytes == 8 else 3


def _derive_key(view: View, heap: Heap, entry_format: EntryFormat, carrier: Carrier) -> int | None:
    """RtlpLFHKey from one carrier; None where nothing decodes (a damaged one: the next is asked)."""
    header = entry_format.layout["_HEAP_USERDATA_HEADER"]
    if "EncodedOffsets" not in header:
        if "FirstAllocationOffset" in header:
            return None  # Windows 8: its code has not been seen
        first = carrier.user + header.size
        stride = carrier.units * entry_format.granule
        width = _width(view, entry_format)
        codes = [_old_code(view, heap, carrier, first + i * stride) & width for i in range(min(3, carrier.blocks))]
        best = max(codes, key=codes.count)
        return best if codes.count(best) > 1 else None
    encoded = view.space.try_integer(carrier.user + header.offset("EncodedOffsets"), 4)
    if encoded is None:
        return None
    base = encoded ^ carrier.user & _U32 ^ _front_end_heap(view, entry_format, heap) & _U32
    stride = carrier.units * entry_format.granule
    checked = min(4, carrier.blocks)
    for offset in _FIRST_OFFSETS:
        key = base ^ (offset | stride << 16 & _U32)
        good = sum(_decodes(view, heap, entry_format, carrier, offset + i * stride, key) for i in range(checked))
        if good >= max(1, checked - 1):
            return key
    return None


def _front_end_heap(view: View, entry_format: EntryFormat, heap: Heap) -> int:
    return view.space.try_pointer(heap.address + entry_format.layout["_HEAP"].offset("FrontEndHeap")) or 0


def _decodes(view: View, heap: Heap, entry_format: EntryFormat, carrier: Carrier, offset: int, key: int) -> bool:
    entry = carrier.user + offset
    code = _entry_word(view, entry_format, entry) ^ entry >> _shift(view) ^ key ^ heap.address
    return code & _U32 == offset << _code_shift(view) & _U32


def _code_shift(view: View) -> int:
    """8.1 and later: the distance to the carrier stands above 12 bits of the code, above 13 on x86."""
    return 12 if view.pointer_bytes == 8 else 13


def _width(view: View, entry_format: EntryFormat) -> int:
    """Bits of the code that count: 40 on x64 up to Windows 7, else 32."""
    header = entry_format.layout["_HEAP_USERDATA_HEADER"]
    old = "EncodedOffsets" not in header and not entry_format.is_pre_vista
    return (1 << 40) - 1 if old and view.pointer_bytes == 8 else _U32


def _old_code(view: View, heap: Heap, carrier: Carrier, entry: int) -> int:
    """Up to Windows 7: the key, solved from one block of a known subsegment (Vista and 7 x64: 40 bits)."""
    wide = view.pointer_bytes == 8
    word = view.space.try_integer(entry + (8 if wide else 0), 8) or 0
    if wide:
        return (word ^ (entry ^ heap.address) >> 4 ^ carrier.subsegment >> 4) & (1 << 40) - 1
    return (word ^ entry >> 3 ^ heap.address ^ carrier.subsegment) & _U32


def _first_offset(view: View, entry_format: EntryFormat, heap: Heap, carrier: Carrier, key: int | None) -> int | None:
    """Bytes from the user data header to block 0."""
    header = entry_format.layout["_HEAP_USERDATA_HEADER"]
    if "FirstAllocationOffset" in header:
        return view.space.try_integer(carrier.user + header.offset("FirstAllocationOffset"), 2)
    if "EncodedOffsets" not in header:
        return header.size
    encoded = view.space.try_integer(carrier.user + header.offset("EncodedOffsets"), 4)
    if encoded is None or key is None:
        return None
    offsets = encoded ^ carrier.user & _U32 ^ _front_end_heap(view, entry_format, heap) & _U32 ^ key
    return offsets & 0xFFFF


def _bitmap(view: View, header: Struct, carrier: Carrier) -> bytes | None:
    """The bits of the blocks, 1 = busy, whole 32-bit words; None where there is none in this entry_format or dump."""
    if "BusyBitmap" not in header:
        return None
    at = carrier.user + header.offset("BusyBitmap")
    buffer = view.space.try_pointer(at + view.pointer_bytes)
    return view.space.try_read(buffer, -(-carrier.blocks // 32) * 4) if buffer else None


def _code(view: View, heap: Heap, entry_format: EntryFormat, carrier: Carrier, key: int | None) -> Code:
    """How the block headers of a subsegment are coded, as one rule for all entry_formats (heap-structures.md §3.4)."""
    shift, width = _shift(view), _width(view, entry_format)
    if key is None:
        return Code(0, 0, shift, carrier.user, 0)
    mixed = key ^ heap.address
    if "EncodedOffsets" in entry_format.layout["_HEAP_USERDATA_HEADER"]:
        return Code(width, mixed & width, shift, carrier.user, _code_shift(view))
    if view.pointer_bytes == 4:
        mixed ^= carrier.subsegment
    else:
        mixed = key ^ heap.address >> 4 ^ carrier.subsegment >> 4
    return Code(width, mixed & width, shift, carrier.user, 0)
