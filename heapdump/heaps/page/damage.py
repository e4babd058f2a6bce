"""Finds damage of one block of a page heap: in its block information, the fill behind it, the fill of a freed block.

Expected bytes: docs/reference/heap-structures.md §5.2, confirmed by every recorded page heap of XP and 19041.
"""

from __future__ import annotations

from collections.abc import Iterator

from heapdump.blocks.byte_damage import ByteDamage
from heapdump.blocks.findings import FindingKind
from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import Block
from heapdump.heaps.page.light import BUSY_STAMPS, FREED_STAMPS
from heapdump.heaps.page.structures import light_heap_member, root_of
from heapdump.layouts import Struct, load
from heapdump.process.model import View
from heapdump.spans import Span

FULL_SUFFIX = 0xD0
"""The byte behind the requested bytes of a full block, up to the end of its accessible pages."""

LIGHT_SUFFIX = 0xA0
"""The byte behind the requested bytes of a light block, for one granule."""

FREED_FILL = 0xF0
"""The byte that fills the requested bytes of a freed light block."""

_STAMPS = {
    (BlockKind.PAGE, "busy"): (0xABCDBBBB, 0xDCBABBBB), (BlockKind.PAGE, "free"): (0xABCDBBBA, 0xDCBABBBA),
    (BlockKind.LIGHT, "busy"): BUSY_STAMPS, (BlockKind.LIGHT, "free"): FREED_STAMPS,
}  # fmt: skip
"""(kind, state) → (StartStamp, EndStamp), 32 bits each."""

_PIECE_BYTES = 1 << 20


def byte_damage(view: View, heap: Heap, block: Block) -> Iterator[ByteDamage]:
    """The damaged bytes of a block of this page heap; bytes that are not in the dump are not compared."""
    if heap.layout is not None and block.entry != block.address:
        yield from _information_damage(view, load(heap.layout)["_DPH_BLOCK_INFORMATION"], heap.address, block)
    is_light = block.kind == BlockKind.LIGHT
    if is_light and block.state == "free":
        yield from _fill_damage(view, "page_freed_fill", "fill", (block.address, block.size), FREED_FILL)
    end = block.address + block.size
    if is_light:
        yield from _fill_damage(view, "page_suffix", "fill behind the bytes", (end, view.granularity), LIGHT_SUFFIX)
    elif block.state == "busy":
        # a block behind its guard page has this fill as well
        yield from _fill_damage(view, "page_suffix", "fill behind the bytes", (end, block.end - end), FULL_SUFFIX)


def _information_damage(view: View, information: Struct, heap: int, block: Block) -> Iterator[ByteDamage]:
    """The members of the block information, in front of the user data, whose values are wrong."""
    start, pointer = block.address - information.size, view.pointer_bytes
    data = view.space.try_read(start, information.size)
    if data is None:
        return
    start_stamp, end_stamp = _STAMPS[block.kind, block.state]
    root = light_heap_member(view, heap) if block.kind == BlockKind.LIGHT else root_of(heap)
    values = {"StartStamp": (start_stamp, 4), "Heap": (root, pointer), "EndStamp": (end_stamp, 4)}
    if block.size < 1 << 32:  # RequestedSize of an x86 block has 32 bits
        values["RequestedSize"] = (block.size, pointer)
    for name, (value, size) in sorted(values.items(), key=lambda item: information.offset(item[0])):
        place, expected = information.offset(name), value.to_bytes(size, "little")
        found = data[place : place + size]
        if found != expected:
            first = next(i for i in range(size) if found[i] != expected[i])
            stop = next(i for i in range(size, 0, -1) if found[i - 1] != expected[i - 1])
            yield ByteDamage("page_header", name, start + place + first, expected[first:stop], found[first:stop])


def _fill_damage(view: View, kind: FindingKind, what: str, place: tuple[int, int], fill: int) -> Iterator[ByteDamage]:
    """The bytes from the first to the last that is not `fill`, in the first MiB with one; `place`: (address, size)."""
    start, size = place
    damaged = _damaged_pieces(view, Span(start, start + size), fill)
    first = next(damaged, None)
    if first is not None:
        address, found = first
        is_cut = next(damaged, None) is not None
        yield ByteDamage(kind, what, address, bytes([fill]) * len(found), found, is_cut)


def _damaged_pieces(view: View, span: Span, fill: int) -> Iterator[tuple[int, bytes]]:
    """(address, bytes from the first to the last that is not `fill`) of each MiB with one, up to the first hole."""
    for at in range(span.start, span.end, _PIECE_BYTES):
        data = view.space.try_read(at, min(_PIECE_BYTES, span.end - at))
        if data is None:
            return
        changed = data.lstrip(bytes([fill]))
        if changed:
            yield at + len(data) - len(changed), changed.rstrip(bytes([fill]))
