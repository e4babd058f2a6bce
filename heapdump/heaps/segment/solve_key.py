"""The key of chunk headers, solved from the chunks alone: for dumps that hold neither a usable segment nor ntdll's data.

The first chunk of a subsegment has none before it, and the second one names its size: so of all places where the second
could be only few agree, and a chain that holds to its end proves the key. Which of the two values of the busy byte means
free follows from there being no two free chunks side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.segment.keys import Chain, read_header
from heapdump.process.model import View

_MOST_CHAINS = 8
_MOST_CHUNKS = 512
_LEAST_CHUNKS = 3


def solve_chunk_key(view: View, chains: Sequence[Chain]) -> int | None:
    """The key, None where no chain gives one."""
    for chain in chains[:_MOST_CHAINS]:
        found = [
            (side_by_side, key)
            for key in _candidates(view, chain)
            if (side_by_side := _free_pairs(view, chain, key)) is not None
        ]
        if found:
            return min(found)[1]
    return None


def _candidates(view: View, chain: Chain) -> Iterator[int]:
    """Keys under which the second chunk names the size of the first; two for each place, by the busy byte."""
    granule, wide = view.granularity, view.pointer_bytes == 8
    raw = view.space.try_pointer(chain.start)
    if raw is None:
        return
    sizes: NDArray[np.uint64] = np.arange(1, (chain.end - chain.start) // granule).astype(np.uint64)
    address = np.uint64(chain.start) + sizes * np.uint64(granule)
    words, there = view.space.mapped.gather(address, view.pointer_bytes)
    first = raw ^ chain.start
    before = ((words ^ address ^ np.uint64(first)) >> np.uint64(32 if wide else 16)) & np.uint64(
        0xFFFF if wide else 0x7FFF
    )
    for size in sizes[there & (before == sizes)].tolist():
        key = first ^ size << (16 if wide else 1)
        yield key
        yield key ^ (1 << 48 if wide else 1 << 31)


def _free_pairs(view: View, chain: Chain, key: int) -> int | None:
    """Free chunks that follow free ones; None where the chain does not hold, or is too short to prove anything."""
    at, previous, pairs, count, was_busy = chain.start, 0, 0, 0, 1
    while at < chain.end and count < _MOST_CHUNKS:
        header = read_header(view, at, key)
        if (
            header is None
            or header[1] != previous
            or not 0 < header[0] * view.granularity <= chain.end - at
            or header[2] > 1
        ):
            return None
        pairs += not (was_busy or header[2])
        at, previous, was_busy, count = at + header[0] * view.granularity, header[0], header[2], count + 1
    return pairs if count >= _LEAST_CHUNKS else None
