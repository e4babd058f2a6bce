"""The owner of each 8 bytes around a damaged place, in rows of 128 bytes, in the manner of AddressSanitizer's shadow.

The rows come from the block table. The process keeps no shadow memory of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heapdump.blocks.table import BlockTable

_CELL_BYTES, _CELLS = 8, 16
LEGEND = {
    "a": "allocated", "f": "free", "h": "header", "s": "after the requested bytes", ".": "no block", "X": "damaged",
}  # fmt: skip
"""Letter of a cell → its meaning."""

_ROWS_AROUND = 2


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """128 bytes of memory.

    Attributes:
        address: of the first byte.
        cells: 16 letters of `LEGEND`, one for 8 bytes each.
        is_hit: True where the damage begins in this row.
    """

    address: int
    cells: str
    is_hit: bool


def memory_rows(table: BlockTable, address: int, length: int) -> list[MemoryRow]:
    """Five rows, the damaged bytes [address, address + length) in the middle one.

    A cell is damaged where any of its bytes is; else it shows the owner of its first byte.
    """
    width = _CELL_BYTES * _CELLS
    middle = address // width * width
    rows = range(max(0, middle - _ROWS_AROUND * width), middle + (_ROWS_AROUND + 1) * width, width)
    return [MemoryRow(row, _cells(table, row, address, length), row == middle) for row in rows]


def _cells(table: BlockTable, start: int, address: int, length: int) -> str:
    first = max(0, int(np.searchsorted(table.entry, np.uint64(start), side="right")) - 4)
    last = int(np.searchsorted(table.entry, np.uint64(start + _CELL_BYTES * _CELLS)))
    blocks = [block for block in table.blocks(np.arange(first, last)) if not block.is_internal]
    out = []
    for at in range(start, start + _CELL_BYTES * _CELLS, _CELL_BYTES):
        if at < address + max(length, 1) and address < at + _CELL_BYTES:
            out.append("X")
            continue
        block = next((b for b in reversed(blocks) if b.entry <= at < b.end), None)
        if block is None:
            out.append(".")
        elif block.state == "free":
            out.append("f")
        elif at < block.address:
            out.append("h")
        else:
            out.append("a" if at < block.address + block.size else "s")
    return "".join(out)
