"""One stretch of an NT heap's entry chain, as rows: in one compiled pass, or as array arithmetic on the headers found.

Why two ways: `kernels.chain`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.heap import Heap
from heapdump.heaps.nt.entry import HEADER_CODE, INTERNAL_FLAG, LAST_FLAG, RANGE_END_CODE, Headers, headers_at, unasked
from heapdump.heaps.nt.entry_format import EntryFormat
from heapdump.heaps.nt.windows import Stretch, Window
from heapdump.kernels import compiled_if_worth, nt_chain, run
from heapdump.kernels.row import BUSY, FLAGS_SHIFT, INTERNAL

MOST_ROWS = 1 << 16
"""Rows made at a time."""


@dataclass(frozen=True, slots=True)
class At:
    """A place in a window: number of the stretch, granule, and granules of the entry before it (0: a run starts)."""

    k: int
    granule: int
    previous: int


def next_entries(
    entry_format: EntryFormat, heap: Heap, window: Window, at: At, until: int, base_tag: int, columns: BlockColumns, most: int,
    expected: int,
) -> tuple[int, At, int]:  # fmt: skip
    """Adds the entries from `at` on, as far as they hold, at most up to the end of the stretch before `until`.

    `most`: so many headers may be looked at before the first is checked. `expected`: blocks there may be in all.

    Returns:
        (rows that were added, where the chain stopped, why: see `kernels.chain`). `FULL` asks to be called again, and
        so does `END` before the last stretch.
    """
    g = entry_format
    quick = None if g.is_pre_vista else compiled_if_worth(nt_chain.chain_modern, max(len(columns), expected))
    if quick is None:
        return _by_arrays(entry_format, heap, window, at, base_tag, columns, most)
    rows = columns.tail(MOST_ROWS)
    count, k, granule, why, previous = quick(
        window.words, window.limits, at.k, until, at.granule, at.previous,
        nt_chain.HeaderCoding(g.stride, g.word_index, g.key, g.mask), base_tag,
        rows,
    )  # fmt: skip
    columns.add(count, heap.index)
    return count, At(k, granule, previous), why


def _by_arrays(
    entry_format: EntryFormat, heap: Heap, window: Window, at: At, base_tag: int, columns: BlockColumns, most: int
) -> tuple[int, At, int]:
    stretch, words, previous = window.stretches[at.k], window.words, at.previous
    granules, stopped = _follow(entry_format, words, at.granule, stretch, len(columns), most)
    headers = headers_at(entry_format, words, granules)
    keep, why = _hold(entry_format, headers, previous)
    if why == nt_chain.CHECKSUM:
        stopped = int(granules[keep])
        if headers.holds[keep]:
            why = nt_chain.PREVIOUS
    elif why == nt_chain.RUN_END:
        stopped = int(granules[keep - 1] + headers.size[keep - 1])
        if stopped == stretch.end:
            why = nt_chain.END
    if keep:
        previous = int(headers.size[keep - 1])
        _add(entry_format, heap, window, stretch, base_tag, granules[:keep], headers, columns)
    if why == nt_chain.END and stopped < stretch.stop:
        why = nt_chain.FULL if len(granules) == most else _why_not(entry_format, words, stopped, previous)
    return keep, At(at.k, stopped, previous), why


def _follow(
    g: EntryFormat, words: NDArray[np.int64], at: int, stretch: Stretch, blocks: int, most: int
) -> tuple[NDArray[np.int64], int]:
    """(granules of the headers, where it stopped)."""
    out = np.empty(min(most, stretch.stop - at), np.int64)
    arguments = (words, at, stretch.stop, stretch.end, g.stride, g.word_index, g.key, out)
    count, stopped = run(nt_chain.follow, blocks, *arguments)
    return out[:count], stopped


def _hold(entry_format: EntryFormat, headers: Headers, previous: int) -> tuple[int, int]:
    """(rows before the first that does not hold, or up to the last of the run; END, RUN_END, or CHECKSUM for damage)."""
    before = np.concatenate([np.array([previous]), headers.size[:-1]])[: len(headers.size)]
    bad = np.flatnonzero(~headers.holds | (headers.previous != before))[:1]
    last = (headers.flags & LAST_FLAG) != 0 if entry_format.is_pre_vista else headers.unused == RANGE_END_CODE
    ends = np.flatnonzero(last)[:1]
    if len(ends) and not (len(bad) and bad[0] <= ends[0]):
        return int(ends[0]) + 1, nt_chain.RUN_END
    return (int(bad[0]), nt_chain.CHECKSUM) if len(bad) else (len(headers.size), nt_chain.END)


def _why_not(entry_format: EntryFormat, words: NDArray[np.int64], at: int, previous: int) -> int:
    """Which check the header fails at which `follow` stopped for its size."""
    header = headers_at(entry_format, words, np.array([at]))
    if not header.holds[0]:
        return nt_chain.CHECKSUM
    return nt_chain.SIZE if header.previous[0] == previous else nt_chain.PREVIOUS


def _add(
    entry_format: EntryFormat, heap: Heap, window: Window, stretch: Stretch, base_tag: int, at: NDArray[np.int64],
    headers: Headers, columns: BlockColumns,
) -> None:  # fmt: skip
    keep = len(at)
    size, flags, unused = headers.size[:keep], headers.flags[:keep], headers.unused[:keep]
    busy = headers.is_busy[:keep]
    spare, lead = unasked(entry_format, window.words, at, size, unused, busy)
    entry = stretch.base + at * entry_format.granule
    if entry_format.is_pre_vista:
        internal = np.isin(entry, np.array([heap.address, *(s.address for s in heap.segments)], np.int64))
    else:
        internal = busy & (((flags & INTERNAL_FLAG) != 0) | (unused == HEADER_CODE) | (unused == RANGE_END_CODE))
    tags = base_tag | np.where(busy, BUSY, 0) | np.where(internal, INTERNAL, 0) | flags << FLAGS_SHIFT
    columns.append(heap.index, entry, size * entry_format.stride, spare, lead * entry_format.stride, tags)
