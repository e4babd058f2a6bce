"""The next trustworthy header behind damage is found in a few steps, whatever lies there."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump.heaps.nt import resync
from heapdump.heaps.nt.entry_format import EntryFormat, entry_format_of
from heapdump.heaps.nt.header_word import headers_at
from heapdump.snapshot import Snapshot
from tests.heaps.nt.plans import FIXED, heap_of, process_of
from tests.heaps.nt.plans import Generation as Plan
from tests.patching import poke

XP = Plan("x86", 2600)


def old_header(size: int, previous: int) -> int:
    """Before Vista: no checksum; busy."""
    return size | previous << 16 | 1 << 40


def generation(snapshot: Snapshot) -> EntryFormat:
    heap = snapshot.heaps[0]
    return entry_format_of(snapshot.view_of(heap), heap)


def test_memory_full_of_headers_that_hold_for_one_step_is_read_at_once(open_built, monkeypatch: pytest.MonkeyPatch):
    bad = old_header(5, 9)
    words = np.array([old_header(1, 1), old_header(1, 1), bad] * 100_000 + [old_header(1, 1)] * 4 + [bad], np.int64)
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return headers_at(*arguments)

    monkeypatch.setattr(resync, "headers_at", counted)
    with open_built(process_of(XP, heap_of(XP, FIXED[0]).build())) as snapshot:
        found = resync.next_good_header(generation(snapshot), words, 0, len(words), len(words))
    assert found == (300_000, 1)
    assert len(calls) < 100


@pytest.mark.parametrize(("tail", "found"), [([1, 1], (2, 1)), ([1, 2], None), ([2], None), ([1], (2, 1)), ([], None)])
def test_a_chain_may_end_where_the_memory_does(open_built, tail, found):
    """Two entries that lie, then a chain of some sizes up to the end."""
    previous = [1, *tail][: len(tail)]
    chain = [old_header(size, before) for size, before in zip(tail, previous, strict=True)]
    words = np.array([old_header(9, 7), old_header(9, 7), *chain], np.int64)
    with open_built(process_of(XP, heap_of(XP, FIXED[0]).build())) as snapshot:
        assert resync.next_good_header(generation(snapshot), words, 0, len(words), len(words)) == found


def test_a_size_below_the_unused_bytes_costs_none_of_them(open_built):
    """The row was cut to the wrong size, and got the right one without its unused bytes: 256 bytes for 253, exact."""
    heap = heap_of(XP, FIXED[0])
    heap.busy(40)
    block = heap.busy(245)  # 8 bytes of header, 11 unused
    heap.busy(40)
    with open_built(poke(process_of(XP, heap.build()).build(), (block - 8, b"\x01"))) as snapshot:
        row = int(np.flatnonzero(snapshot.walk.table.address == block)[0])
        found = snapshot.walk.table.block(row)
        assert (found.size, found.trust) == (245, "derived")
        assert [one.kind for one in snapshot.damage.findings] == ["size_chain"]
