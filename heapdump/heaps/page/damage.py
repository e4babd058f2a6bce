"""What is damaged around a page heap block: its stamps, the fill behind it, the fill of a freed one.

Expected bytes (semantics.md §2.3, confirmed by every recorded page heap of XP and 19041): D0 from the requested end to the
end of the accessible page; of a light block A0, 8 bytes on x86 and 16 on x64; F0 in a light block that was freed.
"""

from __future__ import annotations

from collections.abc import Iterator

from heapdump.blocks.byte_damage import ByteDamage
from heapdump.blocks.findings import FindingKind
from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import Block
from heapdump.layouts import Struct, load
from heapdump.process.model import View

FULL_SUFFIX, LIGHT_SUFFIX, FREED_FILL = 0xD0, 0xA0, 0xF0
_ROOT_OFFSET = 0x1000
_STAMPS = {
    (BlockKind.PAGE, "busy"): (0xABCDBBBB, 0xDCBABBBB), (BlockKind.PAGE, "free"): (0xABCDBBBA, 0xDCBABBBA),
    (BlockKind.LIGHT, "busy"): (0xABCDAAAA, 0xDCBAAAAA), (BlockKind.LIGHT, "free"): (0xABCDAAA9, 0xDCBAAAA9),
}  # fmt: skip
_PIECE = 1 << 20


def byte_damage(view: View, heap: Heap, block: Block) -> Iterator[ByteDamage]:
    """Every damaged place of a block of this page heap, ascending by address. What is not in the dump is not damaged."""
    if heap.layout is not None and block.entry != block.address:
        yield from _header(view, load(heap.layout)["_DPH_BLOCK_INFORMATION"], heap.address, block)
    if block.kind == BlockKind.LIGHT and block.state == "free":
        yield from _fill(view, "page_freed_fill", "fill", block.address, block.size, FREED_FILL)
    end = block.address + block.size
    if block.kind == BlockKind.LIGHT:
        yield from _fill(view, "page_suffix", "fill behind the bytes", end, view.granularity, LIGHT_SUFFIX)
    elif block.state == "busy":
        # a block whose guard page lies before it is followed by the fill to the end of its page, too
        yield from _fill(view, "page_suffix", "fill behind the bytes", end, block.end - end, FULL_SUFFIX)


def _header(view: View, information: Struct, heap: int, block: Block) -> Iterator[ByteDamage]:
    start = block.address - information.size
    data = view.space.try_read(start, information.size)
    if data is None:
        return
    first, last = _STAMPS[block.kind, block.state]
    root = heap + _ROOT_OFFSET | (1 << 8 * view.pointer_bytes - 1) * (block.kind == BlockKind.LIGHT)
    words = {"StartStamp": (first, 4), "Heap": (root, view.pointer_bytes), "EndStamp": (last, 4)}
    if block.size < 1 << 32:  # else the size of an x86 block would not fit its own member
        words["RequestedSize"] = (block.size, view.pointer_bytes)
    for name, (value, size) in sorted(words.items(), key=lambda item: information.offset(item[0])):
        place, expected = information.offset(name), value.to_bytes(size, "little")
        found = data[place : place + size]
        if found != expected:
            lead = next(i for i in range(size) if found[i] != expected[i])
            rest = next(i for i in range(size, 0, -1) if found[i - 1] != expected[i - 1])
            yield ByteDamage("page_header", name, start + place + lead, expected[lead:rest], found[lead:rest])


def _fill(view: View, kind: FindingKind, what: str, start: int, size: int, fill: int) -> Iterator[ByteDamage]:
    """The stretch from the first to the last byte that is not the fill, within the first piece that has one."""
    for at in range(start, start + size, _PIECE):
        data = view.space.try_read(at, min(_PIECE, start + size - at))
        if data is None:
            return
        rest = data.lstrip(bytes([fill]))
        if rest:
            lead = len(data) - len(rest)
            found = rest.rstrip(bytes([fill]))
            yield ByteDamage(kind, what, at + lead, bytes([fill]) * len(found), found)
            return
