"""Which uncommitted ranges a segment has, by its list, its counter and the memory map."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump.heaps.nt.uncommitted_ranges import mapped_ranges
from heapdump.memory.regions import RegionTable, State
from heapdump.spans import Span

PAGE = 0x1000
SEGMENT = Span(0x10000, 0x90000)


def span(first: int, pages: int) -> Span:
    """Pages of the segment."""
    return Span(SEGMENT.start + first * PAGE, SEGMENT.start + (first + pages) * PAGE)


def regions(*uncommitted: Span, is_complete_map: bool = True) -> RegionTable:
    """A map in which these runs of the segment are not committed."""
    edges = sorted({SEGMENT.start, SEGMENT.end, *(edge for run in uncommitted for edge in (run.start, run.end))})
    start, end = np.array(edges[:-1], np.uint64), np.array(edges[1:], np.uint64)
    reserved = [any(run.start <= at < run.end for run in uncommitted) for at in edges[:-1]]
    state = np.where(reserved, State.MEM_RESERVE, State.MEM_COMMIT).astype(np.uint32)
    zero = np.zeros(len(start), np.uint32)
    return RegionTable(
        start, end, np.full(len(start), SEGMENT.start, np.uint64), state, zero, zero,
        np.full(len(start), -1), (), is_complete_map,
    )  # fmt: skip


LISTED = [span(4, 2), span(20, 3)]
IN_A_FREE_ENTRY = span(40, 2)


@pytest.mark.parametrize(
    ("runs", "pages", "expected"),
    [
        (LISTED, 5, None),
        ([*LISTED, IN_A_FREE_ENTRY], 5, None),
        (LISTED, 7, LISTED),  # the counter is damaged
        ([*LISTED, IN_A_FREE_ENTRY], 6, None),  # so it is here, but nothing tells
        ([span(4, 2), span(20, 4)], 6, [span(4, 2), span(20, 4)]),
        ([span(4, 2), span(20, 4), IN_A_FREE_ENTRY], 6, [span(4, 2), span(20, 4)]),  # one is too short
        ([span(4, 2), span(20, 2), IN_A_FREE_ENTRY], 4, None),  # too long: two runs of that size
        ([span(4, 2), span(20, 1), IN_A_FREE_ENTRY], 3, [span(4, 2), span(20, 1)]),
        ([span(4, 2), span(21, 3), IN_A_FREE_ENTRY], 5, [span(4, 2), span(21, 3)]),  # one is moved
        # pages of a range are being committed, and a free entry contains as many as it had
        ([span(4, 2), span(21, 2), span(40, 3)], 5, None),
        ([span(5, 1), span(21, 2), span(40, 3)], 5, None),
    ],
)
def test_the_map_corrects_one_range_and_no_more(runs, pages, expected):
    assert mapped_ranges(regions(*runs), SEGMENT, LISTED, pages * PAGE) == expected


def test_a_map_that_was_rebuilt_from_the_memory_of_the_dump_corrects_nothing():
    table = regions(span(4, 2), span(20, 4), is_complete_map=False)
    assert mapped_ranges(table, SEGMENT, LISTED, 6 * PAGE) is None
