"""Solves the key of entry headers from the headers, where _HEAP is not in the dump (Vista and later).

Bits 0-47 of a header word are the decoded ones XOR the key (docs/reference/heap-structures.md §2.3). The decoded header
of the first entry of a later segment is known, because it covers the segment's header. In the heap's own segment the
key follows from many headers: the checksum gives the same XOR of four bytes for all of them, most of them have the same
high bits, and Size leads from one header to the next.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.nt.entry_format import ENCODE_FLAG_MASK
from heapdump.heaps.nt.header_word import BUSY_FLAG, HEADER_CODE
from heapdump.heaps.nt.unused_bytes import FRONT_PREFIX
from heapdump.layouts import Layout
from heapdump.process.model import View

_KEY_BITS = 0xFFFF_FFFF_FFFF
_MOST_WORDS = 1 << 17
_MOST_TRIED = 1 << 12
ENOUGH_PAIRS = 8
"""Number of headers whose PreviousSize must name the header before. By chance one does so once in 65,536 times."""

_LEAST_SIZES = 2
"""Number of different sizes of these headers where others are missing: one size agrees under every key, and a multiple
of it leads to other headers as well."""

Words = NDArray[np.int64]


def key_of_segment(view: View, segment: int, layout: Layout) -> int | None:
    """The key by the first entry of a later segment; None where its header is not in the dump or does not hold.

    Decoded it is {Size up to FirstEntry, Flags 1, PreviousSize 0, UnusedBytes 1}.
    """
    fields = view.struct("_HEAP_SEGMENT", segment, layout)
    word = view.space.try_integer(segment + view.granularity - 8, 8)
    if fields is None or word is None or word >> 56 != HEADER_CODE:
        return None
    size, rest = divmod(fields["FirstEntry"] - segment, view.granularity)
    if rest or not 0 < size <= 0xFFFF:
        return None
    checksum = (size ^ size >> 8 ^ BUSY_FLAG) & 0xFF
    key = (word ^ (size | BUSY_FLAG << 16 | checksum << 24)) & _KEY_BITS
    return key if key & ENCODE_FLAG_MASK else None


def key_of_entries(words: Words, *, has_holes: bool) -> int | None:
    """The key by the entries of a heap's own segment; None where too few of them agree.

    Args:
        words: (n,) the 64-bit word of each granule at the place of a header word; 0 where the dump lacks it.
        has_holes: True where the dump lacks words between others.
    """
    words = words[:_MOST_WORDS]
    places = np.flatnonzero(_may_be_busy(words))
    if len(places) < ENOUGH_PAIRS:
        return None
    # byte 0 ^ byte 1 ^ byte 2 ^ byte 3 of a decoded header is 0, so that of an encoded one is that of the key
    constant = _most_frequent(_xor_of_bytes(words[places]))
    places = places[_xor_of_bytes(words[places]) == constant]
    flags = _most_frequent(words[places] >> 16 & 0xFF) ^ BUSY_FLAG
    places = places[words[places] >> 16 & 0xFF == flags ^ BUSY_FLAG][:_MOST_TRIED]
    holds = (_xor_of_bytes(words) == constant) & (words & ENCODE_FLAG_MASK != 0)
    low = _size_key(words, places, holds)
    if low is None:
        return None
    checksum = (constant ^ low ^ low >> 8 ^ flags) & 0xFF
    size = (words[places] ^ low) & 0xFFFF
    leads = _leads(places + size, holds)
    previous = (words[(places + size)[leads]] >> 32 & 0xFFFF) ^ size[leads]
    if not len(previous):
        return None
    high = _most_frequent(previous)
    agreeing = previous == high
    if agreeing.sum() < ENOUGH_PAIRS or 2 * agreeing.sum() < len(previous):
        return None
    if has_holes and len(np.unique(size[leads][agreeing])) < _LEAST_SIZES:
        return None
    return low | flags << 16 | checksum << 24 | high << 32


def linked_headers(words: Words, key: int, may_be: NDArray[np.bool_]) -> int:
    """How many headers hold under a key and lead to another one that names their size.

    Args:
        words: (n,) as `key_of_entries` takes them.
        key: the key.
        may_be: (n,) False for words that are no headers whatever the key.
    """
    decoded = words ^ np.int64(key)
    holds = may_be & (words & ENCODE_FLAG_MASK != 0) & (_xor_of_bytes(decoded) == 0)
    places = np.flatnonzero(holds)
    size = decoded[places] & 0xFFFF
    leads = _leads(places + size, holds) & (size > 0)
    return int((decoded[(places + size)[leads]] >> 32 & 0xFFFF == size[leads]).sum())


def _may_be_busy(words: Words) -> NDArray[np.bool_]:
    """True for words that may be headers of busy entries: bit of the mask set, SegmentOffset 0, UnusedBytes of such."""
    code = words >> 56 & 0xFF
    is_busy = ((code >= 8) & (code <= 0x3F)) | (code == FRONT_PREFIX)
    busy: NDArray[np.bool_] = (words & ENCODE_FLAG_MASK != 0) & (words >> 48 & 0xFF == 0) & is_busy
    return busy


def _size_key(words: Words, places: Words, holds: NDArray[np.bool_]) -> int | None:
    """Bits 0-15 of the key: the value under which most sizes lead to another header; None where too few do.

    A size that spans another header does not count: it may be a multiple of the right one.
    """
    highs, counts = np.unique(words[places] >> 8 & 0xFF, return_counts=True)
    best, most = None, 0
    for high in highs[np.argsort(-counts)][:4].tolist():
        for low in range(0x100):
            key = high << 8 | low
            size = (words[places] ^ key) & 0xFFFF
            leads = _leads(places + size, holds) & (size > 0)
            if int(leads.sum()) <= most:
                continue
            spans = np.searchsorted(places, places + size) > np.arange(1, len(places) + 1)
            count = int((leads & ~spans).sum())
            if count > most:
                best, most = key, count
    return best if most >= ENOUGH_PAIRS else None


def _leads(places: Words, holds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    leads: NDArray[np.bool_] = (places < len(holds)) & holds[np.minimum(places, len(holds) - 1)]
    return leads


def _xor_of_bytes(words: Words) -> Words:
    """Byte 0 ^ byte 1 ^ byte 2 ^ byte 3 of each word."""
    return (words ^ words >> 8 ^ words >> 16 ^ words >> 24) & 0xFF


def _most_frequent(values: Words) -> int:
    return int(np.bincount(values).argmax())
