"""AddressSanitizer's records of an address: rows of shadow bytes, and the header of a chunk.

One shadow byte describes 8 bytes of memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from heapdump.blocks.table import Block


@dataclass(frozen=True, slots=True)
class ShadowRow:
    """The shadow of the 128 bytes [address, address + 128).

    Attributes:
        address: of the memory, not of the shadow; a multiple of 128.
        values: 16 shadow bytes, one for each 8 bytes of memory; None for a shadow byte that is not in the dump.
    """

    address: int
    values: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class AsanChunkHeader:
    """The decoded header of a chunk.

    Attributes:
        function: `malloc`, `operator new` or `operator new[]`.
        thread: AddressSanitizer's number of the thread that allocated the chunk.
        stack: id of the allocation stack in AddressSanitizer's stack depot.
        free_thread: number of the thread that freed it; None for a chunk in use, or where it is not in the dump.
        free_stack: id of the stack that freed it; None likewise.
    """

    function: str
    thread: int
    stack: int
    free_thread: int | None
    free_stack: int | None


class ShadowReader(Protocol):
    """Reads the shadow and the chunk headers of one heap of AddressSanitizer."""

    def byte(self, address: int) -> int | None:
        """The shadow byte of an address; None where the dump lacks it."""

    def rows(self, address: int, around: int) -> tuple[ShadowRow, ...]:
        """The row of an address and `around` rows on both sides; empty where the address's shadow byte is missing."""

    def chunk_header(self, block: Block, facts: Mapping[str, object]) -> AsanChunkHeader | None:
        """The header of a chunk; None where it is not in the dump or names no allocation function.

        `facts`: `Walk.facts` of the heap, which say whether headers have the old layout.
        """
