"""Resynchronisation: the next header behind damage that can be trusted (docs/reference/heap-structures.md §8.3)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.nt.entry_format import EntryFormat
from heapdump.heaps.nt.header_word import decode_headers, headers_at

_FIRST, _MOST = 64, 1 << 16
"""Granules examined at a time: first _FIRST, since damage is usually short, then twice as many, at most _MOST."""


class GoodHeader(NamedTuple):
    """A header that holds.

    Attributes:
        granule: where it lies in the words of a window.
        previous_size: its PreviousSize: granules of the entry before it.
    """

    granule: int
    previous_size: int


def next_good_header(
    entry_format: EntryFormat, words: NDArray[np.int64], start: int, stop: int, end: int
) -> GoodHeader | None:
    """The first header in the granules [start, stop) that holds, and whose next two headers hold as well; or None.

    The next two may lie up to granule `end`; a chain that ends exactly there needs fewer.
    """
    low, width = min(start + _FIRST, stop), 2 * _FIRST
    found = _first_of_few(entry_format, words, start, low, end)
    if found is not None:
        return found
    while low < stop:
        high = min(low + width, stop)
        found = _first_good(entry_format, words, low, high, end)
        if found is not None:
            return found
        low, width = high, min(2 * width, _MOST)
    return None


def _first_of_few(
    entry_format: EntryFormat, words: NDArray[np.int64], low: int, high: int, end: int
) -> GoodHeader | None:
    """`_first_good` one by one: where damage is short, as it usually is, arrays cost more than they save."""
    stride, place, shift = entry_format.stride, entry_format.word_index, entry_format.bits.previous_size
    key, mask = entry_format.key, entry_format.mask

    def sizes(encoded: int) -> tuple[int, int] | None:
        """(Size, PreviousSize) where the header holds and Size is not 0."""
        word = encoded ^ key
        if mask and (not encoded & mask or (word >> 24 ^ word >> 16 ^ word >> 8 ^ word) & 0xFF):
            return None
        return (word & 0xFFFF, word >> shift & 0xFFFF) if word & 0xFFFF else None

    for granule, encoded in enumerate(words[low * stride + place : high * stride : stride].tolist(), low):
        first = header = sizes(encoded)
        following = granule
        for _ in range(2):
            if header is None or following == end:
                break
            size, following = header[0], following + header[0]
            if following != end:
                header = sizes(int(words[following * stride + place])) if following < end else None
                header = header if header is not None and header[1] == size else None
        if first is not None and first[1] and header is not None:
            return GoodHeader(granule, first[1])
    return None


def _first_good(
    entry_format: EntryFormat, words: NDArray[np.int64], low: int, high: int, end: int
) -> GoodHeader | None:
    """The first such header in the granules [low, high). Each of the three must name the size of the one before it.

    All candidates are followed at once: in memory full of candidates, one after the other took seconds for a MiB.
    """
    stride = entry_format.stride
    headers = decode_headers(entry_format, words[low * stride + entry_format.word_index : high * stride : stride])
    rows = np.flatnonzero(headers.holds & (headers.size > 0) & (headers.previous_size > 0))
    size = headers.size[rows]
    following = low + rows + size
    for _ in range(2):
        if not len(rows):
            return None
        inside = following < end
        header = headers_at(entry_format, words, np.minimum(following, end - 1))
        good = (following == end) | (inside & header.holds & (header.size > 0) & (header.previous_size == size))
        following = np.where(inside, following + header.size, following)[good]
        rows, size = rows[good], header.size[good]
    return GoodHeader(low + int(rows[0]), int(headers.previous_size[rows[0]])) if len(rows) else None
