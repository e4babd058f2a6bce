"""Follows the chain of entries through the words of a window, and adds a row for each entry.

Two implementations give the same rows: one compiled pass, or a short loop that finds the headers and array arithmetic
for the rest. Decision: see `kernels.nt_chain`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.nt.context import WalkContext
from heapdump.heaps.nt.entry_format import EntryFormat
from heapdump.heaps.nt.header_word import (
    HEADER_CODE,
    INTERNAL_FLAG,
    LAST_FLAG,
    RUN_END_CODE,
    Headers,
    headers_at,
)
from heapdump.heaps.nt.unused_bytes import Entries, unused_bytes
from heapdump.heaps.nt.windows import RunPart, Window
from heapdump.kernels import compiled_if_worth, nt_chain, run
from heapdump.kernels.row import BUSY, FLAGS_SHIFT, INTERNAL, TRUST_GUESS

MOST_ROWS = 1 << 16
"""The most rows that one call adds."""


@dataclass(frozen=True, slots=True)
class ChainPosition:
    """An entry in a window at which the chain begins or goes on.

    Attributes:
        part: index of the part of a run in `Window.run_parts`.
        granule: granule of the entry in the words of the window.
        previous_size: granules of the entry before it; 0 at the start of a run.
    """

    part: int
    granule: int
    previous_size: int


@dataclass(frozen=True, slots=True)
class ChainSection:
    """The section of a chain that one call follows.

    Attributes:
        until_part: index of the part before which the section ends.
        common_tags: bits that the tags of all rows of the section have.
        batch: the most headers that array arithmetic reads before it checks them.
        expected_blocks: estimate of the rows of the whole walk; it chooses between the two implementations.
    """

    until_part: int
    common_tags: int
    batch: int
    expected_blocks: int


@dataclass(frozen=True, slots=True)
class ChainStop:
    """The result of following a section.

    Attributes:
        rows: number of rows that were added.
        position: the first entry that was not added.
        reason: END … FULL of `kernels.nt_chain`. After FULL, and after END before the last part, call again.
    """

    rows: int
    position: ChainPosition
    reason: int


def add_entries(context: WalkContext, window: Window, start: ChainPosition, section: ChainSection) -> ChainStop:
    """Adds a row for each entry from `start` on, up to the first bad header or the end of the section."""
    entry_format, columns = context.entry_format, context.columns
    seen = max(len(columns), section.expected_blocks)
    compiled = None if entry_format.is_pre_vista else compiled_if_worth(nt_chain.chain_modern, seen)
    if compiled is None:
        return _by_arrays(context, window, start, section)
    rows = columns.tail(MOST_ROWS)
    count, part, granule, reason, previous_size = compiled(
        window.words, window.limits, start.part, section.until_part, start.granule, start.previous_size,
        entry_format.coding, section.common_tags, rows,
    )  # fmt: skip
    columns.add(count, context.heap.index)
    return ChainStop(count, ChainPosition(part, granule, previous_size), reason)


def _by_arrays(context: WalkContext, window: Window, start: ChainPosition, section: ChainSection) -> ChainStop:
    """Does the same with array arithmetic, up to the end of one part."""
    entry_format, words, part = context.entry_format, window.words, window.run_parts[start.part]
    granules, stop = _follow(context, words, start.granule, part, section.batch)
    headers = headers_at(entry_format, words, granules)
    count, reason = _good_headers(entry_format, headers, start.previous_size)
    if reason == nt_chain.CHECKSUM:
        stop = int(granules[count])
        if headers.holds[count]:
            reason = nt_chain.PREVIOUS
    elif reason == nt_chain.RUN_END:
        stop = int(granules[count - 1] + headers.size[count - 1])
        if stop == part.end:
            reason = nt_chain.END
    position = replace(start, granule=stop)
    if count:
        position = replace(position, previous_size=int(headers.size[count - 1]))
        add_rows(context, window, part, granules[:count], headers, section.common_tags)
    if reason == nt_chain.END and stop < part.stop:
        is_full = len(granules) == section.batch
        reason = nt_chain.FULL if is_full else _failed_check(entry_format, words, position)
    return ChainStop(count, position, reason)


def _follow(
    context: WalkContext, words: NDArray[np.int64], granule: int, part: RunPart, batch: int
) -> tuple[NDArray[np.int64], int]:
    """((k,) granules of the headers from `granule` on, by Size alone; granule where Size led to no further header)."""
    out = np.empty(min(batch, part.stop - granule), np.int64)
    coding = context.entry_format.coding
    count, stop = run(nt_chain.follow, len(context.columns), words, granule, part.stop, part.end, coding, out)
    return out[:count], stop


def _good_headers(entry_format: EntryFormat, headers: Headers, previous_size: int) -> tuple[int, int]:
    """(number of headers before a bad one, or up to the last of the run; END, RUN_END, or CHECKSUM for a bad one)."""
    before = np.concatenate([np.array([previous_size]), headers.size[:-1]])[: len(headers.size)]
    bad = np.flatnonzero(~headers.holds | (headers.previous_size != before))[:1]
    pre_vista = entry_format.is_pre_vista
    is_last = (headers.flags & LAST_FLAG) != 0 if pre_vista else headers.unused_code == RUN_END_CODE
    last = np.flatnonzero(is_last)[:1]
    if len(last) and not (len(bad) and bad[0] <= last[0]):
        return int(last[0]) + 1, nt_chain.RUN_END
    return (int(bad[0]), nt_chain.CHECKSUM) if len(bad) else (len(headers.size), nt_chain.END)


def _failed_check(entry_format: EntryFormat, words: NDArray[np.int64], position: ChainPosition) -> int:
    """The reason at a header whose Size leads nowhere: the first check that fails, CHECKSUM, PREVIOUS or SIZE."""
    header = headers_at(entry_format, words, np.array([position.granule]))
    if not header.holds[0]:
        return nt_chain.CHECKSUM
    return nt_chain.SIZE if header.previous_size[0] == position.previous_size else nt_chain.PREVIOUS


def add_rows(
    context: WalkContext, window: Window, part: RunPart, granules: NDArray[np.int64], headers: Headers, common_tags: int
) -> None:
    """Adds a row for the entry at each of `granules`, n of them; `headers`: of these entries, n or more."""
    entry_format, heap, count = context.entry_format, context.heap, len(granules)
    flags, code = headers.flags[:count], headers.unused_code[:count]
    entries = Entries(granules, headers.size[:count], code, headers.is_busy[:count])
    unused = unused_bytes(entry_format, window.words, entries)
    entry = part.base + granules * entry_format.granule
    if entry_format.is_pre_vista:
        internal = np.isin(entry, np.array([heap.address, *(s.address for s in heap.segments)], np.int64))
    else:
        own = ((flags & INTERNAL_FLAG) != 0) | (code == HEADER_CODE) | (code == RUN_END_CODE)
        internal = entries.is_busy & own
    tags = (
        common_tags
        | np.where(unused.is_guess, TRUST_GUESS, 0)
        | np.where(entries.is_busy, BUSY, 0)
        | np.where(internal, INTERNAL, 0)
        | flags << FLAGS_SHIFT
    )
    stride = entry_format.stride
    context.columns.append(heap.index, entry, entries.size * stride, unused.unused, unused.header * stride, tags)
