"""Header and stream directory: bounds, oddities, notes."""

from __future__ import annotations

import struct

import pytest

from heapdump.dump.open import open_minidump
from heapdump.errors import DumpError, NotAMinidump, TruncatedDump
from tests.builders import DumpBuilder
from tests.builders.dump_truth import Arch
from tests.patching import without_stream

HEADER = struct.Struct("<4sIIIIIQ")


def plain() -> DumpBuilder:
    return DumpBuilder().module(0x7FF600000000, 0x1000, "C:\\a.dll").thread(4, 0x5000).memory(0x5000, b"x" * 64)


def with_header(data: bytes, *, count: int | None = None, offset: int | None = None) -> bytes:
    magic, version, old_count, old_offset, check, stamp, flags = HEADER.unpack_from(data)
    new = (old_count if count is None else count, old_offset if offset is None else offset)
    return HEADER.pack(magic, version, *new, check, stamp, flags) + data[HEADER.size :]


def with_entry(data: bytes, index: int, number: int, size: int, offset: int) -> bytes:
    at = HEADER.size + 12 * index
    return data[:at] + struct.pack("<III", number, size, offset) + data[at + 12 :]


def with_more_entries(data: bytes, *entries: tuple[int, int, int]) -> bytes:
    """The dump with its directory moved to the end of the file and these entries behind the others."""
    count = HEADER.unpack_from(data)[2]
    old = data[HEADER.size : HEADER.size + 12 * count]
    moved = with_header(data, count=count + len(entries), offset=len(data))
    return moved + old + b"".join(struct.pack("<III", *entry) for entry in entries)


def test_the_header_gives_time_and_flags(write_dump):
    with open_minidump(write_dump(DumpBuilder(flags=0x2 | 0x1000, timestamp=1_234_567_890).build())) as dump:
        assert dump.directory.header.timestamp == 1_234_567_890
        assert dump.directory.header.flags == 0x1002
        assert dump.directory.header.flag_words == ("full memory", "thread info")


def test_no_flag_is_called_normal_and_unknown_flags_are_hex(write_dump):
    with open_minidump(write_dump(DumpBuilder(flags=0).build())) as dump:
        assert len(dump.directory.header.flag_words) == 1 and "normal" in dump.directory.header.flag_words[0]
    with open_minidump(write_dump(DumpBuilder(flags=1 << 40 | 2).build())) as dump:
        assert dump.directory.header.flag_words == ("full memory", "0x10000000000")


def test_streams_are_listed_in_file_order(write_dump):
    built = plain().build()
    with open_minidump(write_dump(built)) as dump:
        assert tuple(s.number for s in dump.directory.streams) == built.truth.streams
        assert dump.directory.notes == ()
        assert all(s.present == s.size for s in dump.directory.streams)


def test_a_count_larger_than_the_file_is_cut_with_a_note(write_dump):
    data = plain().build().data
    with open_minidump(write_dump(with_header(data, count=200))) as dump:
        room = (len(data) - HEADER.size) // 12
        assert any(
            note.startswith(f"the directory says 200 streams, the file has room for {room}") for note in dump.notes
        )
        assert dump.modules[0].path == "C:\\a.dll"


@pytest.mark.parametrize("offset", [-11, -1, 0, 1, 0x1000, 0x7FFFFFFF])
def test_a_directory_behind_the_end_is_a_truncated_dump(write_dump, offset):
    data = plain().build().data
    path = write_dump(with_header(data, offset=len(data) + offset))
    with pytest.raises(TruncatedDump, match=r"stream directory at offset .* lies behind the end"):
        open_minidump(path)


@pytest.mark.parametrize("size", [4, 5, 16, 31])
def test_a_file_that_ends_inside_the_header_is_a_truncated_dump(write_dump, size):
    with pytest.raises(TruncatedDump, match=f"ends inside the minidump header \\({size} of 32 bytes\\)"):
        open_minidump(write_dump(plain().build().data[:size]))


def test_a_directory_of_zeros_is_a_dump_whose_writer_did_not_finish(write_dump):
    built = plain().build()
    with pytest.raises(
        TruncatedDump, match=r"names no stream \(0 empty entries\): the writer of the dump did not finish"
    ):
        open_minidump(write_dump(with_header(built.data, count=0)))
    count = len(built.truth.streams)
    zeros = built.data[:32] + bytes(12 * count) + built.data[32 + 12 * count :]
    with pytest.raises(TruncatedDump, match=f"{count} empty entries"):
        open_minidump(write_dump(zeros))


def test_a_dump_without_system_information_and_threads_has_no_known_processor(write_dump):
    built = plain().build()
    for number in (7, 3):
        built = without_stream(built, number)
    with pytest.raises(TruncatedDump, match="no system information"):
        open_minidump(write_dump(built))


def test_a_directory_entry_that_points_at_the_directory_is_only_a_wrong_list(write_dump):
    built = plain().build()
    index = built.truth.streams.index(4)
    size = 12 * len(built.truth.streams)
    with open_minidump(write_dump(with_entry(built.data, index, 4, size, 32))) as dump:
        assert len(dump.modules) <= 1
        assert any("module" in note for note in [*dump.notes, *dump.module_notes])
        assert [t.id for t in dump.threads] == [4]


def test_of_two_streams_of_one_number_the_first_counts(write_dump):
    other = struct.pack("<I", 0)
    with open_minidump(write_dump(plain().stream(4, other).build())) as dump:
        assert [m.path for m in dump.modules] == ["C:\\a.dll"]


def test_an_empty_stream_gives_way_to_a_later_one_of_its_number(write_dump):
    built = plain().build()
    index = built.truth.streams.index(4)
    at = HEADER.size + 12 * index
    entry = struct.unpack_from("<III", built.data, at)
    data = with_more_entries(with_entry(built.data, index, 4, 0, 0), entry)
    with open_minidump(write_dump(data)) as dump:
        assert [m.path for m in dump.modules] == ["C:\\a.dll"]


def test_an_unknown_stream_stays_a_number(write_dump):
    with open_minidump(write_dump(plain().stream(0x4B6B0002, b"crashpad").build())) as dump:
        stream = next(s for s in dump.directory.streams if s.number == 0x4B6B0002)
        assert (stream.name, stream.size) == ("0x4b6b0002", 8)
        assert dump.notes == []


def test_unused_and_zero_length_streams_say_nothing(write_dump):
    data = with_more_entries(plain().build().data, (0, 0, 0), (0, 77, 12), (16, 0, 0))
    with open_minidump(write_dump(data)) as dump:
        assert 0 not in [s.number for s in dump.directory.streams]
        assert dump.directory.first(16) is None
        assert dump.regions is None
        assert dump.notes == []


def test_a_stream_that_runs_past_the_end_is_noted_with_what_is_present(write_dump):
    data = with_more_entries(plain().build().data, (21, 0x10000, 0x20))
    with open_minidump(write_dump(data)) as dump:
        stream = dump.directory.first(21)
        assert stream is not None and stream.present == len(data) - 0x20
        assert (
            f"stream system memory info ends at the end of the file: {len(data) - 0x20:,} of 65,536 bytes" in dump.notes
        )


def test_a_stream_behind_the_end_of_the_file_is_as_good_as_absent(write_dump):
    built = plain().build()
    index = built.truth.streams.index(4)
    with open_minidump(write_dump(with_entry(built.data, index, 4, 0x100, 0xFFFFFF00))) as dump:
        assert dump.modules == ()
        assert any("module list ends at the end of the file: 0 of 256 bytes" in note for note in dump.notes)


def test_without_system_information_the_threads_tell_the_processor(write_dump):
    processors: dict[Arch, int] = {"x64": 9, "x86": 0}
    for arch, processor in processors.items():
        built = DumpBuilder(arch=arch).thread(4, 0x5000).drop(7).build()
        with open_minidump(write_dump(built)) as dump:
            assert dump.system_info.processor == processor
            assert any("known from the threads" in note for note in dump.notes)


def test_a_missing_file_and_a_folder_are_dump_errors(tmp_path):
    with pytest.raises(DumpError, match=r"none\.dmp: .*[Ff]ile"):
        open_minidump(tmp_path / "none.dmp")
    with pytest.raises(DumpError, match="is not a file"):
        open_minidump(tmp_path)


def test_a_wrong_magic_is_named_with_its_bytes(write_dump):
    with pytest.raises(NotAMinidump, match="starts with 4d 44 4d 51 instead of 4d 44 4d 50"):
        open_minidump(write_dump(b"MDMQ" + bytes(range(1, 20)) + plain().build().data[24:]))
