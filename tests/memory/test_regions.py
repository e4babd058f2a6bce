"""The memory map as columns: plain cases."""

from __future__ import annotations

import re

import numpy as np
import pytest

from heapdump.dump.lists import REGION
from heapdump.memory.regions import (
    Kind,
    RegionClaim,
    RegionTable,
    State,
    known,
    protection_name,
    rebuilt_table,
    region_table,
)
from heapdump.spans import Span

TOP = 1 << 64
COMMIT, RESERVE, FREE = State.MEM_COMMIT, State.MEM_RESERVE, State.MEM_FREE
PRIVATE, MAPPED, IMAGE = Kind.MEM_PRIVATE, Kind.MEM_MAPPED, Kind.MEM_IMAGE


def rows_of(*rows: tuple[int, int, int, int, int, int]) -> np.ndarray:
    """(base, size, allocation base, state, protect, type) each."""
    return np.array([(b, a, s, st, p, t) for b, s, a, st, p, t in rows], REGION)


def table_of(*rows: tuple[int, int, int, int, int, int]) -> RegionTable:
    notes: list[str] = []
    table = region_table(rows_of(*rows), notes)
    assert notes == []
    return table


def spans(table: RegionTable) -> list[tuple[int, int]]:
    return list(zip(table.start.tolist(), table.end.tolist(), strict=True))


MAP = (
    (0x10000, 0x1000, 0x10000, COMMIT, 4, PRIVATE),
    (0x11000, 0xF000, 0x10000, RESERVE, 0, PRIVATE),
    (0x20000, 0x10000, 0, FREE, 1, 0),
    (0x30000, 0x2000, 0x30000, COMMIT, 2, IMAGE),
    (0x32000, 0x1000, 0x32000, COMMIT, 4, MAPPED),
)


def test_rows_are_sorted_and_keep_their_attributes():
    table = table_of(*reversed(MAP))
    assert table.is_complete_map
    assert spans(table) == [(b, b + s) for b, s, *_ in MAP]
    assert table.state.tolist() == [COMMIT, RESERVE, FREE, COMMIT, COMMIT]
    assert table.type.tolist() == [PRIVATE, PRIVATE, 0, IMAGE, MAPPED]
    assert table.size.tolist() == [s for _, s, *_ in MAP]


def test_protection_is_that_of_committed_memory_only():
    rows = table_of((0x1000, 0x1000, 0x1000, RESERVE, 4, PRIVATE), (0x2000, 0x1000, 0, FREE, 1, 0))
    assert rows.protect.tolist() == [0, 0]


def test_an_address_is_found_in_its_row_only():
    table = table_of(*MAP)
    assert [table.index_at(a) for a in (0xFFFF, 0x10000, 0x10FFF, 0x11000, 0x2FFFF, 0x32FFF, 0x33000)] == [
        None, 0, 0, 1, 2, 4, None,
    ]  # fmt: skip
    assert table.index_at(0) is None
    assert table.index_at(TOP - 1) is None


def test_an_allocation_is_the_whole_reservation():
    table = table_of(*MAP)
    assert table.allocation(0x10800) == table.allocation(0x1FFFF) == Span(0x10000, 0x20000)
    assert table.allocation(0x31000) == Span(0x30000, 0x32000)
    assert table.allocation(0x20000) is None
    assert table.allocation(0x99999) is None


def test_an_allocation_ends_at_a_gap():
    table = table_of((0x1000, 0x1000, 0x1000, COMMIT, 4, PRIVATE), (0x3000, 0x1000, 0x1000, COMMIT, 4, PRIVATE))
    assert table.allocation(0x1000) == Span(0x1000, 0x2000)
    assert table.allocation(0x3000) == Span(0x3000, 0x4000)
    assert list(table.allocation_rows()) == [(0, 1), (1, 2)]


def test_runs_are_the_allocations_in_order():
    assert list(table_of(*MAP).allocation_rows()) == [(0, 2), (2, 3), (3, 4), (4, 5)]
    assert list(table_of().allocation_rows()) == []


@pytest.mark.parametrize(
    ("start", "end", "committed"),
    [
        (0x10000, 0x11000, 0x1000),
        (0x10800, 0x30800, 0x1000),
        (0x0, TOP, 0x4000),
        (0x11000, 0x30000, 0),
        (0x31FFF, 0x32001, 2),
        (0x40000, 0x50000, 0),
        (0x10000, 0x10000, 0),
    ],
)
def test_committed_bytes_of_a_span_are_those_of_its_committed_parts(start, end, committed):
    assert table_of(*MAP).committed_bytes(Span(start, end)) == committed


@pytest.mark.parametrize("base", [0, 0x10000, 0x11000, 0x20000, 0x30000, 0x32000, 0x33000, TOP - 1])
def test_an_address_is_committed_where_its_byte_is(base):
    table = table_of(*MAP)
    for address in (base - 1, base, base + 1):
        if 0 <= address < TOP:
            assert table.is_committed(address) == (table.committed_bytes(Span(address, address + 1)) == 1)


def test_a_claim_cuts_the_rows_it_begins_or_ends_in():
    table = table_of(*MAP).split([RegionClaim(Span(0x10800, 0x12000), "Heap")])
    assert spans(table)[:4] == [(0x10000, 0x10800), (0x10800, 0x11000), (0x11000, 0x12000), (0x12000, 0x20000)]
    assert table.claim.tolist() == [-1, 0, 0, -1, -1, -1, -1]
    assert table.row(1)[0] == Span(0x10800, 0x11000)
    assert table.row(1)[5] == RegionClaim(Span(0x10800, 0x12000), "Heap")
    assert table.row(0)[5] is None


def test_of_claims_on_the_same_bytes_the_later_one_wins():
    first, second = RegionClaim(Span(0x10000, 0x20000), "a"), RegionClaim(Span(0x18000, 0x19000), "b")
    table = table_of(*MAP).split([first, second])
    assert [table.row(i)[5] for i in range(4)] == [first, first, second, first]
    table = table_of(*MAP).split([second, first])
    assert [table.row(i)[5] for i in range(2)] == [first, first]


def test_nobody_claims_free_memory():
    table = table_of(*MAP).split([RegionClaim(Span(0x11000, 0x31000), "x")])
    assert spans(table) == [
        (0x10000, 0x11000), (0x11000, 0x20000), (0x20000, 0x30000), (0x30000, 0x31000), (0x31000, 0x32000),
        (0x32000, 0x33000),
    ]  # fmt: skip
    assert table.claim.tolist() == [-1, 0, -1, 0, -1, -1]


def test_a_claim_outside_of_the_map_or_without_size_changes_nothing():
    table = table_of(*MAP)
    claims = [
        RegionClaim(Span(0, 0x1000), "a"),
        RegionClaim(Span(0x90000, 0xA0000), "b"),
        RegionClaim(Span(0x10800, 0x10800), "c"),
    ]
    split = table.split(claims)
    assert set(split.claim.tolist()) == {-1}
    assert spans(split)[0][0] == 0x10000 and spans(split)[-1][1] == 0x33000
    assert sum(split.size.tolist()) == sum(table.size.tolist())


def test_a_claim_up_to_the_very_top_is_taken():
    table = table_of((TOP - 0x3000, 0x2000, TOP - 0x3000, COMMIT, 4, PRIVATE))
    split = table.split([RegionClaim(Span(TOP - 0x2000, TOP), "x")])
    assert spans(split) == [(TOP - 0x3000, TOP - 0x2000), (TOP - 0x2000, TOP - 0x1000)]
    assert split.claim.tolist() == [-1, 0]


def test_the_map_itself_is_not_changed_by_a_split():
    table = table_of(*MAP)
    before = (table.start.tolist(), table.claim.tolist())
    table.split([RegionClaim(Span(0x10000, 0x11000), "a")])
    assert (table.start.tolist(), table.claim.tolist()) == before


def test_entries_that_wrap_or_are_empty_are_left_out_with_a_note():
    notes: list[str] = []
    rows = rows_of(
        (TOP - 0x1000, 0x2000, 0, COMMIT, 4, PRIVATE), (0x1000, 0, 0x1000, COMMIT, 4, PRIVATE), MAP[0],
        (0x5000, TOP - 1, 0x5000, COMMIT, 4, PRIVATE),
    )  # fmt: skip
    assert spans(region_table(rows, notes)) == [(0x10000, 0x11000)]
    assert len(notes) == 1 and re.search("3 entries of the memory map .*impossible extent", notes[0])


def test_of_entries_that_overlap_the_lower_start_counts_with_a_note():
    notes: list[str] = []
    rows = rows_of(
        (0x2000, 0x3000, 0x2000, RESERVE, 0, PRIVATE), (0x1000, 0x2000, 0x1000, COMMIT, 4, PRIVATE),
        (0x1800, 0x800, 0x1800, FREE, 0, 0),
    )  # fmt: skip
    table = region_table(rows, notes)
    assert spans(table) == [(0x1000, 0x3000), (0x3000, 0x5000)]
    assert table.state.tolist() == [COMMIT, RESERVE]
    assert len(notes) == 1 and re.search("overlap.*the first one counts", notes[0]) and "2" in notes[0]


def test_a_rebuilt_map_calls_nothing_free_and_knows_no_protection():
    table = rebuilt_table([Span(0x1000, 0x2000), Span(0x5000, 0x6000)], [Span(0x4000, 0x8000)])
    assert not table.is_complete_map
    assert spans(table) == [(0x1000, 0x2000), (0x4000, 0x5000), (0x5000, 0x6000), (0x6000, 0x8000)]
    assert table.state.tolist() == [COMMIT, State.UNKNOWN, COMMIT, State.UNKNOWN]
    assert table.type.tolist() == [Kind.UNKNOWN, IMAGE, IMAGE, IMAGE]
    assert set(table.protect.tolist()) == {0}
    assert table.allocation(0x5000) is None


def test_a_rebuilt_map_of_nothing_is_empty():
    table = rebuilt_table([], [])
    assert len(table) == 0
    assert table.index_at(0x1000) is None
    assert table.committed_bytes(Span(0, 0x1000)) == 0
    assert len(table.split([RegionClaim(Span(0, 0x1000), "x")])) == 0


def test_a_rebuilt_map_may_reach_the_very_top():
    table = rebuilt_table([Span(0x1000, 0x2000)], [Span(TOP - 0x1000, TOP)])
    assert table.index_at(0x1000) == 0
    assert len(table) <= 2


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (0x04, "PAGE_READWRITE"),
        (0x104, "PAGE_READWRITE|PAGE_GUARD"),
        (0x640, "PAGE_EXECUTE_READWRITE|PAGE_NOCACHE|PAGE_WRITECOMBINE"),
        (0x40000004, "PAGE_READWRITE|0x40000000"),
        (0, None),
    ],
)
def test_a_protection_is_named_as_windbg_names_it(value, name):
    assert protection_name(value) == name


def test_values_that_windows_does_not_document_are_unknown():
    assert (known(State, 0x1000), known(State, 0x1234)) == (COMMIT, State.UNKNOWN)
    assert (known(Kind, 0x20000), known(Kind, 0x30000)) == (PRIVATE, Kind.UNKNOWN)
