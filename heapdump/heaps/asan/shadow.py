"""The shadow of AddressSanitizer, and the places where chunks begin by the shadow.

Values of a shadow byte, which describes 8 bytes of memory:

    00   all 8 bytes are addressable          ac   array cookie
    0k   the first k bytes are, k = 1 … 7     bb   inside an object
    fa   heap redzone                         f7   poisoned by the program
    fd   freed, in quarantine                 fc   unused capacity of a container

Shadow pages are committed on demand. The shadow of a page that was never committed is 00, and no chunk lies there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.asan.runtime import AsanRuntime
from heapdump.memory.space import AddressSpace
from heapdump.spans import Span

REDZONE, FREED = 0xFA, 0xFD
_INSIDE = (0xAC, 0xBB, 0xF7, 0xFC)
"""Shadow values, besides 00-07, that bytes of an allocated chunk may have."""

_WINDOW, _PAGE = 1 << 20, 0x1000
_IS_REDZONE = np.zeros(256, bool)
_IS_REDZONE[REDZONE] = True
_IS_CHUNK = np.zeros(256, bool)
_IS_CHUNK[[*range(8), FREED, *_INSIDE]] = True
IS_ALLOCATED = np.zeros(256, bool)
"""(256,) bool by shadow value: True where a byte of an allocated chunk may have it."""
IS_ALLOCATED[[*range(8), *_INSIDE]] = True
IS_SPECIAL = np.zeros(256, bool)
"""(256,) bool by shadow value: True for values that the program or the compiler's code writes over the allocator's."""
IS_SPECIAL[list(_INSIDE)] = True


@dataclass(frozen=True, slots=True)
class Shadow:
    """Reads the shadow of one runtime."""

    runtime: AsanRuntime
    space: AddressSpace

    def chunk_starts(self) -> Iterator[NDArray[np.uint64]]:
        """Addresses at which user data begin by the shadow: behind a redzone; ascending, (n,) uint64 each.

        Yields one array for each MiB of shadow. The header has to confirm each chunk.
        """
        for start, data in self._pieces():
            begins = np.flatnonzero(_IS_REDZONE[data[:-1]] & _IS_CHUNK[data[1:]]) + 1
            if len(begins):
                yield (np.uint64(start - self.runtime.shadow) + begins.astype(np.uint64)) << np.uint64(3)

    def at(self, addresses: NDArray[np.uint64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """((n,) shadow byte of each address, 0 where it is missing; (n,) True where the dump has it)."""
        places = np.uint64(self.runtime.shadow) + (addresses >> np.uint64(3))
        values, there = self.space.mapped.gather(places, 1)
        return values.astype(np.uint8), there

    def run_bytes(self, address: int, most: int) -> int:
        """Addressable or freed bytes from an address up to the next redzone; `most` where none comes before.

        0 where the dump lacks a byte of the shadow.
        """
        place = start = self.runtime.shadow + (address >> 3)
        while place - start < most >> 3:
            size = _PAGE - place % _PAGE
            data = self.space.try_read(place, size)
            if data is None:
                return 0
            at = data.find(bytes([REDZONE]))
            if at >= 0:
                last = data[at - 1] if at else 0
                return 8 * (place - start + at) - (8 - last if 0 < last < 8 else 0)
            place += size
        return most

    def _pieces(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(address of the first byte, (n,) uint8) of the shadow in the dump, in windows that overlap by one byte."""
        for span in self._present():
            for start in range(span.start, span.end - 1, _WINDOW):
                data = self.space.try_read(start, min(_WINDOW + 1, span.end - start))
                if data is not None:
                    yield start, np.frombuffer(data, np.uint8)

    def _present(self) -> Iterator[Span]:
        """Spans of the shadow that the dump holds, ascending; touching ranges are joined."""
        mapped, inside = self.space.mapped, self.runtime.shadow_span
        first = max(0, int(np.searchsorted(mapped.starts, np.uint64(inside.start), side="right")) - 1)
        last = int(np.searchsorted(mapped.starts, np.uint64(inside.end)))
        waiting: Span | None = None
        for low, high in zip(mapped.starts[first:last].tolist(), mapped.ends[first:last].tolist(), strict=True):
            start, end = max(low, inside.start), min(high, inside.end)
            if start >= end:
                continue
            if waiting is not None and waiting.end == start:
                waiting = Span(waiting.start, end)
                continue
            if waiting is not None:
                yield waiting
            waiting = Span(start, end)
        if waiting is not None:
            yield waiting
