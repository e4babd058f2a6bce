"""Memory64List, MemoryList and MemoryInfoList as arrays."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Literal

import pytest

from heapdump.dump.open import open_minidump
from tests.builders import BuiltDump, DumpBuilder


def stream_offset(built: BuiltDump, number: int) -> int:
    return struct.unpack_from("<I", built.data, 32 + 12 * built.truth.streams.index(number) + 8)[0]


def patched(built: BuiltDump, offset: int, form: str, *values: int) -> bytes:
    data = bytearray(built.data)
    struct.pack_into(form, data, offset, *values)
    return bytes(data)


def three(memory_list: Literal["64", "32"]) -> DumpBuilder:
    builder = DumpBuilder(memory_list=memory_list)
    return builder.memory(0x7000, b"seven").memory(0x1000, b"one").memory(0x7FF000000000, b"high")


@pytest.mark.parametrize("memory_list", ["64", "32"])
def test_each_range_has_its_own_bytes_in_either_list(write_dump, memory_list):
    built = three(memory_list).build()
    with open_minidump(write_dump(built)) as dump:
        ranges = [(int(r["start"]), int(r["size"]), int(r["offset"])) for r in dump.memory_ranges]
        assert [(start, built.data[at : at + size]) for start, size, at in ranges] == [
            (0x7000, b"seven"), (0x1000, b"one"), (0x7FF000000000, b"high"),
        ]  # fmt: skip
        assert dump.notes == []


def test_ranges_of_both_lists_are_read_the_64_bit_ones_first(write_dump):
    built = three("64").stream(5, struct.pack("<IQII", 1, 0x9000, 2, 32)).build()
    with open_minidump(write_dump(built)) as dump:
        assert [int(r["start"]) for r in dump.memory_ranges] == [0x7000, 0x1000, 0x7FF000000000, 0x9000]
        assert int(dump.memory_ranges[3]["offset"]) == 32


@pytest.mark.parametrize("memory_list", ["64", "32"])
def test_an_empty_list_has_no_ranges(write_dump, memory_list):
    with open_minidump(write_dump(DumpBuilder(memory_list=memory_list).build())) as dump:
        assert len(dump.memory_ranges) == 0
        assert dump.notes == []


def test_a_dump_without_any_list_has_no_ranges(write_dump):
    with open_minidump(write_dump(DumpBuilder().drop(9).build())) as dump:
        assert len(dump.memory_ranges) == 0


@pytest.mark.parametrize(("memory_list", "number", "form"), [("64", 9, "<Q"), ("32", 5, "<I")])
@pytest.mark.parametrize("count", [4, 0xFFFFFFFF])
def test_a_count_above_what_the_list_holds_is_cut_with_a_note(write_dump, memory_list, number, form, count):
    built = three(memory_list).build()
    with open_minidump(write_dump(patched(built, stream_offset(built, number), form, count))) as dump:
        assert [int(r["start"]) for r in dump.memory_ranges] == [0x7000, 0x1000, 0x7FF000000000]
        assert any(
            f"memory list says {count:,}" in note and "holds 3: the rest is missing" in note for note in dump.notes
        )


@pytest.mark.parametrize("base", [0xFFFFFFFFFFFFFFFF, 1 << 63, 0])
def test_a_wild_file_position_of_the_64_bit_list_never_wraps_into_the_file(write_dump, base):
    built = three("64").build()
    with open_minidump(write_dump(patched(built, stream_offset(built, 9) + 8, "<Q", base))) as dump:
        offsets = [int(r["offset"]) for r in dump.memory_ranges]
        if base:
            assert all(offset >= dump.file_bytes for offset in offsets)
        else:
            assert offsets == [0, 5, 8]


def test_a_wild_size_in_the_64_bit_list_puts_what_follows_behind_the_file(write_dump):
    built = three("64").build()
    with open_minidump(write_dump(patched(built, stream_offset(built, 9) + 16 + 8, "<Q", 0xFFFFFFFFFFFFFFFB))) as dump:
        offsets = [int(r["offset"]) for r in dump.memory_ranges]
        assert offsets[0] < dump.file_bytes
        assert all(offset >= dump.file_bytes for offset in offsets[1:])


def info_list(header_bytes: int, entry_bytes: int, rows: Sequence[tuple[int, ...]], count: int | None = None) -> bytes:
    out = struct.pack("<IIQ", header_bytes, entry_bytes, len(rows) if count is None else count).ljust(
        min(header_bytes, 4096), b"\xaa"
    )
    for row in rows:
        out += struct.pack("<QQIIQIIII", *row).ljust(min(entry_bytes, 4096), b"\xbb")
    return out


ROWS = [(0x1000, 0x1000, 4, 0, 0x2000, 0x1000, 4, 0x20000, 0), (0x3000, 0, 0, 0, 0x5000, 0x10000, 1, 0, 0)]


@pytest.mark.parametrize(("header_bytes", "entry_bytes"), [(16, 48), (16, 64), (32, 48), (24, 52), (16, 49)])
def test_the_map_is_read_by_the_sizes_that_its_header_states(write_dump, header_bytes, entry_bytes):
    with open_minidump(
        write_dump(DumpBuilder().stream(16, info_list(header_bytes, entry_bytes, ROWS)).build())
    ) as dump:
        assert dump.regions is not None
        found = [tuple(int(v) for v in row) for row in dump.regions]
        assert found == [
            (0x1000, 0x1000, 0x2000, 0x1000, 4, 0x20000),
            (0x3000, 0, 0x5000, 0x10000, 1, 0),
        ]
        assert dump.notes == []


@pytest.mark.parametrize(("header_bytes", "entry_bytes"), [(16, 0), (16, 47), (15, 48), (0, 48), (0, 0)])
def test_a_map_with_entries_too_small_is_not_read_and_noted(write_dump, header_bytes, entry_bytes):
    data = info_list(16, 48, ROWS)
    data = struct.pack("<II", header_bytes, entry_bytes) + data[8:]
    with open_minidump(write_dump(DumpBuilder().stream(16, data).build())) as dump:
        assert dump.regions is None
        assert (
            f"the memory info list has entries of {entry_bytes} bytes behind a header of {header_bytes}: not read"
            in dump.notes
        )


@pytest.mark.parametrize(
    ("header_bytes", "entry_bytes"),
    [(16, 0xFFFFFFFF), (16, 0x80000000), (16, 0x7FFFFFFF), (0xFFFFFFFF, 48), (0xFFFFFFFF, 0xFFFFFFFF)],
)
def test_a_map_whose_entries_cannot_fit_the_stream_is_empty_and_noted(write_dump, header_bytes, entry_bytes):
    data = struct.pack("<IIQ", header_bytes, entry_bytes, 2) + bytes(96)
    with open_minidump(write_dump(DumpBuilder().stream(16, data).build())) as dump:
        assert dump.regions is None
        assert any("memory info list" in note for note in dump.notes)


@pytest.mark.parametrize("count", [3, 1 << 40, (1 << 64) - 1])
def test_a_region_count_above_what_the_map_holds_is_cut_with_a_note(write_dump, count):
    with open_minidump(write_dump(DumpBuilder().stream(16, info_list(16, 48, ROWS, count)).build())) as dump:
        assert dump.regions is not None and len(dump.regions) == 2
        assert f"the memory info list says {count:,} regions, its stream holds 2: the rest is missing" in dump.notes


@pytest.mark.parametrize("size", [1, 15, 16])
def test_a_map_without_entries_is_none(write_dump, size):
    data = info_list(16, 48, [])[:size]
    with open_minidump(write_dump(DumpBuilder().stream(16, data).build())) as dump:
        assert dump.regions is None


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 16, 17, 24])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 11, 12, 16, 23, 24, 31])
def test_a_stream_cut_after_a_few_bytes_is_read_without_failure(write_dump, number, size):
    built = DumpBuilder().thread(4, 0x5000).drop(number).stream(number, b"\xff" * size).build()
    if number == 3:
        built = DumpBuilder().drop(number).stream(number, b"\xff" * size).build()
    with open_minidump(write_dump(built)) as dump:
        stream = dump.directory.first(number)
        assert stream is not None and stream.present == size
        assert len(dump.threads) == (0 if number == 3 else 1)
        assert len(dump.modules) == len(dump.unloaded_modules) == len(dump.thread_infos) == 0
        assert len(dump.memory_ranges) == ((size - 4) // 16 if number == 5 and size >= 20 else 0)
        assert (dump.exception, dump.regions, dump.thread_names) == (None, None, {})
        assert dump.misc_info is None or size >= 24
        assert len(dump.comments) <= 1
