"""Each maximum of `dump/limits.py` holds: the file is refused, or cut with a note."""

from __future__ import annotations

import gzip
import struct
from collections import namedtuple
from pathlib import Path

import pytest

from heapdump.dump import limits
from heapdump.dump.open import open_minidump
from heapdump.errors import HostileDump
from heapdump.snapshot import open_dump
from tests.builders import DumpBuilder

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def limit(monkeypatch):
    def lower(name: str, value: int) -> None:
        assert getattr(limits, name) > value
        monkeypatch.setattr(limits, name, value)

    return lower


def three_modules() -> DumpBuilder:
    builder = DumpBuilder()
    for i in range(3):
        builder.module(0x10000 * (i + 1), 0x1000, f"C:\\{i}.dll", pdb=(f"{i}.pdb", bytes(range(16)), 1))
    return builder


def test_the_message_of_a_limit_says_which_value_and_maximum():
    limits.require("goats", 1000, 1000)
    with pytest.raises(HostileDump, match=r"^goats: 1,001 is more than heapdump accepts \(1,000\)"):
        limits.require("goats", 1001, 1000)


def test_max_streams_refuses_the_file(write_dump, limit):
    limit("MAX_STREAMS", 3)
    with pytest.raises(HostileDump, match=r"streams in the directory: 4 is more than heapdump accepts \(3\)"):
        open_minidump(write_dump(DumpBuilder().build()))


def test_max_modules_refuses_the_list(write_dump, limit):
    limit("MAX_MODULES", 2)
    with open_minidump(write_dump(three_modules().build())) as dump, pytest.raises(HostileDump, match="module list: 3"):
        dump.modules  # noqa: B018


def test_max_unloaded_modules_cuts_the_list_with_a_note(write_dump, limit):
    limit("MAX_UNLOADED_MODULES", 1)
    built = DumpBuilder().unloaded(0x1000, 0x1000, "a").unloaded(0x3000, 0x1000, "b").build()
    with open_minidump(write_dump(built)) as dump:
        assert [m.name for m in dump.unloaded_modules] == ["a"]
        assert any("unloaded modules says 2 entries" in note for note in dump.notes)


def test_max_threads_refuses_the_list_and_cuts_infos_and_names_with_a_note(write_dump, limit):
    limit("MAX_THREADS", 1)
    builder = DumpBuilder()
    for tid in (4, 8):
        builder.thread(tid, 0x5000).thread_name(tid, f"n{tid}").thread_info(tid)
    with open_minidump(write_dump(builder.drop(3).build())) as dump:
        assert [info.id for info in dump.thread_infos] == [4]
        assert dump.thread_names == {4: "n4"}
        assert len([note for note in dump.notes if "2 entries" in note or "2 thread names" in note]) == 2
    two = DumpBuilder().thread(4, 0x5000).thread(8, 0x5000).build()
    with open_minidump(write_dump(two)) as dump, pytest.raises(HostileDump, match="thread list: 2"):
        dump.threads  # noqa: B018


@pytest.mark.parametrize("memory_list", ["64", "32"])
def test_max_memory_ranges_refuses_either_list(write_dump, limit, memory_list):
    limit("MAX_MEMORY_RANGES", 1)
    built = DumpBuilder(memory_list=memory_list).memory(0x1000, b"a").memory(0x3000, b"b").build()
    with open_minidump(write_dump(built)) as dump, pytest.raises(HostileDump, match="memory list: 2"):
        dump.memory_ranges  # noqa: B018


def test_max_memory_ranges_counts_both_lists_together(write_dump, limit):
    limit("MAX_MEMORY_RANGES", 3)
    second = struct.pack("<IQIIQII", 2, 0x5000, 1, 64, 0x6000, 1, 64)
    built = DumpBuilder().memory(0x1000, b"a").memory(0x3000, b"b").stream(5, second).build()
    with open_minidump(write_dump(built)) as dump, pytest.raises(HostileDump):
        dump.memory_ranges  # noqa: B018


def test_max_regions_refuses_the_map(write_dump, limit):
    limit("MAX_REGIONS", 1)
    built = DumpBuilder().region(0x1000, 0x1000).region(0x2000, 0x1000).build()
    with open_minidump(write_dump(built)) as dump, pytest.raises(HostileDump, match="memory info list: 2"):
        dump.regions  # noqa: B018


def test_max_string_bytes_leaves_the_string_out_with_a_note(write_dump, limit):
    limit("MAX_STRING_BYTES", 20)
    builder = DumpBuilder().module(0x1000, 0x1000, "C:\\long-name.dll").module(0x3000, 0x1000, "C:\\b.dll")
    with open_minidump(write_dump(builder.build())) as dump:
        assert [m.path for m in dump.modules] == ["", "C:\\b.dll"]
        assert [note for note in dump.notes if "too long" in note and "(32 bytes)" in note]


def test_max_strings_total_bytes_leaves_the_later_strings_out(write_dump, limit):
    limit("MAX_STRINGS_TOTAL_BYTES", 30)
    with open_minidump(write_dump(three_modules().build())) as dump:
        assert [m.path for m in dump.modules] == ["C:\\0.dll", "", ""]
        assert any("left out" in note for note in dump.notes)


def test_strings_that_many_records_share_count_once(write_dump, limit):
    limit("MAX_STRINGS_TOTAL_BYTES", 30)
    built = three_modules().build()
    data = bytearray(built.data)
    at = struct.unpack_from("<III", data, 32 + 12 * built.truth.streams.index(4))[2] + 4
    name = struct.unpack_from("<I", data, at + 20)[0]
    for i in range(3):
        struct.pack_into("<I", data, at + 108 * i + 20, name)
    with open_minidump(write_dump(bytes(data))) as dump:
        assert [m.path for m in dump.modules] == ["C:\\0.dll"] * 3
        assert dump.notes == []


def test_max_stream_bytes_cuts_a_small_stream_with_a_note(write_dump, limit):
    limit("MAX_STREAM_BYTES", 12 + 24)
    built = DumpBuilder().unloaded(0x1000, 0x1000, "a").unloaded(0x3000, 0x1000, "b").build()
    with open_minidump(write_dump(built)) as dump:
        assert dump.unloaded_modules == ()
        assert any("unloaded modules says 2 entries" in note for note in dump.notes)


def test_max_stream_bytes_bounds_all_reads_of_a_stream_together(write_dump, limit):
    limit("MAX_STREAM_BYTES", 12 + 24 + 4 + 9)
    for name, found in (("ab", [(0x1000, "ab")]), ("abcde", [])):
        with open_minidump(write_dump(DumpBuilder().unloaded(0x1000, 0x1000, name).build())) as dump:
            assert [(m.span.start, m.name) for m in dump.unloaded_modules] == found
            assert bool(found) != any("more than a small stream may have" in note for note in dump.notes)


def test_max_handle_operations_reads_the_first_ones_with_a_note(write_dump, limit):
    limit("MAX_HANDLE_OPERATIONS", 2)
    data = struct.pack("<IIII", 16, 32, 3, 0) + bytes(3 * 32)
    with open_minidump(write_dump(DumpBuilder().stream(18, data).build())) as dump:
        assert len(dump.handle_operations) == 2
        assert any("says 3 entries, 2 of them were read" in note for note in dump.notes)


def test_max_comments_reads_the_first_ones_with_a_note(write_dump, limit):
    limit("MAX_COMMENTS", 2)
    builder = DumpBuilder().comment("a").comment("b", wide=True).comment("c")
    with open_minidump(write_dump(builder.build())) as dump:
        assert dump.comments == ("a", "b")
        assert any("3 comments" in note for note in dump.notes)


def test_max_comment_bytes_leaves_the_comment_out_with_a_note(write_dump, limit):
    limit("MAX_COMMENT_BYTES", 10)
    with open_minidump(write_dump(DumpBuilder().comment("far too long").comment("short").build())) as dump:
        assert dump.comments == ("short",)
        assert any("comment of 13 bytes is too long" in note for note in dump.notes)


@pytest.mark.parametrize(("ranges", "refused"), [(3, False), (6, True)])
def test_max_memory_per_file_refuses_ranges_that_are_many_times_the_file(write_dump, ranges, refused):
    size = 1 << 20
    rows = b"".join(struct.pack("<QII", (i + 1) << 32, size, 0) for i in range(ranges))
    builder = DumpBuilder().thread(4, 0x5000).memory(0x10000, bytes(size)).drop(9)
    with open_dump(write_dump(builder.stream(5, struct.pack("<I", ranges) + rows).build())) as snapshot:
        if refused:
            with pytest.raises(HostileDump, match=r"bytes of memory in the dump: .* is more than heapdump accepts"):
                snapshot.process  # noqa: B018
        else:
            assert snapshot.process.space.total_bytes == ranges * size


def test_max_codeview_bytes_cuts_the_path(write_dump, limit):
    limit("MAX_CODEVIEW_BYTES", 24 + 6)
    built = DumpBuilder().module(0x1000, 0x1000, "a.dll", pdb=("abcdefghi.pdb", bytes(16), 3)).build()
    with open_minidump(write_dump(built)) as dump:
        pdb = dump.modules[0].pdb
        assert pdb is not None and (pdb.path, pdb.age) == ("abcdef", 3)


def test_max_context_bytes_cuts_the_registers(write_dump, limit):
    limit("MAX_CONTEXT_BYTES", 100)
    built = DumpBuilder().thread(4, 0x5000).exception(4, 0xC0000005, 0x10).build()
    with open_minidump(write_dump(built)) as dump:
        assert dump.exception is not None
        assert [len(dump.threads[0].context), len(dump.exception.context)] == [100, 100]


def packed(write_dump, size: int = 1 << 20):
    return write_dump(gzip.compress(DumpBuilder().memory(0x1000, bytes(size)).build().data), "a.dmp.gz")


def test_max_expansion_and_its_minimum_stop_a_bomb(write_dump, limit, temporary_folder):
    path = packed(write_dump)
    limit("MIN_EXPANSION_BYTES", 1000)
    limit("MAX_EXPANSION", 2)
    with pytest.raises(HostileDump, match=r"packed bytes unpack to more than .*stopped"):
        open_dump(path)
    assert list(temporary_folder.iterdir()) == []


def test_a_small_file_may_expand_up_to_the_minimum_whatever_its_proportion(write_dump, limit, temporary_folder):
    path = packed(write_dump)
    limit("MAX_EXPANSION", 2)
    limit("MIN_EXPANSION_BYTES", 2 << 20)
    with open_dump(path) as snapshot:
        assert snapshot.dump.file_bytes > 1 << 20


def test_min_disk_free_bytes_stops_before_the_disk_is_full(write_dump, monkeypatch, temporary_folder):
    path = packed(write_dump)
    free = limits.MIN_DISK_FREE_BYTES + (1 << 20) - 1  # the dump is a little larger than the megabyte
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(1 << 40, 0, free))
    with pytest.raises(HostileDump, match="nearly full; point TMPDIR"):
        open_dump(path)
    assert list(temporary_folder.iterdir()) == []


def test_every_limit_has_a_test_here():
    files = (Path(__file__), Path(__file__).with_name("test_bombs.py"))
    source = "".join(path.read_text(encoding="utf-8").upper() for path in files)
    names = [name for name in vars(limits) if name.isupper()]
    assert len(names) >= 14
    assert [name for name in names if name not in source] == []
