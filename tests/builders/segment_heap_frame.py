"""The frame of a built segment heap: header, contexts, segment headers and descriptors, the tree of large blocks.

In: what `SegmentHeapBuilder` collected. Out: memory and regions. Offsets are those restated by hand in
`segment_heap_layout.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .memory_image import PAGE, MemoryImage
from .segment_heap_layout import CONSTANT, SegmentLayout

if TYPE_CHECKING:
    from .segment_heap import LargePart, _Segment

_OWN = 0x10000
_METADATA = 0x100000
Frame = tuple[
    tuple[tuple[int, bytes], ...], tuple[tuple[int, int, bool, int], ...], tuple[tuple[int, int], ...], tuple[int, ...], tuple[int, int]
]  # fmt: skip


def finish(
    lay: SegmentLayout,
    image: MemoryImage,
    build: int,
    base: int,
    key: int,
    segments: list[_Segment],
    large: list[LargePart],
) -> Frame:
    """(memory, regions, segments, nodes of large blocks, (reserved, committed bytes) of segments and own structures)."""
    regions = [(base, PAGE, True, base), (base + PAGE, _OWN - PAGE, False, base)]
    reserved, committed = _OWN, PAGE
    for part in segments:
        size = 256 * part.unit
        image.commit(part.base, part.committed[0][1] * part.unit)
        _descriptors(lay, image, build, part)
        runs = _runs(part)
        reserved, committed = reserved + size, committed + sum(end - start for start, end in runs)
        regions += _regions(part.base, size, runs)
    _header(lay, image, build, base, reserved, committed, sum(block.commit for block in large))
    _lists(lay, image, build, base, key, segments)
    nodes = _tree(lay, image, build, base, large)
    regions += [(block.address, block.commit, True, block.address) for block in large]
    if nodes:
        regions.append((nodes[0], PAGE, True, nodes[0]))
    spans = tuple((part.base, part.base + 256 * part.unit) for part in segments)
    return image.pieces(), tuple(sorted(regions)), spans, nodes, (reserved, committed)


def _runs(part: _Segment) -> list[tuple[int, int]]:
    """[start, end) of the committed runs of a segment."""
    runs: list[tuple[int, int]] = []
    for first, last in part.committed:
        start, end = part.base + first * part.unit, part.base + last * part.unit
        if start == end:
            continue
        if runs and runs[-1][1] == start:
            start = runs.pop()[0]
        runs.append((start, end))
    return runs


def _regions(base: int, size: int, runs: list[tuple[int, int]]) -> list[tuple[int, int, bool, int]]:
    out, at = [], base
    for start, end in [*runs, (base + size, base + size)]:
        if start > at:
            out.append((at, start - at, False, base))
        if end > start:
            out.append((start, end - start, True, base))
        at = end
    return out


def _descriptors(lay: SegmentLayout, image: MemoryImage, build: int, part: _Segment) -> None:
    inside = 0x06 if build < 16299 else 0x01
    free = 0x08 if build < 16299 else 0x02
    ranges = list(part.ranges)
    if part.used < 256:
        ranges.append((part.used, 256 - part.used, free, 0))
    for first, units, flags, unused in ranges:
        at = part.base + first * lay.descriptor
        image.u8(at + lay.flags, flags)
        image.u8(at + lay.units, units)
        if flags == free:
            if units > 1:
                image.u8(at + (units - 1) * lay.descriptor + lay.units, units - 1)
            continue
        image.u32(at, 0xCCDDCCDD)
        place, size = lay.unused
        (image.u32 if size == 4 else image.u16)(at + place, unused)
        for i in range(1, units):
            image.u8(at + i * lay.descriptor + lay.flags, inside)
            image.u8(at + i * lay.descriptor + lay.units, i)


def _header(
    lay: SegmentLayout, image: MemoryImage, build: int, base: int, reserved: int, committed: int, large: int
) -> None:
    image.u32(base + 2 * lay.pointer, 0xDDEEDDEE)
    bounds = (base + 0x900, base + PAGE, base + _OWN, base + _OWN)
    for place, value in zip(lay.bounds, bounds, strict=False):
        image.word(base + place, value)
    for place, value in zip((*lay.totals, *lay.large_pages), (reserved, committed, large, large), strict=True):
        image.word(base + place, value // PAGE)


def _lists(lay: SegmentLayout, image: MemoryImage, build: int, base: int, key: int, segments: list[_Segment]) -> None:
    top = (1 << 8 * lay.pointer) - 1
    constant = 0 if build >= 26100 else CONSTANT & top
    for number, unit in enumerate((PAGE, 0x10000)):
        mine = [part for part in segments if part.unit == unit]
        if lay.contexts is None:
            if unit != PAGE:
                continue
            anchor, head, count = base, base + lay.head, base + lay.count
        else:
            anchor = base + lay.contexts + number * lay.context_size
            head, count = anchor + lay.head, anchor + lay.count
            image.word(anchor, top + 1 - 256 * unit)
            image.write(
                anchor + lay.shift,
                bytes([unit.bit_length() - 1, unit.bit_length() - 13, -(-256 * lay.descriptor // unit)]),
            )
            image.word(anchor + lay.context_heap, base)
        image.word(count, len(mine))
        image.ring(head, [part.base for part in mine])
        for part in mine:
            place = part.base >> 20 if build < 16299 else part.base
            image.word(part.base + 2 * lay.pointer, place ^ anchor ^ key ^ constant)


def _tree(lay: SegmentLayout, image: MemoryImage, build: int, base: int, large: list[LargePart]) -> tuple[int, ...]:
    """A tree of the large blocks, balanced; its links are encoded in every other heap."""
    if not large:
        return ()
    place = base + _METADATA
    image.commit(place, PAGE)
    step = 8 * lay.pointer
    nodes = tuple(place + i * step for i in range(len(large)))
    encoded = bool(base >> 20 & 1)
    blocks = sorted(large, key=lambda block: block.address)

    def link(low: int, high: int, parent: int) -> int:
        if low >= high:
            return 0
        middle = (low + high) // 2
        node = nodes[middle]
        children = [link(low, middle, node), link(middle + 1, high, node)]
        image.word(node, *((child ^ node if encoded and child else child) for child in children), parent)
        block = blocks[middle]
        image.word(node + 3 * lay.pointer, block.address | block.unused, block.commit | block.has_extra)
        return node

    root, tree = link(0, len(blocks), 0), base + lay.tree
    image.word(tree, root ^ tree if encoded else root, (nodes[0] ^ tree | 1) if encoded else nodes[0])
    return nodes
