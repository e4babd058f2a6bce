"""Solves the key of VS chunk headers from the chunks alone: for dumps without segment signatures and ntdll's data.

The first chunk of a subsegment has previous size 0, and the second names the size of the first. So each possible place
of the second chunk gives one key. A chain that holds to its end under a key proves it, except for the lowest busy bit.
Of the two values of that bit, the right one gives fewer pairs of neighbouring free chunks, because the allocator joins
those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.segment.vs_chunks import header_fields, read_chunk_header
from heapdump.process.model import View
from heapdump.spans import Span

_MOST_CHAINS = 8
_MOST_CHUNKS = 512
_SHOWN_CHUNKS = 64
"""The most chunks of a chain whose states are compared."""

_LEAST_CHUNKS = 3
"""Number of chunks in a chain that proves a key."""


def solve_vs_key(view: View, chains: Sequence[Span]) -> int | None:
    """The key of the chunks in these chains; None where no chain gives one."""
    for chain in chains[:_MOST_CHAINS]:
        pairs = ((_free_pairs(view, chain, key), key) for key in _candidates(view, chain))
        found = [(count, key) for count, key in pairs if count is not None]
        if found:
            return min(found)[1]
    return None


def with_busy_bit(view: View, chains: Sequence[Span], key: int) -> int:
    """The key with the right lowest busy bit: a signature that is damaged there gives one under which all chains hold.

    Under the wrong one busy chunks are free, and neighbours of each other.
    """
    flipped = key ^ _busy_bit(view)
    pairs = [sum(_free_pairs_to_damage(view, chain, one) for chain in chains) for one in (key, flipped)]
    return flipped if pairs[1] < pairs[0] else key


def _busy_bit(view: View) -> int:
    """The lowest bit of Allocated in a decoded header."""
    return 1 << (48 if view.pointer_bytes == 8 else 31)


def _free_pairs_to_damage(view: View, chain: Span, key: int) -> int:
    """The number of free chunks behind free ones among the first _SHOWN_CHUNKS of a chain, up to the first damage."""
    at, previous, pairs, was_busy = chain.start, 0, 0, 1
    for _ in range(_SHOWN_CHUNKS):
        header = read_chunk_header(view, at, key) if at < chain.end else None
        if header is None or not header.holds(previous, (chain.end - at) // view.granularity):
            break
        pairs += not (was_busy or header.busy)
        at, previous, was_busy = at + header.size * view.granularity, header.size, header.busy
    return pairs


def _candidates(view: View, chain: Span) -> Iterator[int]:
    """Keys under which the second chunk names the size of the first: two for each place, one for each busy bit."""
    is_wide = view.pointer_bytes == 8
    raw = view.space.try_pointer(chain.start)
    if raw is None:
        return
    sizes: NDArray[np.uint64] = np.arange(1, chain.size // view.granularity).astype(np.uint64)
    address = np.uint64(chain.start) + sizes * np.uint64(view.granularity)
    words, is_present = view.space.mapped.gather(address, view.pointer_bytes)
    first = raw ^ chain.start
    _, previous, _ = header_fields((words ^ address ^ np.uint64(first)).view(np.int64), is_wide=is_wide)
    for size in sizes[is_present & (previous == sizes.astype(np.int64))].tolist():
        key = first ^ size << (16 if is_wide else 1)
        yield key
        yield key ^ _busy_bit(view)


def _free_pairs(view: View, chain: Span, key: int) -> int | None:
    """The number of free chunks behind free ones; None where the chain does not hold under the key, or is too short."""
    at, previous, pairs, count, was_busy = chain.start, 0, 0, 0, 1
    while at < chain.end and count < _MOST_CHUNKS:
        header = read_chunk_header(view, at, key)
        if header is None or not header.holds(previous, (chain.end - at) // view.granularity):
            return None
        pairs += not (was_busy or header.busy)
        at, previous, was_busy, count = at + header.size * view.granularity, header.size, header.busy, count + 1
    return pairs if count >= _LEAST_CHUNKS else None
