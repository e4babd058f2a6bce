"""The key of entry headers, Vista and later: _HEAP.Encoding and EncodeFlagMask, or what the headers themselves give.

The first entry of a heap covers its _HEAP. Its header is known as long as FirstEntry is: Size reaches to FirstEntry,
Flags are 1, PreviousSize is 0, and the checksum follows (docs/reference/heap-structures.md §2.3). So it proves the key
that the heap names; where that is damaged, it gives the key, and the entries behind it prove it.
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
"""Entries behind the first one that must hold with a solved key."""


class HeaderKey(NamedTuple):
    """What header words are XORed with, unsigned; and the bit that marks encoded headers, 0 for plain ones."""

    key: int
    mask: int


def stated_key(space: AddressSpace, heap: int, layout: Layout) -> HeaderKey:
    """The key as the heap's own header states it."""
    struct, word_index = layout["_HEAP"], layout.pointer_bytes // 4 - 1
    place = heap + struct.offset("Encoding") + 8 * word_index
    key = (space.try_integer(place, 8) or 0) & ENCODED_BITS
    mask = space.try_integer(heap + struct.offset("EncodeFlagMask"), 4) or 0
    return HeaderKey(key if mask else key & _PREVIOUS_SIZE_BITS, mask)


def header_key(space: AddressSpace, heap: int, layout: Layout) -> HeaderKey:
    """The key that the headers confirm: the stated one, else the one that they give; the stated one where neither is."""
    stated = stated_key(space, heap, layout)
    headers = _Headers(space, heap, layout)
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


class _Headers:
    """The first headers of a heap."""

    def __init__(self, space: AddressSpace, heap: int, layout: Layout) -> None:
        self._space, self._heap, self._granule = space, heap, 2 * layout.pointer_bytes
        self._first_entry = space.try_pointer(heap + layout["_HEAP"].offset("FirstEntry")) or 0

    def word(self, entry: int) -> int | None:
        """The header word at an entry, as it lies in memory."""
        return self._space.try_integer(entry + self._granule - 8, 8)

    def first_word(self) -> int | None:
        """Bits 0-47 of the first header, decoded; None where FirstEntry cannot be true."""
        size, rest = divmod(self._first_entry - self._heap, self._granule)
        if rest or not 0 < size < 0x1000:
            return None
        return size | 1 << 16 | ((size >> 8 ^ size ^ 1) & 0xFF) << 24

    def follow(self, key: HeaderKey) -> int:
        """Number of entries from the first on that hold with this key, at most a few."""
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
