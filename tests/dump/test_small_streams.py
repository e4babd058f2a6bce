"""The small streams, with the `minidump` package's own reading of healthy dumps as the second witness."""

from __future__ import annotations

import importlib
import io
import re
import struct
from typing import Literal

import pytest

from heapdump.dump.open import open_minidump
from tests.builders import BuiltDump, DumpBuilder

MinidumpFile = importlib.import_module("minidump.minidumpfile").MinidumpFile


def stream_offset(built: BuiltDump, number: int) -> int:
    return struct.unpack_from("<I", built.data, 32 + 12 * built.truth.streams.index(number) + 8)[0]


def healthy(memory_list: Literal["64", "32"]) -> BuiltDump:
    builder = DumpBuilder(memory_list=memory_list).misc(99, create_time=1_700_000_000, user_time=3, kernel_time=4)
    for i in range(3):
        builder.module(0x7FF600000000 + (i << 20), 0x10000 + i * 0x1000, f"C:\\m{i}.dll")
        builder.thread(100 + i, 0x5000 + i * 0x1000, stack=(0x20000 + 0x1000 * i, 0x1000))
        builder.memory(0x20000 + 0x1000 * i, bytes([i]) * 0x1000).region(0x20000 + 0x1000 * i, 0x1000)
        builder.unloaded(0x7FF700000000 + (i << 20), 0x8000, f"gone{i}.dll", timestamp=77 + i)
        builder.thread_info(100 + i, start_address=0x7FF600001000 + i, create_time=5)
    return builder.exception(101, 0xC0000005, 0x7FF600001234, (1, 0x10)).comment("procdump -ma 99").build()


@pytest.mark.parametrize("memory_list", ["64", "32"])
def test_a_healthy_dump_reads_as_the_minidump_package_reads_it(write_dump, memory_list):
    built = healthy(memory_list)
    other = MinidumpFile.parse_buff(io.BytesIO(built.data))
    with open_minidump(write_dump(built)) as dump:
        assert [(m.span.start, m.span.size, m.path) for m in dump.modules] == [
            (m.baseaddress, m.size, m.name) for m in other.modules.modules
        ]
        assert [(t.id, t.teb) for t in dump.threads] == [(t.ThreadId, t.Teb) for t in other.threads.threads]
        segments = other.memory_segments_64 if memory_list == "64" else other.memory_segments
        assert [(int(r["start"]), int(r["size"]), int(r["offset"])) for r in dump.memory_ranges] == [
            (s.start_virtual_address, s.size, s.start_file_address) for s in segments.memory_segments
        ]
        assert dump.regions is not None
        assert [(int(r["base"]), int(r["size"])) for r in dump.regions] == [
            (r.BaseAddress, r.RegionSize) for r in other.memory_info.infos
        ]
        assert [(u.span.start, u.span.size, u.name) for u in dump.unloaded_modules] == [
            (u.baseaddress, u.size, u.name) for u in other.unloaded_modules.modules
        ]
        assert [(i.id, i.start_address) for i in dump.thread_infos] == [
            (i.ThreadId, i.StartAddress) for i in other.thread_info.infos
        ]
        assert dump.misc_info is not None
        assert dump.misc_info.process_id == other.misc_info.ProcessId == 99
        assert dump.notes == []


def test_small_streams_come_out_as_they_were_written(write_dump):
    built = healthy("64")
    truth = built.truth
    with open_minidump(write_dump(built)) as dump:
        assert [(u.span.start, u.span.size, u.name, u.timestamp) for u in dump.unloaded_modules] == [
            (u.base, u.size, u.name, u.timestamp) for u in truth.unloaded
        ]
        assert [(i.id, i.start_address) for i in dump.thread_infos] == [
            (i.tid, i.start_address) for i in truth.thread_infos
        ]
        assert dump.misc_info is not None
        assert dump.misc_info.create_time == 1_700_000_000
        assert (dump.misc_info.user_seconds, dump.misc_info.kernel_seconds) == (3, 4)
        assert dump.comments == ("procdump -ma 99",)


@pytest.mark.parametrize("size", [24, 44, 232, 832, 1364])
def test_misc_info_of_every_size_has_the_process_id(write_dump, size):
    with open_minidump(write_dump(DumpBuilder().misc(4242, size=size).build())) as dump:
        assert dump.misc_info is not None
        assert dump.misc_info.process_id == 4242
        assert dump.misc_info.create_time is None


def test_misc_info_without_its_flags_says_nothing(write_dump):
    built = DumpBuilder().misc(4242).build()
    data = bytearray(built.data)
    struct.pack_into("<I", data, stream_offset(built, 15) + 4, 0)
    with open_minidump(write_dump(bytes(data))) as dump:
        assert dump.misc_info is not None
        assert (dump.misc_info.process_id, dump.misc_info.create_time) == (None, None)


def test_comments_of_both_kinds_are_read_and_stripped(write_dump):
    builder = DumpBuilder().comment("*** procdump\r\n").comment("größer", wide=True)
    with open_minidump(write_dump(builder.build())) as dump:
        assert sorted(dump.comments) == ["*** procdump", "größer"]


def test_a_comment_in_no_known_encoding_is_a_note(write_dump):
    with open_minidump(write_dump(DumpBuilder().stream(10, b"\xff\xfe\xfd").stream(11, b"a").build())) as dump:
        assert all("�" in text or text == "" for text in dump.comments)
        assert len(dump.comments) + len([n for n in dump.notes if "comment" in n]) == 2


def test_thread_names_are_read_by_id(write_dump):
    builder = DumpBuilder().thread_name(4, "Worker 1").thread_name(8, "日本").thread_name(12, "")
    with open_minidump(write_dump(builder.build())) as dump:
        assert dump.thread_names == {4: "Worker 1", 8: "日本"}


@pytest.mark.parametrize("offset", [0, 1 << 32, (1 << 64) - 1])
def test_a_thread_name_outside_of_the_file_is_no_name(write_dump, offset):
    built = DumpBuilder().thread_name(4, "a").thread_name(8, "b").build()
    data = bytearray(built.data)
    struct.pack_into("<Q", data, stream_offset(built, 24) + 4 + 4, offset)
    with open_minidump(write_dump(bytes(data))) as dump:
        assert dump.thread_names == {8: "b"}


SMALL = [(14, "unloaded_modules", 24), (17, "thread_infos", 64)]


def small_built() -> BuiltDump:
    return DumpBuilder().unloaded(0x1000, 0x1000, "a.dll").thread_info(4, start_address=5).build()


@pytest.mark.parametrize(("number", "name", "each"), SMALL)
@pytest.mark.parametrize("count", [2, 1 << 20, 0xFFFFFFFF])
def test_a_hostile_count_of_a_small_stream_is_cut_with_a_note(write_dump, number, name, each, count):
    built = small_built()
    data = bytearray(built.data)
    struct.pack_into("<I", data, stream_offset(built, number) + 8, count)
    with open_minidump(write_dump(bytes(data))) as dump:
        assert len(getattr(dump, name)) == 1
        assert any(re.search(rf"says {count:,} entries.*\b1\b", note) for note in dump.notes)


@pytest.mark.parametrize(("number", "name", "each"), SMALL)
@pytest.mark.parametrize(("header_bytes", "delta"), [(12, -1), (12, 1), (16, 0), (0, 0), (12, 1 << 30)])
def test_a_small_stream_with_other_sizes_is_not_read_and_noted(write_dump, number, name, each, header_bytes, delta):
    built = small_built()
    data = bytearray(built.data)
    struct.pack_into("<II", data, stream_offset(built, number), header_bytes, each + delta)
    with open_minidump(write_dump(bytes(data))) as dump:
        assert getattr(dump, name) == ()
        assert any(
            f"has entries of {each + delta} bytes behind a header of {header_bytes}: not read" in n for n in dump.notes
        )


def test_an_unloaded_module_with_a_wild_name_is_no_failure(write_dump):
    built = small_built()
    for offset in (0xFFFFFFFF, len(built.data) - 2, 0):
        data = bytearray(built.data)
        struct.pack_into("<I", data, stream_offset(built, 14) + 12 + 20, offset)
        with open_minidump(write_dump(bytes(data))) as dump:
            assert len(dump.unloaded_modules) <= 1
            assert [i.id for i in dump.thread_infos] == [4]


def test_an_unloaded_module_at_the_top_ends_there(write_dump):
    built = DumpBuilder().unloaded((1 << 64) - 0x1000, 0x8000, "a.dll").build()
    with open_minidump(write_dump(built)) as dump:
        assert dump.unloaded_modules[0].span.end == 1 << 64


@pytest.mark.parametrize("count", [0xFFFFFFFF, 1 << 20])
def test_a_hostile_handle_stream_changes_nothing(write_dump, count):
    """No command asks for handles: the stream must not be read along with others."""
    handles = struct.pack("<IIII", 16, 40, count, 0) + bytes(40)
    with open_minidump(write_dump(DumpBuilder().misc(3).stream(12, handles).build())) as dump:
        assert dump.misc_info is not None
        assert dump.notes == []
