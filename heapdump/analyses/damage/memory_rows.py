"""A map of the memory around a damaged place, eight bytes a cell, in the manner of AddressSanitizer's shadow.

It is made from the heap's own records, not from a shadow that the process kept: the legend is another one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heapdump.blocks.table import BlockTable

CELL, CELLS = 8, 16
LEGEND = {
    "a": "allocated", "f": "free", "h": "header", "s": "behind the requested bytes", ".": "no block", "X": "damaged",
}  # fmt: skip
_ROWS_AROUND = 2


@dataclass(frozen=True, slots=True)
class ShadowRow:
    """16 cells of 8 bytes from `address` on; `is_hit`: the damage begins here."""

    address: int
    cells: str
    is_hit: bool


def shadow(table: BlockTable, address: int, length: int) -> list[ShadowRow]:
    """Five rows around an address. A cell is what its first byte belongs to, or damaged where any of it is."""
    width = CELL * CELLS
    middle = address // width * width
    rows = range(max(0, middle - _ROWS_AROUND * width), middle + (_ROWS_AROUND + 1) * width, width)
    return [ShadowRow(row, _cells(table, row, address, length), row == middle) for row in rows]


def _cells(table: BlockTable, start: int, address: int, length: int) -> str:
    first = max(0, int(np.searchsorted(table.entry, np.uint64(start), side="right")) - 4)
    last = int(np.searchsorted(table.entry, np.uint64(start + CELL * CELLS)))
    blocks = [block for block in table.blocks(np.arange(first, last)) if not block.is_internal]
    out = []
    for at in range(start, start + CELL * CELLS, CELL):
        if at < address + max(length, 1) and address < at + CELL:
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
