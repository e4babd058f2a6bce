"""Blocks of the CRT's debug heap: debug builds put a `_CrtMemBlockHeader` before every allocation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

USES = {0: "free", 1: "normal", 2: "CRT", 3: "ignored", 4: "client"}
"""_CrtMemBlockHeader._block_use & 0xFFFF: _FREE_BLOCK … _CLIENT_BLOCK of crtdbg.h; the high half is a subtype."""


@dataclass(frozen=True, slots=True)
class CrtBlocks:
    """CRT debug blocks, in the order of the block table; (n,) each.

    Attributes:
        row: row of the block table that holds the CRT block.
        user: address that the program got, behind the header and the first guard.
        size: bytes that the program requested.
        file: address of the name of the source file that allocated it; 0 where it is not recorded.
        line: line in that file.
        request: number of the allocation, counted from 1 by the CRT.
        use: key of `USES`.
        guards: bit 0: the 4 guard bytes before the data are changed; bit 1: the 4 guard bytes behind them.
    """

    row: NDArray[np.int64]
    user: NDArray[np.uint64]
    size: NDArray[np.int64]
    file: NDArray[np.uint64]
    line: NDArray[np.int64]
    request: NDArray[np.int64]
    use: NDArray[np.int64]
    guards: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of CRT debug blocks."""
        return len(self.row)

    @classmethod
    def none(cls) -> CrtBlocks:
        """No block."""
        return cls.joined([])

    @classmethod
    def joined(cls, pieces: list[CrtBlocks]) -> CrtBlocks:
        """The blocks of all `pieces`, one part after the other."""
        unsigned = ("user", "file")
        columns = ([getattr(part, name) for part in pieces] for name in cls.__slots__)
        empty = (np.empty(0, np.uint64 if name in unsigned else np.int64) for name in cls.__slots__)
        return cls(*(np.concatenate([first, *rest]) for first, rest in zip(empty, columns, strict=True)))
