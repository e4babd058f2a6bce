"""Restores the header word of a damaged entry from its neighbours, and finds the bytes that differ.

- Size is the PreviousSize of the next good header.
- PreviousSize is the Size of the entry before.
- The segment byte follows from the address.
- Flags and SmallTagIndex are kept where the checksum holds together with these members. Else Flags become busy or free,
  whichever changes fewer bytes, and SmallTagIndex fits them.
- UnusedBytes cannot be restored.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from heapdump.heaps.nt.context import HeapContext
from heapdump.heaps.nt.entry_format import EntryFormat

_BYTES = 8
_WORD = (1 << 64) - 1
_SIZE = 0xFFFF


class HeaderDamage(NamedTuple):
    """Damaged bytes of one header word.

    Attributes:
        first: index, 0-7, of the first damaged byte.
        found: the bytes from there to the last damaged one, as they lie in memory.
        expected: hex of the bytes that should be there; ?? for a byte that cannot be restored.
        word: the restored header word, decoded, unsigned; None where a member is damaged that cannot be restored.
    """

    first: int
    found: bytes
    expected: str
    word: int | None


def header_damage(
    entry_format: EntryFormat, encoded: int, segment: int | None, size: int, previous_size: int
) -> HeaderDamage | None:
    """The damage of a header word; None where it equals the restored one.

    Args:
        entry_format: of the heap.
        encoded: the header word as it lies in memory, unsigned.
        segment: its right segment byte; None where that is not known.
        size: its right Size, in granules.
        previous_size: its right PreviousSize, in granules.
    """
    key, bits = entry_format.unsigned_key, entry_format.bits
    word, value, mask = encoded ^ key, size | previous_size << bits.previous_size, _SIZE | _SIZE << bits.previous_size
    if segment is not None:
        value, mask = value | segment << bits.segment, mask | 0xFF << bits.segment
    restored = word & ~mask | value
    holds = not entry_format.mask or _checksum_holds(restored)
    if not holds:
        restored, free = _with_flags(restored, 1), _with_flags(restored, 0)
        if _differing_bytes(free, word) < _differing_bytes(restored, word):
            restored = free
    different = word ^ restored
    if not different:
        return None
    is_restored = holds and _is_plausible(entry_format, restored, word)
    first, end = (different & -different).bit_length() - 1 >> 3, (different.bit_length() + 7) >> 3
    expected = (restored ^ key).to_bytes(_BYTES, "little")[first:end].hex(" ")
    if not is_restored:
        known = _known_bytes(mask)[first:end]
        expected = " ".join(
            [byte if is_known else "??" for byte, is_known in zip(expected.split(), known, strict=True)]
        )
    found = encoded.to_bytes(_BYTES, "little")[first:end]
    return HeaderDamage(first, found, expected, restored if is_restored else None)


@cache
def _known_bytes(mask: int) -> tuple[bool, ...]:
    """True for each of the eight bytes of which the mask has all bits."""
    return tuple(mask >> 8 * i & 0xFF == 0xFF for i in range(_BYTES))


def expected_segment(context: HeapContext, entry: int) -> int | None:
    """The right segment byte of an entry: SegmentOffset, before Vista SegmentIndex; None outside of segments.

    SegmentIndex is the place of the segment in _HEAP.Segments. SegmentOffset (heap-structures.md §2.3) is 0 in the
    heap's own segment, else ((entry & ~0xFFFF) - segment + 0x10000) >> 16.
    """
    segment = context.segments.at(entry)
    if segment is None:
        return None
    if context.entry_format.is_pre_vista:
        return None if segment.number is None else segment.number & 0xFF
    if segment.address == context.address:
        return 0
    return ((entry & ~0xFFFF) + 0x10000 - segment.address >> 16) & 0xFF


def _checksum_holds(word: int) -> bool:
    return (word >> 24 ^ word >> 16 ^ word >> 8 ^ word) & 0xFF == 0


def _with_flags(word: int, flags: int) -> int:
    """The decoded word of Vista and later with these Flags and the SmallTagIndex that makes the checksum hold."""
    checksum = (word ^ word >> 8 ^ flags) & 0xFF
    return word & ~0xFFFF0000 | flags << 16 | checksum << 24


def _differing_bytes(one: int, other: int) -> int:
    return _BYTES - (one ^ other).to_bytes(_BYTES, "little").count(0)


def _is_plausible(entry_format: EntryFormat, word: int, found: int) -> bool:
    """True when Flags and UnusedBytes of the restored word `word` are possible. `found`: the damaged word, decoded."""
    bits, size_bytes = entry_format.bits, (word & _SIZE) * entry_format.granule
    unused = word >> bits.unused & 0xFF
    if entry_format.is_pre_vista:
        # there is no checksum: Flags and UnusedBytes are believed where exactly one of the other members is damaged
        members = (_SIZE, 0xFFFF << bits.previous_size, 0xFF << bits.segment)
        return sum(bool((word ^ found) & member) for member in members) == 1 and unused <= size_bytes
    return unused & 0x3F <= size_bytes and bool(unused & 0x3F) == bool(word >> bits.flags & 1)
