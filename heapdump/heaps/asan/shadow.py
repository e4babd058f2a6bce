"""The shadow of AddressSanitizer: its bytes where the dump has them, and the chunks that begin there.

    shadow byte  00 all 8 bytes addressable · 01-07 only the first ones · fa heap redzone · fd freed (in quarantine)
                 ac array cookie · bb inside an object · f7 poisoned by the program · fc spare capacity of a container

Windows commits shadow pages on demand. A page that was never committed stands for addressable memory without chunks.
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
"""Values that an allocated chunk may have in its shadow besides 00-07."""

_WINDOW, _PAGE = 1 << 20, 0x1000
_IS_REDZONE = np.zeros(256, bool)
_IS_REDZONE[REDZONE] = True
_IS_CHUNK = np.zeros(256, bool)
_IS_CHUNK[[*range(8), FREED, *_INSIDE]] = True
IS_ALLOCATED = np.zeros(256, bool)
"""(256,) bool: whether an allocated chunk may have this byte in its shadow."""
IS_ALLOCATED[[*range(8), *_INSIDE]] = True
IS_SPECIAL = np.zeros(256, bool)
"""(256,) bool: whether the byte is one that the program, or the compiler for it, wrote over the allocator's."""
IS_SPECIAL[list(_INSIDE)] = True


@dataclass(frozen=True, slots=True)
class Shadow:
    """The shadow of a runtime in the dump's memory."""

    runtime: AsanRuntime
    space: AddressSpace

    def chunk_starts(self) -> Iterator[NDArray[np.uint64]]:
        """Addresses of user data before which a redzone ends and at which a chunk begins, ascending; (n,) uint64 each.

        One array for each mebibyte of shadow. Whether a chunk lies there is for its header to say.
        """
        for start, data in self._pieces():
            begins = np.flatnonzero(_IS_REDZONE[data[:-1]] & _IS_CHUNK[data[1:]]) + 1
            if len(begins):
                yield (np.uint64(start - self.runtime.shadow) + begins.astype(np.uint64)) << np.uint64(3)

    def at(self, addresses: NDArray[np.uint64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(shadow bytes of addresses, whether the dump has them); (n,) each."""
        places = np.uint64(self.runtime.shadow) + (addresses >> np.uint64(3))
        values, there = self.space.mapped.gather(places, 1)
        return values.astype(np.uint8), there

    def run_bytes(self, address: int, most: int) -> int:
        """Bytes from an address to the next redzone by the shadow, at most `most`; bytes of the last granule by its value."""
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
        """(address, (n,) uint8 shadow bytes), in windows that overlap by one byte; none for what the dump lacks."""
        for span in self._present():
            for start in range(span.start, span.end - 1, _WINDOW):
                data = self.space.try_read(start, min(_WINDOW + 1, span.end - start))
                if data is not None:
                    yield start, np.frombuffer(data, np.uint8)

    def _present(self) -> Iterator[Span]:
        """Spans of shadow memory in the dump, touching ranges as one, ascending."""
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
