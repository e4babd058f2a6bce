"""The front ends of the NT heap: LFH subsegments of every generation, found from the segment walk alone.

A carrier is a busy back-end block whose user area starts with a _HEAP_USERDATA_HEADER: its signature is F0E0D0C0, and
the subsegment it points at points back (heap-structures.md §3.5). The process-wide key is derived from the carriers
(§3.4): for the first block's offset there are few choices, and the right one decodes several headers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.records import Heap, Trust
from heapdump.blocks.table import BUSY, BlockKind, Chunk, tag
from heapdump.heaps.nt_blocks import INTERNAL_FLAG, Rows, Run, Walked, callable_kernel
from heapdump.heaps.nt_generation import Generation, signed
from heapdump.kernels import chain
from heapdump.layouts import Struct
from heapdump.process.model import View

SIGNATURE = 0xF0E0D0C0
_MAX_BLOCKS = 0x10000
_U32 = 0xFFFFFFFF
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

    `key`: RtlpLFHKey as far as it matters, None until a carrier told it.
    """

    key: int | None = None
    carriers: set[int] = field(default_factory=set)
    subsegments: set[int] = field(default_factory=set)


def walk_front_end(
    view: View, heap: Heap, generation: Generation, run: Run, rows: list[Rows], front: FrontEnd, walked: Walked
) -> None:
    """Adds the blocks of every subsegment whose carrier lies in this run."""
    carriers = [c for granules, tags in rows for c in _carriers(view, generation, run, granules, tags)]
    for carrier in carriers:
        if generation.is_old:  # later ones are marked by a flag in their header
            front.carriers.add(carrier.user)
            front.subsegments.add(carrier.subsegment)
        if front.key is None:
            front.key = _derive_key(view, heap, generation, carrier)
        _add_blocks(view, heap, generation, run, carrier, front.key, walked)


def _carriers(
    view: View, generation: Generation, run: Run, granules: NDArray[np.int64], tags: NDArray[np.int64]
) -> list[Carrier]:
    header = generation.layout["_HEAP_USERDATA_HEADER"]
    stride, granule = generation.stride, generation.granule
    # from Vista on a flag marks the blocks that the allocator took for itself
    wanted = 1 if generation.is_old else 1 | INTERNAL_FLAG
    rows = np.flatnonzero(tags & wanted == wanted)
    low = tags[rows] >> 8 & 0x3F
    prefix = np.where((tags[rows] >> 8 & 0x40 != 0) & (not generation.is_old), low, 0)
    user = granules[rows] + 1 + prefix
    where = user * stride + header.offset("Signature") // 8
    shift = header.offset("Signature") % 8 * 8
    inside = where < len(run.words)
    rows, user, where = rows[inside], user[inside], where[inside]
    signed_ones = np.flatnonzero((run.words[where] >> shift) & _U32 == SIGNATURE)
    out = []
    for i in signed_ones.tolist():
        row, start = int(rows[i]), int(user[i])
        end = int(granules[row + 1]) if row + 1 < len(granules) else len(run.words) // stride
        carrier = _carrier(view, generation, run.span.start + start * granule, (end - start) * granule)
        if carrier is not None:
            out.append(carrier)
    return out


def _carrier(view: View, generation: Generation, user: int, size: int) -> Carrier | None:
    subsegment = view.space.try_pointer(user) or 0
    fields = view.struct("_HEAP_SUBSEGMENT", subsegment, generation.layout) if subsegment else None
    if fields is None or fields["UserBlocks"] != user:
        return None
    units, blocks = fields["BlockSize"], fields["BlockCount"]
    if not units > 0 or not 0 < blocks <= _MAX_BLOCKS or units * blocks * generation.granule > size:
        return None
    return Carrier(user, size, subsegment, units, blocks)


def _entry_word(view: View, generation: Generation, entry: int) -> int:
    """The 8 header bytes that count, as an unsigned word; 0 where they are not in the dump."""
    return view.space.try_integer(entry + generation.lead * 8, 8) or 0


def _shift(view: View) -> int:
    return 4 if view.pointer_bytes == 8 else 3


def _derive_key(view: View, heap: Heap, generation: Generation, carrier: Carrier) -> int | None:
    """RtlpLFHKey from one carrier; None where nothing decodes (a damaged one: the next is asked)."""
    header = generation.layout["_HEAP_USERDATA_HEADER"]
    if "EncodedOffsets" not in header:
        if "FirstAllocationOffset" in header:
            return None  # Windows 8: its code has not been seen
        first = carrier.user + header.size
        stride = carrier.units * generation.granule
        codes = [_old_code(view, heap, carrier, first + i * stride) for i in range(min(3, carrier.blocks))]
        best = max(codes, key=codes.count)
        return best if codes.count(best) > 1 else None
    encoded = view.space.try_integer(carrier.user + header.offset("EncodedOffsets"), 4)
    if encoded is None:
        return None
    base = encoded ^ carrier.user & _U32 ^ _front_end_heap(view, generation, heap) & _U32
    stride = carrier.units * generation.granule
    checked = min(4, carrier.blocks)
    for offset in _FIRST_OFFSETS:
        key = base ^ (offset | stride << 16 & _U32)
        good = sum(_decodes(view, heap, generation, carrier, offset + i * stride, key) for i in range(checked))
        if good >= max(1, checked - 1):
            return key
    return None


def _front_end_heap(view: View, generation: Generation, heap: Heap) -> int:
    return view.space.try_pointer(heap.address + generation.layout["_HEAP"].offset("FrontEndHeap")) or 0


def _decodes(view: View, heap: Heap, generation: Generation, carrier: Carrier, offset: int, key: int) -> bool:
    entry = carrier.user + offset
    code = _entry_word(view, generation, entry) ^ entry >> _shift(view) ^ key ^ heap.address
    return code & _U32 == offset << _code_shift(view) & _U32


def _code_shift(view: View) -> int:
    """8.1 and later: the distance to the carrier stands above 12 bits of the code, above 13 on x86."""
    return 12 if view.pointer_bytes == 8 else 13


def _width(view: View, generation: Generation) -> int:
    """Bits of the code that count: 40 on x64 up to Windows 7, else 32."""
    header = generation.layout["_HEAP_USERDATA_HEADER"]
    old = "EncodedOffsets" not in header and not generation.is_old
    return (1 << 40) - 1 if old and view.pointer_bytes == 8 else _U32


def _old_code(view: View, heap: Heap, carrier: Carrier, entry: int) -> int:
    """Up to Windows 7: the key, solved from one block of a known subsegment (Vista and 7 x64: 40 bits)."""
    wide = view.pointer_bytes == 8
    word = view.space.try_integer(entry + (8 if wide else 0), 8) or 0
    if wide:
        return (word ^ (entry ^ heap.address) >> 4 ^ carrier.subsegment >> 4) & (1 << 40) - 1
    return (word ^ entry >> 3 ^ heap.address ^ carrier.subsegment) & _U32


def _first_offset(view: View, generation: Generation, heap: Heap, carrier: Carrier, key: int | None) -> int | None:
    """Bytes from the user data header to block 0."""
    header = generation.layout["_HEAP_USERDATA_HEADER"]
    if "FirstAllocationOffset" in header:
        return view.space.try_integer(carrier.user + header.offset("FirstAllocationOffset"), 2)
    if "EncodedOffsets" not in header:
        return header.size
    encoded = view.space.try_integer(carrier.user + header.offset("EncodedOffsets"), 4)
    if encoded is None or key is None:
        return None
    offsets = encoded ^ carrier.user & _U32 ^ _front_end_heap(view, generation, heap) & _U32 ^ key
    return offsets & 0xFFFF


def _bitmap(view: View, header: Struct, carrier: Carrier) -> bytes:
    """One byte for each block, 1 = busy; empty where this generation has no bitmap or it is not in the dump."""
    if "BusyBitmap" not in header:
        return b""
    at = carrier.user + header.offset("BusyBitmap")
    buffer = view.space.try_pointer(at + view.pointer_bytes)
    bits = view.space.try_read(buffer, -(-carrier.blocks // 32) * 4) if buffer else None
    if bits is None:
        return b""
    return np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")[: carrier.blocks].tobytes()


def _add_blocks(
    view: View, heap: Heap, generation: Generation, run: Run, carrier: Carrier, key: int | None, walked: Walked
) -> None:
    header = generation.layout["_HEAP_USERDATA_HEADER"]
    offset = _first_offset(view, generation, heap, carrier, key)
    fits = offset is not None and offset + carrier.units * carrier.blocks * generation.granule <= carrier.bytes
    if offset is None or not fits or offset % generation.granule:
        message = f"the LFH subsegment at {carrier.subsegment:#x} of heap {heap.address:#x} cannot be decoded"
        walked.findings.append(
            Finding("lfh_subsegment", "error", heap.address, carrier.user, header.size, message, "offsets inside the carrier", f"{offset}")
        )
        walked.gaps.append(f"{message}: {carrier.blocks} blocks are missing")
        return
    columns = tuple(np.empty(carrier.blocks, np.int64) for _ in range(5))
    first = (carrier.user + offset - run.span.start) // generation.granule
    count, good = _slots(view, heap, generation, run, carrier, first, key, columns, walked)
    _keep_slots(heap, generation, run, tuple(c[:count] for c in columns), walked)
    walked.headers += count
    walked.good_headers += good


def _slots(
    view: View, heap: Heap, generation: Generation, run: Run, carrier: Carrier, first: int, key: int | None,
    columns: tuple[NDArray[np.int64], ...], walked: Walked,
) -> tuple[int, int]:  # fmt: skip
    header, shift = generation.layout["_HEAP_USERDATA_HEADER"], _shift(view)
    shape = (first, carrier.units, carrier.blocks, generation.stride, generation.lead)
    width, code_shift, mixed = _width(view, generation) if key is not None else 0, 0, (key or 0) ^ heap.address
    if generation.is_old:
        call, words, outs = callable_kernel(chain.slots_old, run.words, columns, walked.blocks)
        known = signed((mixed ^ carrier.subsegment) & width)
        result: tuple[int, int] = call(words, *shape, known, width, run.span.start, shift, *outs)
        return result
    user = (carrier.user - run.span.start) // generation.granule
    if "EncodedOffsets" in header:
        code_shift = _code_shift(view)
    elif view.pointer_bytes == 8:
        mixed ^= heap.address ^ heap.address >> 4 ^ carrier.subsegment >> 4
    else:
        mixed ^= carrier.subsegment
    bitmap = np.frombuffer(_bitmap(view, header, carrier), np.uint8)
    call, words, outs = callable_kernel(chain.slots_modern, run.words, columns, walked.blocks)
    known = signed(mixed & width)
    answer: tuple[int, int] = call(words, *shape, known, width, code_shift, user, shift, run.span.start, bitmap, *outs)
    return answer


def _keep_slots(
    heap: Heap, generation: Generation, run: Run, columns: tuple[NDArray[np.int64], ...], walked: Walked
) -> None:
    at, units, spare, lead, raw = columns
    granule = generation.granule
    good = tag(BlockKind.LFH)
    bad = tag(BlockKind.LFH, trust=Trust.GUESS)
    damaged = raw & 0x10000 != 0
    entry = run.span.start + at * granule
    tags = np.where(damaged, bad, good) | np.where(raw & 1 != 0, BUSY, 0)
    walked.chunks.append(
        Chunk(
            entry=entry.astype(np.uint64),
            units=(units * (granule // 8)).astype(np.uint32),
            spare=spare.astype(np.uint32),
            lead=(lead * (granule // 8)).astype(np.uint8),
            tags=tags.astype(np.uint16),
            heap=heap.index,
        )
    )
    walked.blocks += len(at)
    for address in entry[damaged].tolist():
        message = f"heap {heap.address:#x}: the LFH block header at {address:#x} is damaged"
        found = "a header that does not lead to its subsegment"
        walked.findings.append(Finding("lfh_subsegment", "error", heap.address, address, granule, message, "an LFH header", found))
