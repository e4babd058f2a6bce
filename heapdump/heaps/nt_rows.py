"""Rows of the block table that the chain does not give: large blocks; and what XP's lookaside lists hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.records import Heap, LargeBlock
from heapdump.blocks.table import BlockKind, tag
from heapdump.heaps.nt_generation import Generation
from heapdump.heaps.walked import Walked
from heapdump.process.model import View

_LOOKASIDE_LISTS = 128
_LOOKASIDE = 1
_DEEPEST = (256).to_bytes(2, "little")
_MOST_LEAD = 255 * 8  # the table counts the bytes before the user data in 8 bits of 8 bytes
_TABLE_BYTES = 8 << 32  # the table counts occupied bytes in 32 bits of 8 bytes


def add_large_blocks(
    view: View, heap: Heap, generation: Generation, blocks: Sequence[LargeBlock], columns: BlockColumns, walked: Walked
) -> None:
    """A row for each of the heap's large blocks given. Size in its header counts the committed bytes not asked for.

    User data lies behind the header, and behind a prefix of as many granules as the header's offset byte says (2 with
    allocation stacks).
    """
    found = (_large_row(view, heap, generation, block.list_entry, block.commit_bytes, walked) for block in blocks)
    rows = [row for row in found if row is not None]
    if not rows:
        return
    entry, size, spare, lead, flags = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    tags = tag(BlockKind.VIRTUAL, busy=True) | flags << 8
    columns.append(heap.index, entry, size // 8, spare, lead // 8, tags)


def _large_row(
    view: View, heap: Heap, generation: Generation, node: int, commit: int, walked: Walked
) -> tuple[int, int, int, int, int] | None:
    """(entry, occupied bytes, spare bytes, bytes to the user data, flags)."""
    offset = generation.layout["_HEAP_VIRTUAL_ALLOC_ENTRY"].offset("BusyBlock")
    entry = node + offset
    raw = view.space.try_integer(entry + generation.lead * 8, 8)
    walked.headers += 1
    if raw is None:
        walked.gap(f"heap {heap.address:#x}: the header of the large block at {node:#x} is not in the dump")
        return None
    if generation.is_old:
        flags, prefix = raw >> 40 & 0xFF, 0
    else:
        raw ^= generation.key & 0xFFFFFFFF if raw & generation.mask else 0
        flags, prefix = raw >> 16 & 0xFF, raw >> 48 & 0xFF
    lead = (1 + prefix) * generation.granule
    unused, occupied = raw & 0xFFFF, commit - offset
    if occupied >= _TABLE_BYTES:
        walked.gap(
            f"heap {heap.address:#x}: the large block at {node:#x} ({commit:,} bytes committed) is beyond the block table's 32 GiB; "
            "its sizes are among the large blocks of the heap"
        )
        return None
    if lead > _MOST_LEAD or not offset + lead <= unused <= commit or not flags & 1:
        walked.gap(f"heap {heap.address:#x}: the header of the large block at {node:#x} is damaged")
        lead = lead if lead <= _MOST_LEAD else generation.granule
        unused = min(max(unused, offset + lead), commit)
    else:
        walked.good_headers += 1
    return entry, occupied, unused - offset, lead, flags


def parked_entries(view: View, heap: Heap, generation: Generation) -> set[int]:
    """Entries of the blocks that wait on the lookaside lists of XP and Server 2003: free, though marked busy.

    The lists link user areas; a list is followed as far as its own depth says.
    """
    struct = generation.layout["_HEAP"]
    base = view.space.try_pointer(heap.address + struct.offset("FrontEndHeap")) or 0
    if not generation.is_old or not base or view.space.try_integer(
        heap.address + struct.offset("FrontEndHeapType"), 1
    ) != _LOOKASIDE:
        return set()
    lookaside = generation.layout["_HEAP_LOOKASIDE"]
    heads = (base + i * lookaside.size + lookaside.offset("ListHead") for i in range(_LOOKASIDE_LISTS))
    return {entry for head in heads for entry in _list(view, head, generation.granule)}


def _list(view: View, head: int, granule: int) -> Iterator[int]:
    header = view.space.try_integer(head, 8) or 0
    if view.pointer_bytes == 4:  # SLIST_HEADER: {u32 next, u16 depth, u16 sequence}
        node, depth = header & 0xFFFFFFFF, header >> 32 & 0xFFFF
    else:  # 16 bits depth, 9 bits sequence, 39 bits of the address (winnt.h)
        node, depth = header >> 25 << 4, header & 0xFFFF
    seen: set[int] = set()
    while node and node not in seen and len(seen) < depth:
        seen.add(node)
        if node >= granule:
            yield node - granule
        node = view.space.try_pointer(node) or 0


def lookaside_block(view: View, heap: Heap, generation: Generation) -> int:
    """The user address of the block that holds the lookaside lists of an old heap, or 0.

    XP keeps that block when the low-fragmentation heap replaces the lists (seen on 2600.5512, lfh): it is the heap's
    first, and each of its records still names the greatest depth of a list.
    """
    if not generation.is_old:
        return 0
    if heap.front_end == "lookaside":
        return view.space.try_pointer(heap.address + generation.layout["_HEAP"].offset("FrontEndHeap")) or 0
    first = _first_block(view, heap, generation) if heap.front_end == "lfh" else 0
    return first if first and _has_lists(view, generation, first) else 0


def _first_block(view: View, heap: Heap, generation: Generation) -> int:
    """User address of the entry behind the header of the heap's own segment, 0 where that is not in the dump."""
    offset = generation.layout["_HEAP_SEGMENT"].offset("FirstEntry")
    header = next((segment.address for segment in heap.segments if segment.span.start == heap.address), 0)
    entry = view.space.try_pointer(header + offset) if header else None
    return entry + generation.granule if entry else 0


def _has_lists(view: View, generation: Generation, block: int) -> bool:
    """True where 128 records {list head, depth u16, greatest depth u16 …} of lookaside lists lie in the block."""
    size, head = generation.layout["_HEAP_LOOKASIDE"].size, 2 * view.pointer_bytes
    data = view.space.try_read(block, _LOOKASIDE_LISTS * size)
    return data is not None and {data[at : at + 2] for at in range(head + 2, len(data), size)} == {_DEEPEST}
