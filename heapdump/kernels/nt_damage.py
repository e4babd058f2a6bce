"""Follows the chain of entry headers of an NT heap past damaged headers.

Memory, headers and runs are those of `nt_chain`. At a header that does not hold, the next one is searched that holds
together with the next two: the good header. Its PreviousSize says where the entry before it begins: at the damaged
header, or blocks may be missing between. Each damaged header becomes a record, of which `heaps.nt.damaged_headers`
makes a finding, and a row where its entry is known.

Rare cases stop the chain, and `heaps.nt.damaged_header` decides them one by one: no good header within reach; a wrong
Size in the header before; a header that may be plain while ntdll works on it.
"""

from __future__ import annotations

from typing import NamedTuple

from heapdump.kernels.arrays import ArrayColumn, Output, OutputGrid
from heapdump.kernels.nt_chain import CHECKSUM, END, FULL, PREVIOUS, RUN_END, SIZE, HeaderCoding

GRANULE, PREVIOUS_SIZE, REASON, GOOD, GOOD_PREVIOUS, MARKED = range(6)
"""Columns of a record: granule of the damaged header; granules of the entry before it; CHECKSUM, PREVIOUS or SIZE of
`nt_chain`; granule of the good header; its PreviousSize; not 0 where a header word behind the damaged one, up to the
good one, has the mark of the LFH."""

RECORD = MARKED + 1
"""Number of columns of a record."""

_RUN_END_CODE, _LFH_BIT = 0x03, 0x80
"""UnusedBytes, as in `nt_chain` and `nt_lfh`."""


class DamageReach(NamedTuple):
    """How far a call goes.

    Attributes:
        good: the most granules behind a damaged header that are searched for a good one.
        sound: the most sound headers behind a damaged one.
    """

    good: int
    sound: int


def follow_past_damage(
    words: ArrayColumn, at: int, stop: int, end: int, previous: int, coding: HeaderCoding, reach: DamageReach,
    out: Output, damage: OutputGrid,
) -> tuple[int, int, int, int, int]:  # fmt: skip
    """Writes the granule of each header in [at, stop) to `out`, and a record for each damaged one to `damage`.

    A damaged header is written to `out` only where its entry ends at the good header. `end`, `previous` as in
    `nt_chain`. Returns (headers written, records written, granule where it stopped, reason, granules of the last
    entry); reason: END … FULL of `nt_chain`.
    """
    stride, word_index, key, mask = coding
    count, found, sound, room = 0, 0, 0, len(out)
    while at < stop:
        if count == room or sound == reach.sound:
            return count, found, at, FULL, previous
        raw = words[at * stride + word_index]
        word, reason = raw ^ key, END
        size = word & 0xFFFF
        if mask and (not raw & mask or ((word >> 24) ^ (word >> 16) ^ (word >> 8) ^ word) & 0xFF):
            reason = CHECKSUM
        elif (word >> 32) & 0xFFFF != previous:
            reason = PREVIOUS
        elif size == 0 or at + size > end:
            reason = SIZE
        if reason == END:
            out[count] = at
            count, sound, at, previous = count + 1, sound + 1, at + size, size
            if (word >> 56) & 0xFF == _RUN_END_CODE and at != end:
                return count, found, at, RUN_END, previous
            continue
        # a plain header has a plain Size, and PreviousSize encoded as ever
        is_plain = mask and not raw & mask and 0 < raw & 0xFFFF <= end - at and (word >> 32) & 0xFFFF == previous
        if is_plain or found == len(damage):
            return count, found, at, reason if is_plain else FULL, previous
        good, back, marked = 0, 0, 0
        for place in range(at + 1, min(stop, at + 1 + reach.good)):
            following, steps, expected = place, 0, 0
            while steps < 3 and following < end:
                raw = words[following * stride + word_index]
                word = raw ^ key
                length, before = word & 0xFFFF, (word >> 32) & 0xFFFF
                if steps == 0:  # any PreviousSize but 0 will do
                    marked, back, expected = marked | (raw >> 56) & _LFH_BIT, before, before
                if mask and (not raw & mask or ((word >> 24) ^ (word >> 16) ^ (word >> 8) ^ word) & 0xFF):
                    break
                if length == 0 or before == 0 or before != expected:
                    break
                following, steps, expected = following + length, steps + 1, length
            if steps == 3 or (steps and following == end):
                good = place
                break
        if good == 0 or (previous != 0 and good - back == at - previous):
            return count, found, at, reason, previous
        damage[found, GRANULE], damage[found, PREVIOUS_SIZE], damage[found, REASON] = at, previous, reason
        damage[found, GOOD], damage[found, GOOD_PREVIOUS], damage[found, MARKED] = good, back, marked
        if good - back == at:
            out[count] = at
            count += 1
        found, sound, at, previous = found + 1, 0, good, back
    return count, found, at, END, previous
