"""What a damaged entry header should say, as far as its neighbours tell, and which of its bytes do not.

The size of an entry is known where the next good header names it as its previous size; the size before it from the
entry before; the segment's number from where it lies. Flags and checksum are taken as they are where they hold for the
known size, else the likelier of busy and free counts. How many bytes were not asked for nobody else knows.
"""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.blocks.heap import Heap
from heapdump.heaps.nt.entry_format import EntryFormat

_BYTES = 8
_WORD = (1 << 64) - 1
_SIZE, _PREVIOUS, _OLD_PREVIOUS = 0xFFFF, 0xFFFF << 32, 0xFFFF << 16


@dataclass(frozen=True, slots=True)
class HeaderWound:
    """The changed bytes [first, first + len(found)) of the 8 that count.

    `expected`: hex of as many, ?? where it is not known; `word`: the header as it was, decoded, where only known members
    had been changed; else None.
    """

    first: int
    expected: str
    found: bytes
    word: int | None


def header_wound(
    entry_format: EntryFormat, heap: Heap, entry: int, raw: int, size: int, previous: int
) -> HeaderWound | None:
    """The wound of the header whose 8 meaningful bytes are `raw`; sizes in granules. None where nothing is wrong with it."""
    word = (raw ^ entry_format.key) & _WORD
    value, mask = (_old_members if entry_format.is_pre_vista else _members)(heap, entry, size, previous)
    restored = word & ~mask | value
    is_whole = entry_format.is_pre_vista or not entry_format.mask or _holds(restored)
    if not is_whole:
        restored = min((_with_flags(restored, flags) for flags in (1, 0)), key=lambda w: _differences(w, word))
    found = (word ^ entry_format.key & _WORD).to_bytes(_BYTES, "little")
    wanted = (restored ^ entry_format.key & _WORD).to_bytes(_BYTES, "little")
    wrong = [i for i in range(_BYTES) if found[i] != wanted[i]]
    if not wrong:
        return None
    is_restored = is_whole and _is_plausible(entry_format, restored, word)
    sure = _BYTES * [True] if is_restored else [mask >> 8 * i & 0xFF == 0xFF for i in range(_BYTES)]
    places = range(wrong[0], wrong[-1] + 1)
    expected = " ".join(f"{wanted[i]:02x}" if sure[i] else "??" for i in places)
    return HeaderWound(wrong[0], expected, found[wrong[0] : wrong[-1] + 1], restored if is_restored else None)


def _members(heap: Heap, entry: int, size: int, previous: int) -> tuple[int, int]:
    """(members that are known, their mask), from Vista on."""
    offset = segment_offset(heap, entry)
    value, mask = size | previous << 32, _SIZE | _PREVIOUS
    return (value, mask) if offset is None else (value | (offset & 0xFF) << 48, mask | 0xFF << 48)


def _old_members(heap: Heap, entry: int, size: int, previous: int) -> tuple[int, int]:
    index = next((i for i, segment in enumerate(heap.segments) if entry in segment.span), None)
    value, mask = size | previous << 16, _SIZE | _OLD_PREVIOUS
    return (value, mask) if index is None else (value | index << 56, mask | 0xFF << 56)


def segment_offset(heap: Heap, entry: int) -> int | None:
    """SegmentOffset of an entry: 0 in the heap's own segment, else its 64 KiB number in its segment, counted from 1."""
    segment = next((segment for segment in heap.segments if entry in segment.span), None)
    if segment is None:
        return None
    return 0 if segment.address == heap.address else (entry & ~0xFFFF) + 0x10000 - segment.address >> 16


def _holds(word: int) -> bool:
    return (word >> 24 ^ word >> 16 ^ word >> 8 ^ word) & 0xFF == 0


def _with_flags(word: int, flags: int) -> int:
    """The word with these flags and the checksum that belongs to them."""
    checksum = (word ^ word >> 8 ^ flags) & 0xFF
    return word & ~0xFFFF0000 | flags << 16 | checksum << 24


def _differences(one: int, other: int) -> int:
    return sum(a != b for a, b in zip(one.to_bytes(_BYTES, "little"), other.to_bytes(_BYTES, "little"), strict=True))


def _is_plausible(entry_format: EntryFormat, word: int, found: int) -> bool:
    """Whether flags and unused bytes of a restored header can be true."""
    size = (word & _SIZE) * entry_format.granule
    if entry_format.is_pre_vista:
        # no checksum tells whether the rest is whole: it is where one member alone was changed
        members = (_SIZE, _OLD_PREVIOUS, 0xFF << 56)
        return sum(bool((word ^ found) & member) for member in members) == 1 and word >> 48 & 0xFF <= size
    unused = word >> 56 & 0xFF
    return unused & 0x3F <= size and bool(unused & 0x3F) == bool(word >> 16 & 1)
