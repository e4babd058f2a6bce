"""AddressSanitizer's own view of an address: rows of shadow bytes, and who allocated and freed a chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from heapdump.blocks.table import Block


@dataclass(frozen=True, slots=True)
class ShadowRow:
    """16 shadow bytes, of the 128 bytes of memory from `address` on; None where the dump lacks one."""

    address: int
    values: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class ChunkStory:
    """A chunk by its header: the function that allocated it, threads by AddressSanitizer's numbers, ids of stacks.

    `free_thread`, `free_stack`: None for a chunk that is not freed, and where its first bytes are not in the dump.
    """

    function: str
    thread: int
    stack: int
    free_thread: int | None
    free_stack: int | None


class ShadowReader(Protocol):
    """The shadow and the chunk headers of one heap of AddressSanitizer, read when they are asked for."""

    def byte(self, address: int) -> int | None:
        """The shadow byte of an address; None where the dump lacks it."""

    def rows(self, address: int, around: int) -> tuple[ShadowRow, ...]:
        """The row of an address and `around` rows on both sides; none where the byte of the address is missing."""

    def story(self, block: Block, facts: Mapping[str, object]) -> ChunkStory | None:
        """The header of a chunk; None where it is not in the dump, or makes no sense. `facts`: of the heap's walk."""
