"""Blocks of the CRT's debug heap: what the header that debug builds put before every allocation says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

USES = {0: "free", 1: "normal", 2: "CRT", 3: "ignored", 4: "client"}
"""_CrtMemBlockHeader._block_use & 0xFFFF: _FREE_BLOCK … _CLIENT_BLOCK of crtdbg.h; the high half is a subtype."""


@dataclass(frozen=True, slots=True)
class CrtBlocks:
    """CRT debug blocks among the rows asked about, in their order; columns of one length n.

    `row`: of the block table, int64; `user`: what the program got, uint64; `size`: requested by it, bytes; `file`:
    address of the source file's name, 0 unknown; `line`, `request` (number of the allocation), `use`: int64;
    `guards`: int64, bit 0 the four bytes before the data are changed, bit 1 those behind.
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
    def joined(cls, parts: list[CrtBlocks]) -> CrtBlocks:
        """The blocks of several, one after the other."""
        unsigned = ("user", "file")
        columns = ([getattr(part, name) for part in parts] for name in cls.__slots__)
        empty = (np.empty(0, np.uint64 if name in unsigned else np.int64) for name in cls.__slots__)
        return cls(*(np.concatenate([first, *rest]) for first, rest in zip(empty, columns, strict=True)))
