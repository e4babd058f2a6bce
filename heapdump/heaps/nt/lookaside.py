"""The lookaside lists of XP and Server 2003: the blocks that wait on them, the block they lie in, and whether they are whole.

List i links the user areas of blocks of i granules; its head counts them. Each change of a head is one interlocked
instruction, so that a healthy list is whole at any moment (719 blocks on the lists of all recorded heaps of 2600.5512:
sizes, states and depths without exception).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Heap
from heapdump.heaps.jobs import CheckJob
from heapdump.heaps.nt.entry_format import EntryFormat
from heapdump.heaps.nt.windows import runs
from heapdump.process.model import View

_LISTS = 128
_LOOKASIDE = 1
_DEEPEST = (256).to_bytes(2, "little")
_BUSY = 1


@dataclass(frozen=True, slots=True)
class _Link:
    """One link of list `number`: it lies at `place` and leads to `node`; `left`: blocks that the head counts from here on.

    `again`: the node was on the list before.
    """

    number: int
    place: int
    node: int
    left: int
    again: bool


def parked_entries(view: View, heap: Heap, entry_format: EntryFormat) -> set[int]:
    """Entries of the blocks that wait on the lookaside lists: free, though marked busy.

    A list is followed as far as its own depth says.
    """
    granule = entry_format.granule
    return {link.node - granule for link in _links(view, heap, entry_format) if link.left > 0 and link.node >= granule}


def check_lookasides(job: CheckJob, entry_format: EntryFormat) -> Iterator[Finding]:
    """The first wrong link of each list. A list that leaves what the dump holds is not wrong.

    Headers of the blocks are compared where the walk found no damage: else the header may be what is wrong.
    """
    wrong: set[int] = set()
    for link in _links(job.view, job.heap, entry_format):
        why = "" if link.number in wrong else _what_is_wrong(job, entry_format, link)
        if not why:
            continue
        wrong.add(link.number)
        wanted = (
            f"a busy block of {link.number * entry_format.granule} bytes" if link.left > 0 else "0, the end of the list"
        )
        message = f"heap {job.heap.address:#x}: lookaside list {link.number} is broken at {link.place:#x}: {why}"
        yield Finding(
            "free_list",
            "error",
            job.heap.address,
            link.place,
            job.view.pointer_bytes,
            message,
            wanted,
            f"{link.node:#x}",
        )


def _what_is_wrong(job: CheckJob, entry_format: EntryFormat, link: _Link) -> str:
    node, granule = link.node, entry_format.granule
    if (node == 0) != (link.left <= 0):
        return f"it ends {link.left:,} blocks early" if node == 0 else "it goes on beyond the count in its head"
    if node == 0:
        return ""
    if link.again:
        return "it leads back to a block that is on it already"
    if node % granule or not any(node - granule in part for segment in job.heap.segments for part in runs(segment)):
        return "it leads to no block of this heap"
    header = None if job.has_damage else job.view.space.try_integer(node - granule + entry_format.word_index * 8, 8)
    if header is None:
        return ""
    size, flags = header & 0xFFFF, header >> 40 & 0xFF
    return "" if size == link.number and flags & _BUSY else "it leads to no block of its size"


def _links(view: View, heap: Heap, entry_format: EntryFormat) -> Iterator[_Link]:
    """The links of every list, heads first, each list up to its end, its depth, its first circle or the end of the dump."""
    struct = entry_format.layout["_HEAP"]
    base = view.space.try_pointer(heap.address + struct.offset("FrontEndHeap")) or 0
    if (
        not entry_format.is_pre_vista
        or not base
        or view.space.try_integer(heap.address + struct.offset("FrontEndHeapType"), 1) != _LOOKASIDE
    ):
        return
    lookaside = entry_format.layout["_HEAP_LOOKASIDE"]
    for number in range(_LISTS):
        yield from _list(view, number, base + number * lookaside.size + lookaside.offset("ListHead"))


def _list(view: View, number: int, head: int) -> Iterator[_Link]:
    header = view.space.try_integer(head, 8)
    if header is None:
        return
    if view.pointer_bytes == 4:  # SLIST_HEADER: {u32 next, u16 depth, u16 sequence}
        node, left = header & 0xFFFFFFFF, header >> 32 & 0xFFFF
    else:  # 16 bits depth, 9 bits sequence, 39 bits of the address (winnt.h)
        node, left = header >> 25 << 4, header & 0xFFFF
    place, seen = head, set[int]()
    while True:
        yield _Link(number, place, node, left, node in seen)
        if not node or left <= 0 or node in seen:
            return
        seen.add(node)
        following = view.space.try_pointer(node)
        if following is None:
            return
        place, node, left = node, following, left - 1


def lookaside_block(view: View, heap: Heap, entry_format: EntryFormat) -> int:
    """The user address of the block that holds the lookaside lists of an old heap, or 0.

    XP keeps that block when the low-fragmentation heap replaces the lists (seen on 2600.5512, lfh): it is the heap's
    first, and each of its records still names the greatest depth of a list.
    """
    if not entry_format.is_pre_vista:
        return 0
    if heap.front_end == "lookaside":
        return view.space.try_pointer(heap.address + entry_format.layout["_HEAP"].offset("FrontEndHeap")) or 0
    first = _first_block(view, heap, entry_format) if heap.front_end == "lfh" else 0
    return first if first and _has_lists(view, entry_format, first) else 0


def _first_block(view: View, heap: Heap, entry_format: EntryFormat) -> int:
    """User address of the entry behind the header of the heap's own segment, 0 where that is not in the dump."""
    offset = entry_format.layout["_HEAP_SEGMENT"].offset("FirstEntry")
    header = next((segment.address for segment in heap.segments if segment.span.start == heap.address), 0)
    entry = view.space.try_pointer(header + offset) if header else None
    return entry + entry_format.granule if entry else 0


def _has_lists(view: View, entry_format: EntryFormat, block: int) -> bool:
    """True where 128 records {list head, depth u16, greatest depth u16 …} of lookaside lists lie in the block."""
    size, head = entry_format.layout["_HEAP_LOOKASIDE"].size, 2 * view.pointer_bytes
    data = view.space.try_read(block, _LISTS * size)
    return data is not None and {data[at : at + 2] for at in range(head + 2, len(data), size)} == {_DEEPEST}
