"""Passes many damaged headers of a heap at once: rows, findings and gaps.

They are those of `damaged_header`, which takes one at a time, and decides the cases that this module does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import tag
from heapdump.heaps.nt.chain import MOST_ROWS, add_rows
from heapdump.heaps.nt.damaged_header import DISAGREEMENT, DamagedHeader, say_one_header, say_unknown
from heapdump.heaps.nt.header_repair import header_damage
from heapdump.heaps.nt.header_word import INTERNAL_FLAG, decode_headers
from heapdump.heaps.nt.lfh_by_headers import MOST_SHORT_BYTES
from heapdump.heaps.nt.many_repairs import (
    ENTRY_STATES,
    NO_ROW,
    RESTORED,
    DamagedPart,
    Repairs,
    repairs_of,
    segment_bytes,
)
from heapdump.heaps.nt.unplaced_spans import UnplacedSpans
from heapdump.kernels import compiled_if_worth, run
from heapdump.kernels.nt_damage import (
    GOOD,
    GOOD_PREVIOUS,
    GRANULE,
    MARKED,
    PREVIOUS_SIZE,
    REASON,
    RECORD,
    DamageReach,
    follow_past_damage,
)
from heapdump.kernels.row import INTERNAL, TRUST_GUESS, TRUST_MASK
from heapdump.trust import Trust

_MOST_DAMAGE = 1 << 12
"""The most damaged headers of one call."""

_COMMON = tag(BlockKind.BACKEND, trust=Trust.DERIVED)
"""The tags that rows behind damage have."""

_COMPILED, _PLAIN = DamageReach(good=MOST_ROWS, sound=1 << 10), DamageReach(good=64, sound=128)
"""Behind as many sound headers without damage, `chain` is quicker."""


@dataclass(frozen=True, slots=True)
class PastDamage:
    """The result of passing damaged headers.

    Attributes:
        rows: number of rows that were added.
        damaged: number of damaged headers.
        granule: the first entry that was not added.
        previous_size: granules of the entry before it.
        reason: END … FULL of `kernels.nt_chain`.
    """

    rows: int
    damaged: int
    granule: int
    previous_size: int
    reason: int


def pass_damaged_headers(
    damaged: DamagedPart, granule: int, previous_size: int, unplaced: UnplacedSpans, expected_blocks: int
) -> PastDamage:
    """Adds rows from an entry on, past damaged headers, and what is to be said of these.

    Args:
        damaged: the part of the run.
        granule: of the first entry.
        previous_size: granules of the entry before it.
        unplaced: gets the memory of which no entry is known.
        expected_blocks: estimate of the rows of the whole walk; it chooses between compiled and plain loop.
    """
    context, part = damaged.context, damaged.part
    worth = max(len(context.columns), expected_blocks)
    reach = _PLAIN if compiled_if_worth(follow_past_damage, worth) is None else _COMPILED
    granules = np.empty(min(part.stop - granule, MOST_ROWS), np.int64)
    records = np.empty((min(part.stop - granule, _MOST_DAMAGE), RECORD), np.int64)
    count, found, granule, reason, previous_size = run(
        follow_past_damage, worth, damaged.window.words, granule, part.stop, part.end, previous_size,
        context.entry_format.coding, reach, granules, records,
    )  # fmt: skip
    granules, records = granules[:count], records[:found]
    repairs = repairs_of(damaged, records)
    rows = _add_rows(damaged, granules, records, repairs)
    sound = rows - int(np.count_nonzero(repairs.state != NO_ROW))
    context.log.headers += sound
    context.log.good_headers += sound
    _say(damaged, records, repairs)
    _add_unplaced(damaged, records, unplaced)
    return PastDamage(rows, found, granule, previous_size, reason)


def _add_rows(damaged: DamagedPart, granules: NDArray[np.int64], records: NDArray[np.int64], repairs: Repairs) -> int:
    """Adds the rows of sound entries, and of damaged ones that are not lost; the number of rows."""
    context, entry_format, is_known = damaged.context, damaged.context.entry_format, repairs.state != NO_ROW
    granules = granules[np.isin(granules, records[~is_known, GRANULE], invert=True)]
    words = damaged.window.words[granules * entry_format.stride + entry_format.word_index]
    place = np.searchsorted(granules, records[is_known, GRANULE])
    words[place] = repairs.word[is_known] ^ entry_format.key
    first_row = len(context.columns)
    add_rows(context, damaged.window, damaged.part, granules, decode_headers(entry_format, words), _COMMON)
    tags = context.columns.since(first_row).tags
    is_other = repairs.word[is_known] >> entry_format.bits.flags & INTERNAL_FLAG == 0
    tags[place[is_other]] &= np.uint16(~INTERNAL & 0xFFFF)  # a restored header has the code of a run's end by chance
    guessed = place[repairs.state[is_known] != RESTORED]
    tags[guessed] = tags[guessed] & np.uint16(~TRUST_MASK & 0xFFFF) | np.uint16(TRUST_GUESS)
    return len(granules)


def _say(damaged: DamagedPart, records: NDArray[np.int64], repairs: Repairs) -> None:
    """Adds what is said of each header, unless the log keeps nothing of it."""
    context, entry_format, log = damaged.context, damaged.context.entry_format, damaged.context.log
    address, words = damaged.addresses(records[:, GRANULE]), damaged.words(records[:, GRANULE]).view(np.uint64)
    columns = (records, repairs.state, address, words, segment_bytes(damaged, records[:, GRANULE]))
    for record, state, entry, word, segment in zip(*(column.tolist() for column in columns), strict=True):
        if log.is_full or (state == RESTORED and log.has_more_findings):
            log.headers += 1
        elif state == NO_ROW:
            _say_unknown(damaged, record)
        else:
            size = record[GOOD_PREVIOUS]
            damage = header_damage(entry_format, word, segment, size, record[PREVIOUS_SIZE])
            assert damage is not None
            say_one_header(context, entry, record[REASON], damage, size, ENTRY_STATES[state])


def _say_unknown(damaged: DamagedPart, record: list[int]) -> None:
    """Adds what is said of a header whose entry is not known."""
    one = DamagedHeader(
        damaged.context, damaged.window, damaged.part, record[GRANULE], record[PREVIOUS_SIZE], record[REASON],
        damaged.free_nodes,
    )  # fmt: skip
    agrees = record[GOOD] - record[GOOD_PREVIOUS] == one.granule
    say_unknown(one, DISAGREEMENT if agrees else f"going on at {one.address_of(record[GOOD]):#x}")


def _add_unplaced(damaged: DamagedPart, records: NDArray[np.int64], unplaced: UnplacedSpans) -> None:
    """Notes the memory from each damaged header to its good one as unplaced.

    Spans that tell nothing are left out: short ones that are known to the end and have no header of the LFH behind the
    damaged header, where user blocks would begin.
    """
    start, end = damaged.addresses(records[:, GRANULE]), damaged.addresses(records[:, GOOD])
    last = damaged.addresses(records[:, GOOD] - records[:, GOOD_PREVIOUS])
    is_inside = (start <= last) & (last < end)
    is_needed = ~is_inside | (end - start > MOST_SHORT_BYTES) | (records[:, MARKED] != 0)
    is_needed[:1] |= unplaced.is_open  # it may join the last one
    for i in np.flatnonzero(is_needed).tolist():
        unplaced.add(int(start[i]), int(end[i]), int(last[i]) if is_inside[i] else None)
