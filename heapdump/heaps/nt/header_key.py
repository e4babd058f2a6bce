"""The key of entry headers, Vista and later: from _HEAP.Encoding and EncodeFlagMask, or solved from the headers.

The first entry of a heap covers its _HEAP. Its decoded header is known: Size reaches to FirstEntry, Flags are 1,
PreviousSize is 0, and the checksum follows from these (docs/reference/heap-structures.md §2.3). The encoded header XOR
the decoded one is the key. It confirms the key in _HEAP.Encoding. Where that member is damaged, it replaces it, if the
entries behind hold under it.
"""

from __future__ import annotations

from typing import NamedTuple

from heapdump.layouts import Layout
from heapdump.memory.space import AddressSpace

ENCODED_BITS = 0xFFFF_FFFF_FFFF
"""Bits 0-47 of the header word are encoded; SegmentOffset and UnusedBytes never are."""

_PREVIOUS_SIZE_BITS = 0xFFFF_0000_0000
_MASK = 0x00100000
"""EncodeFlagMask of every heap with encoded headers."""

_PROVED = 3
"""Number of entries behind the first one that must hold under a solved key."""


class HeaderKey(NamedTuple):
    """The key of entry headers.

    Attributes:
        key: 64-bit key that header words are XORed with, unsigned.
        mask: the bit of a header word that every encoded header has set; 0 for plain headers.
    """

    key: int
    mask: int


def stated_key(space: AddressSpace, heap: int, layout: Layout) -> HeaderKey:
    """The key by _HEAP.Encoding and _HEAP.EncodeFlagMask, whether headers confirm it or not."""
    struct, word_index = layout["_HEAP"], layout.pointer_bytes // 4 - 1
    place = heap + struct.offset("Encoding") + 8 * word_index
    key = (space.try_integer(place, 8) or 0) & ENCODED_BITS
    mask = space.try_integer(heap + struct.offset("EncodeFlagMask"), 4) or 0
    return HeaderKey(key if mask else key & _PREVIOUS_SIZE_BITS, mask)


def header_key(space: AddressSpace, heap: int, layout: Layout) -> HeaderKey:
    """The key that headers confirm: `stated_key`, else the solved key; where they confirm neither, `stated_key`."""
    stated = stated_key(space, heap, layout)
    headers = _FirstHeaders(space, heap, layout)
    first = headers.first_word()
    if first is None or (stated.mask in (0, _MASK) and headers.follow(stated) > 0):
        return stated
    encoded = headers.word(heap)
    if encoded is None:
        return stated
    for mask in (_MASK, 0):
        key = (encoded ^ first) & (ENCODED_BITS if mask else _PREVIOUS_SIZE_BITS)
        solved = HeaderKey(key, mask)
        if headers.follow(solved) > _PROVED:
            return solved
    return stated


class _FirstHeaders:
    """Reads the first entry headers of a heap."""

    def __init__(self, space: AddressSpace, heap: int, layout: Layout) -> None:
        self._space, self._heap, self._granule = space, heap, 2 * layout.pointer_bytes
        self._first_entry = space.try_pointer(heap + layout["_HEAP"].offset("FirstEntry")) or 0

    def word(self, entry: int) -> int | None:
        """The header word at an entry, as it lies in memory."""
        return self._space.try_integer(entry + self._granule - 8, 8)

    def first_word(self) -> int | None:
        """Bits 0-47 that the first header must have when decoded; None where FirstEntry is not possible."""
        size, rest = divmod(self._first_entry - self._heap, self._granule)
        if rest or not 0 < size < 0x1000:
            return None
        return size | 1 << 16 | ((size >> 8 ^ size ^ 1) & 0xFF) << 24

    def follow(self, key: HeaderKey) -> int:
        """How many entries in a row, from the first on, hold under this key; the count stops after a few."""
        entry, previous, count = self._heap, 0, 0
        while count <= _PROVED and (encoded := self.word(entry)) is not None:
            word = (encoded ^ key.key) & ENCODED_BITS
            checksum = (word >> 24 ^ word >> 16 ^ word >> 8 ^ word) & 0xFF
            is_plain = not encoded & key.mask
            if key.mask and (is_plain or checksum):
                break
            if (
                word >> 32 != previous
                or not word & 0xFFFF
                or (not count and word & 0xFFFFFF != (self.first_word() or 0) & 0xFFFFFF)
            ):
                break
            count, previous = count + 1, word & 0xFFFF
            entry += previous * self._granule
        return count
