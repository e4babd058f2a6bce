"""Reading memory by address: plain cases, and everything against a dictionary of bytes."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.dump.lists import RANGE
from heapdump.errors import Unreadable
from heapdump.memory.ranges import disjoint
from heapdump.memory.space import AddressSpace
from heapdump.snapshot import open_dump
from heapdump.spans import Span
from tests.builders import ProcessBuilder

TOP = 1 << 64
FILE = bytes((i * 37 + (i >> 8) * 11) & 0xFF for i in range(4096))


class Source:
    """FILE as a dump's file."""

    file_bytes = len(FILE)

    def read_at(self, offset: int, size: int) -> bytes:
        return FILE[offset : offset + size]

    def view_at(self, offset: int, size: int) -> memoryview:
        return memoryview(FILE)[offset : offset + size]

    def expect(self, offset: int, size: int) -> None:
        assert 0 <= offset <= offset + size <= len(FILE)

    def forget(self, offset: int, size: int) -> None:
        assert 0 <= offset <= offset + size <= len(FILE)


def space_of(*ranges: tuple[int, int, int], pointer_bytes: int = 8) -> AddressSpace:
    """A space over FILE from (start, size, offset) triples, made disjoint first."""
    found, _ = disjoint(np.array(list(ranges), RANGE), len(FILE), [], [])
    return AddressSpace(Source(), found, pointer_bytes)


def test_a_read_inside_one_range_gives_its_bytes():
    space = space_of((0x1000, 64, 100))
    assert space.read(0x1000, 64) == FILE[100:164]
    assert space.read(0x1010, 3) == FILE[116:119]
    assert space.total_bytes == 64


def test_a_read_across_touching_ranges_is_stitched():
    space = space_of((0x1010, 16, 300), (0x1000, 16, 100), (0x1020, 16, 500))
    assert space.read(0x100C, 24) == FILE[112:116] + FILE[300:316] + FILE[500:504]


@pytest.mark.parametrize(("address", "size"), [(0xFFF, 1), (0xFFF, 2), (0x1010, 1), (0x100F, 2), (0x1008, 32), (0, 8)])
def test_a_read_that_misses_one_byte_fails_as_a_whole(address, size):
    space = space_of((0x1000, 16, 0), (0x1020, 16, 16))
    assert space.try_read(address, size) is None
    with pytest.raises(Unreadable) as caught:
        space.read(address, size)
    assert (caught.value.address, caught.value.size) == (address, size)


def test_pointers_have_the_size_of_the_view():
    space = space_of((0x1000, 16, 40))
    assert space.pointer(0x1000) == int.from_bytes(FILE[40:48], "little")
    narrow = space.with_pointers(4)
    assert narrow.pointer(0x1000) == int.from_bytes(FILE[40:44], "little")
    assert (space.pointer_bytes, narrow.pointer_bytes) == (8, 4)
    assert narrow.read(0x1000, 16) == space.read(0x1000, 16)


def test_try_forms_give_none_and_plain_forms_raise():
    space = space_of((0x1000, 6, 0))
    assert (space.try_integer(0x1004, 2), space.integer(0x1004, 2)) == (int.from_bytes(FILE[4:6], "little"),) * 2
    assert (space.try_integer(0x1004, 4), space.try_pointer(0x1000), space.try_read(0x2000, 1)) == (None, None, None)
    for call in (lambda: space.integer(0x1004, 4), lambda: space.pointer(0x1000), lambda: space.read(0x2000, 1)):
        with pytest.raises(Unreadable):
            call()


@pytest.mark.parametrize("address", [TOP - 1, TOP, TOP + 5, -1, -8, 1 << 70])
def test_addresses_outside_of_the_address_space_are_unreadable(address):
    space = space_of((TOP - 0x11, 0x10, 0), (0, 16, 16))
    assert space.try_read(address, 8) is None
    assert space.try_pointer(address) is None


def test_a_read_never_wraps_from_the_top_to_zero():
    space = space_of((TOP - 0x11, 0x10, 0), (0, 64, 16))
    assert space.read(TOP - 0x11, 0x10) == FILE[:16]
    assert space.try_read(TOP - 9, 16) is None


def test_a_range_that_runs_past_the_top_is_left_out_as_a_gap():
    gaps: list[str] = []
    rows = np.array([(TOP - 8, 16, 0), (0x1000, 8, 0), (TOP - 1, TOP - 1, 0)], RANGE)
    found, dropped = disjoint(rows, len(FILE), gaps, [])
    assert [int(s) for s in found["start"]] == [0x1000]
    assert dropped == 0
    assert len(gaps) == 1 and re.search("2 memory ranges .*past the top", gaps[0])


def test_a_truncated_file_keeps_what_it_has_and_counts_what_is_lost():
    gaps: list[str] = []
    rows = np.array([(0x1000, 100, 4000), (0x5000, 50, 5000), (0x9000, 10, 0), (0xB000, 7, TOP - 1)], RANGE)
    found, dropped = disjoint(rows, len(FILE), gaps, [])
    assert [(int(r["start"]), int(r["size"])) for r in found] == [(0x1000, 96), (0x9000, 10)]
    assert dropped == 4 + 50 + 7
    assert len(gaps) == 1 and re.search("file ends before .*61 bytes in 3 of 4 ranges .*missing", gaps[0])


def test_of_overlapping_ranges_the_lower_start_keeps_the_common_part():
    remarks: list[str] = []
    rows = np.array([(0x1008, 16, 500), (0x1000, 16, 100)], RANGE)
    found, _ = disjoint(rows, len(FILE), [], remarks)
    assert [tuple(int(v) for v in r) for r in found] == [(0x1000, 16, 100), (0x1010, 8, 508)]
    assert len(remarks) == 1 and "overlap" in remarks[0]


def test_of_ranges_with_one_start_the_first_listed_keeps_the_common_part():
    space = space_of((0x1000, 8, 100), (0x1000, 16, 200))
    assert space.read(0x1000, 16) == FILE[100:108] + FILE[208:216]


def test_ranges_of_a_healthy_dump_leave_no_remark():
    gaps: list[str] = []
    remarks: list[str] = []
    disjoint(np.array([(0x2000, 8, 0), (0x1000, 8, 8), (0x1008, 8, 16)], RANGE), len(FILE), gaps, remarks)
    assert (gaps, remarks) == ([], [])


def test_an_empty_space_has_nothing():
    space = space_of()
    assert space.total_bytes == 0
    assert space.try_read(0, 1) is None
    assert list(space.mapped.words(Span(0, TOP - 1), 8)) == []
    places = np.array([0, 5], np.uint64)
    assert space.mapped.bytes_present(places, places + np.uint64(9)).tolist() == [0, 0]


def test_words_are_aligned_and_leave_out_what_is_not_whole():
    space = space_of((0x1003, 0x20, 3), (0x1023, 2, 0x23))
    pieces = list(space.mapped.words(Span(0x1000, 0x2000), 8))
    assert [(start, words.tolist()) for start, words in pieces] == [
        (0x1008, [int.from_bytes(FILE[at : at + 8], "little") for at in (8, 16, 24)])
    ]


# --- against a dictionary of bytes

BASES = st.sampled_from([0, 0x1000, 0x7FF0_0000_0000, TOP - 400])
RANGES = st.lists(
    st.tuples(BASES, st.integers(0, 150), st.integers(0, 90), st.integers(0, len(FILE) + 100)), max_size=8
)


def model(rows: list[tuple[int, int, int]]) -> dict[int, int]:
    """address → byte, by the rules: in the file, below the top, earlier start first, then the first listed."""
    out: dict[int, int] = {}
    for start, size, offset in sorted(rows, key=lambda row: row[0]):
        if start + size <= TOP - 1:
            for i in range(size):
                if offset + i < len(FILE):
                    out.setdefault(start + i, FILE[offset + i])
    return out


def laid_out(raw: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int]]:
    return [(base + delta, size, offset) for base, delta, size, offset in raw]


@pytest.mark.property
@given(RANGES, st.lists(st.tuples(BASES, st.integers(0, 300), st.integers(1, 60)), min_size=1, max_size=10))
def test_every_read_agrees_with_a_dictionary_of_bytes(raw, reads):
    rows = laid_out(raw)
    space, expected = space_of(*rows), model(rows)
    assert space.total_bytes == len(expected)
    for base, delta, size in reads:
        address = base + delta
        wanted = [expected.get(address + i) for i in range(size)]
        found = space.try_read(address, size)
        if None in wanted:
            assert found is None
        else:
            assert found == bytes(b for b in wanted if b is not None)


@pytest.mark.property
@given(RANGES)
def test_disjoint_ranges_are_ascending_and_inside_the_file(raw):
    rows = np.array(laid_out(raw), RANGE) if raw else np.empty(0, RANGE)
    found, _ = disjoint(rows, len(FILE), [], [])
    ends = [int(r["start"]) + int(r["size"]) for r in found]
    assert all(int(r["size"]) > 0 and int(r["offset"]) + int(r["size"]) <= len(FILE) for r in found)
    assert all(end <= int(r["start"]) for end, r in zip(ends, found[1:], strict=False))


@pytest.mark.property
@given(RANGES, st.lists(st.tuples(BASES, st.integers(0, 300), st.integers(0, 200)), min_size=1, max_size=10))
def test_bytes_present_counts_what_the_dictionary_holds(raw, spans):
    rows = laid_out(raw)
    space, expected = space_of(*rows), model(rows)
    pairs = [(base + delta, min(base + delta + size, TOP - 1)) for base, delta, size in spans]
    starts, ends = (np.array([pair[i] for pair in pairs], np.uint64) for i in (0, 1))
    counts = space.mapped.bytes_present(starts, np.maximum(starts, ends))
    assert counts.tolist() == [sum(start <= a < end for a in expected) for start, end in pairs]


@pytest.mark.property
@given(RANGES, BASES, st.integers(0, 100), st.integers(0, 300), st.sampled_from([4, 8]))
def test_words_are_all_aligned_words_of_single_ranges_in_the_span(raw, base, delta, size, width):
    rows = laid_out(raw)
    space, expected = space_of(*rows, pointer_bytes=width), model(rows)
    span = Span(base + delta, min(base + delta + size, TOP - 1))
    found: dict[int, int] = {}
    for start, words in space.mapped.words(span, width):
        assert start % width == 0
        found |= {start + i * width: int(word) for i, word in enumerate(words)}
    edges = set(space.mapped.starts.tolist())
    for address in range(-(-span.start // width) * width, span.end - width + 1, width):
        inside = [address + i in expected for i in range(width)]
        across = any(address + i in edges for i in range(1, width))
        if all(inside) and not across:
            value = bytes(expected[address + i] for i in range(width))
            assert found.pop(address) == int.from_bytes(value, "little")
    assert found == {}


@pytest.mark.property
@given(
    ranges=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 80), st.integers(0, 4000)), max_size=6),
    addresses=st.lists(st.integers(0, 400), max_size=30),
    size=st.sampled_from([1, 2, 4, 8]),
)
def test_gathered_integers_are_those_read_one_by_one(ranges, addresses, size):
    space = space_of(*ranges)
    values, there = space.mapped.gather(np.array(addresses, np.uint64), size)
    for address, value, found in zip(addresses, values.tolist(), there.tolist(), strict=True):
        inside = any(
            int(a) <= address and address + size <= int(b)
            for a, b in zip(space.mapped.starts, space.mapped.ends, strict=True)
        )
        assert found == inside
        assert value == (space.integer(address, size) if inside else 0)


def test_file_words_are_the_files_bytes_where_they_lie():
    space = space_of((0x1000, 64, 100))
    assert space.mapped.file_place(Span(0x1004, 0x1044)) is None
    assert space.mapped.file_place(Span(0x1004, 0x1010)) == 104
    assert space.mapped.file_place(Span(0x1001, 0x1009)) is None
    assert space.mapped.file_words(8).tobytes() == FILE[8:]
    assert space.mapped.file_words(12).tobytes() == FILE[12 : 12 + (4096 - 12) // 8 * 8]
    space.mapped.forget(Span(0, 1 << 20))


def test_a_span_in_the_file_is_read_where_it_lies_and_another_one_copied():
    space = space_of((0x1000, 64, 96), (0x1040, 64, 200), (0x9000, 64, 501))
    within = space.mapped.span_words(Span(0x1008, 0x1020))
    assert (within.phase, within.missing) == (8, ())
    assert within.words[(0x1008 - within.base) // 8 :][:3].tobytes() == FILE[104:128]
    across = space.mapped.span_words(Span(0x1038, 0x1048))
    assert (across.phase, across.base, across.missing) == (-1, 0x1038, ())
    assert across.words.tobytes() == FILE[152:160] + FILE[200:208]
    is_shifted = space.mapped.span_words(Span(0x9000, 0x9010))
    assert (is_shifted.phase, is_shifted.words.tobytes()) == (-1, FILE[501:517])
    partly = space.mapped.span_words(Span(0x9038, 0x9048))
    assert (partly.words.tobytes(), partly.missing) == (FILE[557:565] + bytes(8), (Span(0x9040, 0x9048),))
    assert space.mapped.in_file(Span(0x1038, 0x1048)) is None


@pytest.mark.property
@given(RANGES, st.lists(st.tuples(BASES, st.integers(0, 40), st.integers(1, 10)), min_size=1, max_size=10))
def test_batches_hold_every_span_once(raw, spans):
    rows = [row for row in laid_out(raw) if row[0] + row[1] < 1 << 62]
    space, expected = space_of(*rows), model(rows)
    pairs = [(base + 8 * at, base + 8 * (at + words)) for base, at, words in spans if base < 1 << 62]
    start, end = (np.array([pair[i] for pair in pairs], np.int64) for i in (0, 1))
    found = {}
    for batch in space.mapped.batches(start, end):
        for row, base in zip(batch.rows.tolist(), batch.base.tolist(), strict=True):
            first, count = (pairs[row][0] - base) // 8, (pairs[row][1] - pairs[row][0]) // 8
            assert row not in found and (pairs[row][0] - base) % 8 == 0
            found[row] = batch.words[first : first + count].tobytes()
            missing = {a for span in batch.missing for a in range(span.start, span.end)}
            assert missing == {a for a in range(*pairs[row]) if a not in expected}
    assert found == {row: bytes(expected.get(a, 0) for a in range(*pair)) for row, pair in enumerate(pairs)}


@pytest.mark.parametrize("size", [0, 3, 7, 8, 21])
def test_copied_words_are_whole_ones_whatever_the_size_of_the_span(size):
    words, missing = space_of((0x1000, 64, 100)).mapped.words64(Span(0x1000, 0x1000 + size))
    assert words.tobytes() == FILE[100 : 100 + size // 8 * 8] and missing == ()


def test_what_will_be_swept_is_told_to_the_file_by_its_offsets(monkeypatch):
    space = space_of((0x1000, 64, 100), (0x1040, 64, 300), (0x9000, 64, 500))
    announced: list[tuple[int, int]] = []
    monkeypatch.setattr(space.mapped._source, "expect", lambda offset, size: announced.append((offset, size)))
    space.mapped.expect(Span(0x1010, 0x9000))
    assert announced == [(116, 48), (300, 64)]


def test_a_file_may_be_expected_behind_its_end(tmp_path):
    path = tmp_path / "x.dmp"
    path.write_bytes(ProcessBuilder().build().data)
    with open_dump(path, use_index=False) as snapshot:
        snapshot.dump.expect(0, snapshot.dump.file_bytes)
        snapshot.dump.expect(snapshot.dump.file_bytes - 1, 1 << 40)
        snapshot.dump.expect(1 << 50, 1)
        assert snapshot.dump.read_at(0, 4) == b"MDMP"
