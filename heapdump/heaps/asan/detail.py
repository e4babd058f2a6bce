"""Reads AddressSanitizer's shadow around an address, and the header of one chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from heapdump.blocks.asan_detail import AsanChunkHeader, ShadowRow
from heapdump.blocks.table import Block
from heapdump.heaps.asan.chunks import HEADER
from heapdump.heaps.asan.runtime import AsanRuntime
from heapdump.memory.space import AddressSpace

_ROW, _GRANULE = 16, 8
_FUNCTIONS = {1: "malloc", 2: "operator new", 3: "operator new[]"}
"""Function in a chunk's header, 2 bits (`chunks`) → its name."""

_FREED = 3


@dataclass(frozen=True, slots=True)
class DumpedShadow:
    """Implements `blocks.asan_detail.ShadowReader` for a shadow that the dump holds."""

    runtime: AsanRuntime
    space: AddressSpace

    def byte(self, address: int) -> int | None:
        """The shadow byte of an address; None where the dump lacks it."""
        place = self.runtime.shadow + (address >> 3)
        return self.space.try_integer(place, 1) if place in self.runtime.shadow_span else None

    def rows(self, address: int, around: int) -> tuple[ShadowRow, ...]:
        """The row of an address and `around` rows on both sides; empty where the address's shadow byte is missing."""
        if self.byte(address) is None:
            return ()
        size = _ROW * _GRANULE
        starts = range(max(0, address // size - around) * size, (address // size + around + 1) * size, size)
        return tuple(ShadowRow(at, tuple(self.byte(at + i * _GRANULE) for i in range(_ROW))) for at in starts)

    def chunk_header(self, block: Block, facts: Mapping[str, object]) -> AsanChunkHeader | None:
        """The header of a chunk; None where it is not in the dump or names no allocation function."""
        words = [self.space.try_integer(block.address - HEADER + 4 * i, 4) for i in range(6)]
        first, second, third, fourth, free_stack, fifth = words
        if first is None or second is None or third is None or fourth is None:
            return None
        function, thread, stack, free_thread = _FUNCTIONS.get(first >> 8 & 3), fourth, third, fifth
        if facts.get("old_headers"):
            function, thread, stack = _FUNCTIONS.get(second >> 25 & 3), first >> 8, fourth
            free_thread = second & 0xFFFFFF
        if function is None:
            return None
        freed = (free_thread, free_stack) if first & 0xFF == _FREED else (None, None)
        return AsanChunkHeader(function, thread, stack, *freed)
