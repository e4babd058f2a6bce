"""Blocks of the CRT's debug heap: `_CrtMemBlockHeader` before the data, guards of four bytes FD on both sides.

    | next prev file line use size request FDFDFDFD | data | FDFDFDFD |

In x86 CRTs up to Visual Studio 2013 size lies before use (semantics.md §2.4); both orders are tried. A block of the
heap is a CRT block where its requested bytes are those of header, data and guards, the use is a known one, and both
guards hold. Where a guard is damaged, the next or previous block on the CRT's list must be a CRT block and point back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.crt_blocks import CrtBlocks
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import BlockTable
from heapdump.blocks.walk import Walk
from heapdump.heaps.allocator import PAGE
from heapdump.kernels.row import BUSY, INTERNAL
from heapdump.memory.space import AddressSpace
from heapdump.process.model import View
from heapdump.spans import Span

_GUARD, _GUARD_BYTES = 0xFDFDFDFD, 4
_MOST_USE = 4
_MANY = 1 << 10
_BATCH, _BATCH_APART = 1 << 18, 1 << 11
"""Rows that are examined together: where they lie close to each other, and where each has pages of its own."""


@dataclass(frozen=True, slots=True)
class CrtHeader:
    """Offsets of the members of _CrtMemBlockHeader, in bytes.

    Attributes:
        pointer: bytes of a pointer, and of the member `data_size`.
        file: of the pointer to the name of the source file.
        line: of the line number, 4 bytes.
        use: of the block use, 4 bytes.
        data_size: of the requested bytes.
        request: of the number of the allocation, 4 bytes.
        gap: of the guard before the data, 4 bytes.
    """

    pointer: int
    file: int
    line: int
    use: int
    data_size: int
    request: int
    gap: int

    @property
    def bytes(self) -> int:
        """Bytes of the header, the guard before the data included."""
        return self.gap + _GUARD_BYTES


HEADERS = {
    8: (CrtHeader(8, 0x10, 0x18, 0x1C, 0x20, 0x28, 0x2C),),
    4: (CrtHeader(4, 0x08, 0x0C, 0x10, 0x14, 0x18, 0x1C), CrtHeader(4, 0x08, 0x0C, 0x14, 0x10, 0x18, 0x1C)),
}
"""Pointer size → header formats: x64; x86 of the Universal CRT, x86 of earlier CRTs."""


class CrtReader:
    """Finds CRT debug blocks among rows of the block table."""

    def __init__(self, views: Sequence[View], heaps: Sequence[Heap], walk: Walk) -> None:
        """Reads nothing yet."""
        self._walk = walk
        self._spaces = [next(view for view in views if view.arch == heap.view).space for heap in heaps]

    @property
    def _table(self) -> BlockTable:
        return self._walk.table

    def blocks(self, rows: NDArray[np.int64]) -> CrtBlocks:
        """The CRT debug blocks among these rows of the block table. Takes some 0.3 µs for a row that is none."""
        found = []
        entry, at_once = self._table.entry, _BATCH
        if len(rows) and int(entry[rows].max() - entry[rows].min()) // len(rows) > PAGE:
            at_once = _BATCH_APART
        for first in range(0, len(rows), at_once):
            batch = rows[first : first + at_once]
            batch = batch[self._table.tags[batch] & np.uint16(BUSY | INTERNAL) == np.uint16(BUSY)]
            owners = self._table.heap[batch]
            for heap in np.unique(owners).tolist():
                of_heap = batch[owners == heap]
                found += [self._of(heap, header, of_heap) for header in HEADERS[self._spaces[heap].pointer_bytes]]
                if len(rows) > at_once:  # the file's pages of all of them need not stay in memory
                    self._spaces[heap].mapped.forget(Span(int(entry[of_heap].min()), int(entry[of_heap].max())))
        blocks = CrtBlocks.joined(found)
        _, order = np.unique(blocks.row, return_index=True)  # a block whose use equals its size fits both formats
        return CrtBlocks(*(getattr(blocks, name)[order] for name in CrtBlocks.__slots__))

    def _of(self, heap: int, header: CrtHeader, rows: NDArray[np.int64]) -> CrtBlocks:
        space, table = self._spaces[heap], self._table
        sizes = table.sizes(rows).astype(np.int64)
        room = sizes >= header.bytes + _GUARD_BYTES
        rows, sizes = rows[room], sizes[room]
        start = table.addresses(rows)

        def member(offset: int, size: int) -> NDArray[np.uint64]:
            """A member of every header."""
            return space.mapped.gather(start + np.uint64(offset), size)[0]

        before = member(header.gap, _GUARD_BYTES) != _GUARD
        if len(rows) > _MANY and before.all():  # none of very many blocks has a guard: not the CRT's
            return CrtBlocks.none()
        data = member(header.data_size, header.pointer).astype(np.int64)
        use = member(header.use, 4).astype(np.int64)
        fits = (data >= 0) & (data + header.bytes + _GUARD_BYTES == sizes) & ((use & 0xFFFF) <= _MOST_USE)
        after = np.ones(len(rows), bool)
        after[fits] = (
            space.mapped.gather(start[fits] + (data[fits] + header.bytes).astype(np.uint64), _GUARD_BYTES)[0] != _GUARD
        )
        damaged = np.flatnonzero(fits & (before | after))
        is_crt = fits & ~before & ~after
        is_crt[damaged] = [_is_linked(space, header, int(start[i])) for i in damaged.tolist()]
        return CrtBlocks(
            rows[is_crt], start[is_crt] + np.uint64(header.bytes), data[is_crt],
            member(header.file, header.pointer)[is_crt], _signed(member(header.line, 4)[is_crt]),
            _signed(member(header.request, 4)[is_crt]), use[is_crt],
            (before.astype(np.int64) | after.astype(np.int64) << 1)[is_crt],
        )  # fmt: skip


def _is_linked(space: AddressSpace, header: CrtHeader, block: int) -> bool:
    """True where the next or the previous block on the CRT's list is undamaged and points back at this one."""
    for link, back in ((0, header.pointer), (header.pointer, 0)):
        other = space.try_pointer(block + link)
        if other and space.try_pointer(other + back) == block and _is_whole(space, header, other):
            return True
    return False


def _is_whole(space: AddressSpace, header: CrtHeader, block: int) -> bool:
    """True where the header at an address has a known use and both guards hold."""
    use, size = space.try_integer(block + header.use, 4), space.try_integer(block + header.data_size, header.pointer)
    if use is None or size is None or use & 0xFFFF > _MOST_USE:
        return False
    places = (block + header.gap, block + header.bytes + size)
    return all(space.try_integer(place, _GUARD_BYTES) == _GUARD for place in places)


def _signed(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """32-bit values as the C type `int`."""
    return values.astype(np.uint32).view(np.int32).astype(np.int64)
