"""Random maps and random claims against a naive model with one record a page."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.dump.lists import REGION
from heapdump.memory.regions import Kind, RegionClaim, RegionTable, State, rebuilt_table, region_table
from heapdump.spans import Span

pytestmark = pytest.mark.property
PAGE = 0x1000
PAGES = 40
STATES = [State.MEM_COMMIT, State.MEM_RESERVE, State.MEM_FREE]

# (first page, pages, state, allocation page, type)
ENTRIES = st.lists(
    st.tuples(
        st.integers(0, PAGES), st.integers(0, 12), st.sampled_from(STATES), st.integers(0, 3),
        st.sampled_from([Kind.MEM_PRIVATE, Kind.MEM_MAPPED, Kind.MEM_IMAGE]),
    ),
    max_size=12,
)  # fmt: skip
SPANS = st.tuples(st.integers(0, PAGES + 5), st.integers(0, 15)).map(lambda t: (t[0], t[0] + t[1]))
CLAIMS = st.lists(SPANS, max_size=10)


def table_of(entries) -> RegionTable:
    rows = [(first * PAGE, base * PAGE, count * PAGE, state, 4, kind) for first, count, state, base, kind in entries]
    return region_table(np.array(rows, REGION), [])


def model(entries) -> dict[int, int]:
    """page → number of the entry that counts there: the lowest start first, then the first listed."""
    out: dict[int, int] = {}
    for i in sorted(range(len(entries)), key=lambda i: entries[i][0]):
        first, count, *_ = entries[i]
        floor = max(out, default=-1)
        for page in range(first, first + count):
            if page > floor:
                out[page] = i
    return out


def page_rows(table: RegionTable) -> dict[int, int]:
    """page → row of the table; asserts that rows are ascending, disjoint and whole pages."""
    out: dict[int, int] = {}
    end = 0
    for i in range(len(table)):
        start, stop = int(table.start[i]), int(table.end[i])
        assert end <= start < stop
        assert start % PAGE == stop % PAGE == 0
        out |= dict.fromkeys(range(start // PAGE, stop // PAGE), i)
        end = stop
    return out


@given(ENTRIES)
def test_each_page_has_the_attributes_of_its_entry(entries):
    table, expected = table_of(entries), model(entries)
    rows = page_rows(table)
    assert rows.keys() == expected.keys()
    for page, i in rows.items():
        _, _, state, base, kind = entries[expected[page]]
        assert table.state[i] == state
        assert table.protect[i] == (4 if state == State.MEM_COMMIT else 0)
        if state == State.MEM_FREE:
            assert table.type[i] == 0
        else:
            assert (table.type[i], table.allocation_base[i]) == (kind, base * PAGE)
    assert [table.index_at(page * PAGE + 5) for page in range(PAGES + 20)] == [rows.get(p) for p in range(PAGES + 20)]


@given(ENTRIES, CLAIMS)
def test_each_page_belongs_to_the_last_claim_on_it_and_free_ones_to_nobody(entries, pairs):
    table = table_of(entries)
    before = page_rows(table)
    claims = [RegionClaim(Span(a * PAGE, b * PAGE), str(i)) for i, (a, b) in enumerate(pairs)]
    split = table.split(claims)
    after = page_rows(split)
    assert after.keys() == before.keys()
    for page, i in after.items():
        owners = [n for n, (a, b) in enumerate(pairs) if a <= page < b]
        is_free = table.state[before[page]] == State.MEM_FREE
        assert split.claim[i] == (owners[-1] if owners and not is_free else -1)
        for column in ("state", "type", "protect", "allocation_base"):
            assert getattr(split, column)[i] == getattr(table, column)[before[page]]


@given(ENTRIES, CLAIMS)
def test_a_split_makes_no_more_rows_than_it_must(entries, pairs):
    table = table_of(entries)
    before = page_rows(table)
    split = table.split([RegionClaim(Span(a * PAGE, b * PAGE), "x") for a, b in pairs])
    for i in range(1, len(split)):
        same_row = before[int(split.start[i - 1]) // PAGE] == before[int(split.start[i]) // PAGE]
        assert not (same_row and split.claim[i - 1] == split.claim[i])


@given(ENTRIES, SPANS)
def test_committed_bytes_are_the_committed_pages_of_the_span(entries, pair):
    table = table_of(entries)
    pages = [p for p, i in page_rows(table).items() if table.state[i] == State.MEM_COMMIT and pair[0] <= p < pair[1]]
    assert table.committed_bytes(Span(pair[0] * PAGE, pair[1] * PAGE)) == len(pages) * PAGE


@given(ENTRIES)
def test_an_allocation_is_the_largest_run_of_touching_pages_with_one_base(entries):
    table = table_of(entries)
    rows = page_rows(table)
    base = {p: int(table.allocation_base[i]) for p, i in rows.items()}
    for page, i in rows.items():
        found = table.allocation(page * PAGE)
        if table.state[i] == State.MEM_FREE:
            assert found is None
            continue
        first = last = page
        while base.get(first - 1) == base[page]:
            first -= 1
        while base.get(last + 1) == base[page]:
            last += 1
        assert found == Span(first * PAGE, (last + 1) * PAGE)


@given(ENTRIES)
def test_runs_cover_every_row_once_and_share_their_base(entries):
    table = table_of(entries)
    runs = list(table.allocation_rows())
    assert [i for first, last in runs for i in range(first, last)] == list(range(len(table)))
    for first, last in runs:
        assert len(set(table.allocation_base[first:last].tolist())) == 1


@given(st.lists(SPANS, max_size=8), st.lists(SPANS, max_size=5))
def test_a_rebuilt_map_is_what_is_held_and_what_modules_cover(held, images):
    table = rebuilt_table(*([Span(a * PAGE, b * PAGE) for a, b in pairs] for pairs in (held, images)))
    in_dump, in_image = ({p for a, b in pairs for p in range(a, b)} for pairs in (held, images))
    rows = page_rows(table)
    assert rows.keys() == in_dump | in_image
    for page, i in rows.items():
        assert table.state[i] == (State.MEM_COMMIT if page in in_dump else State.UNKNOWN)
        assert table.type[i] == (Kind.MEM_IMAGE if page in in_image else Kind.UNKNOWN)
    assert not table.is_complete_map
