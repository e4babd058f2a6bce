"""Recognises headers that ntdll has decoded in place while it works on an entry; they are no damage.

While ntdll allocates, frees or splits an entry, bits 0-31 of its header word are plain: without the bit of
EncodeFlagMask, and with a checksum that is 0 or stale. PreviousSize stays encoded. When an entry is split, the header
of the rest is plain as well. Seen in every recorded build from 7 on, stopped inside RtlAllocateHeap, RtlFreeHeap and
RtlReAllocateHeap.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from heapdump.heaps.nt.context import WalkContext
from heapdump.heaps.nt.entry_format import EntryFormat
from heapdump.heaps.nt.header_repair import expected_segment
from heapdump.heaps.nt.header_word import Words, headers_at
from heapdump.heaps.nt.windows import RunPart, Window

_LOW_BITS = 0xFFFFFFFF
_MOST = 4
"""The most plain headers in a row: one operation touches an entry, its two neighbours and a rest that it splits off."""


class PlainEntry(NamedTuple):
    """An entry with a plain header.

    Attributes:
        granule: granule of the entry in the words of a window.
        word: its decoded header word, 64 bits unsigned.
    """

    granule: int
    word: int

    @property
    def size(self) -> int:
        """Size, in granules."""
        return self.word & 0xFFFF

    @property
    def is_checked(self) -> bool:
        """True where the checksum is right or 0."""
        return self.word >> 24 & 0xFF in (0, (self.word ^ self.word >> 8 ^ self.word >> 16) & 0xFF)


def decoded_in_place(
    context: WalkContext, window: Window, part: RunPart, granule: int, previous_size: int
) -> list[PlainEntry]:
    """The entries with plain headers from `granule` on, up to the next encoded header; empty where these are damage.

    The next encoded header must hold, and its PreviousSize must lead to one of these entries. Where they reach to the
    end of the run instead, their checksums must be right or 0. `previous_size`: granules of the entry before the first.
    """
    entry_format = context.entry_format
    if not entry_format.mask:
        return []
    found: list[PlainEntry] = []
    while len(found) < _MOST and granule < part.end:
        if found:
            header = headers_at(entry_format, window.words, np.array([granule]))
            if header.holds[0] and header.size[0] > 0:
                is_named = granule - int(header.previous_size[0]) in {one.granule for one in found}
                return found if is_named else []
        plain = _plain_entry(context, window, part, granule, previous_size)
        if plain is None:
            return []
        found.append(plain)
        granule, previous_size = granule + plain.size, plain.size
    return found if granule == part.end and all(one.is_checked for one in found) else []


def previous_size_at(entry_format: EntryFormat, words: Words, granule: int, end: int) -> int:
    """PreviousSize of the entry at a granule, which ntdll may not have updated yet; 0 at the end of the run."""
    return int(headers_at(entry_format, words, np.array([granule])).previous_size[0]) if granule < end else 0


def _plain_entry(
    context: WalkContext, window: Window, part: RunPart, granule: int, previous_size: int
) -> PlainEntry | None:
    """The entry at a granule where its header is plain and every member is possible; else None."""
    entry_format, bits = context.entry_format, context.entry_format.bits
    encoded = int(window.words[granule * entry_format.stride + entry_format.word_index]) & (1 << 64) - 1
    if encoded & entry_format.mask:
        return None
    plain = PlainEntry(granule, encoded ^ (entry_format.unsigned_key & ~_LOW_BITS))
    segment = expected_segment(context, part.base + granule * entry_format.granule)
    fits = (
        0 < plain.size <= part.end - granule
        and plain.word >> bits.previous_size & 0xFFFF == previous_size
        and plain.word >> bits.segment & 0xFF == segment
    )
    return plain if fits else None
