"""The module list: extents, names, versions, PDB records, Breakpad's padding."""

from __future__ import annotations

import struct
import uuid

import pytest

from heapdump.dump.open import open_minidump
from tests.builders import BuiltDump, DumpBuilder

GUID = bytes(range(16))


def stream_at(built: BuiltDump, number: int) -> tuple[int, int]:
    """(size, file offset) of a stream."""
    return struct.unpack_from("<II", built.data, 32 + 12 * built.truth.streams.index(number) + 4)


def patched(built: BuiltDump, offset: int, form: str, *values: int) -> bytes:
    data = bytearray(built.data)
    struct.pack_into(form, data, offset, *values)
    return bytes(data)


def test_a_module_comes_out_as_it_was_written(write_dump):
    builder = DumpBuilder().module(
        0x7FFE12340000, 0x1F5000, "C:\\Windows\\ntdll.dll", version=(10, 0, 19041, 508), timestamp=7, checksum=9,
        pdb=("ntdll.pdb", GUID, 2),
    )  # fmt: skip
    with open_minidump(write_dump(builder.build())) as dump:
        (module,) = dump.modules
        assert (module.span.start, module.span.end) == (0x7FFE12340000, 0x7FFE12535000)
        assert (module.path, module.version) == ("C:\\Windows\\ntdll.dll", (10, 0, 19041, 508))
        assert (module.timestamp, module.checksum) == (7, 9)
        assert module.pdb is not None
        assert (
            module.pdb.guid
            == uuid.UUID(bytes_le=GUID).hex.upper()
            == "03020100050407060809 0A0B0C0D0E0F".replace(" ", "")
        )
        assert (module.pdb.path, module.pdb.age) == ("ntdll.pdb", 2)


def test_a_module_without_version_resource_has_no_version(write_dump):
    with open_minidump(write_dump(DumpBuilder().module(0x1000, 0x1000, "a.dll", version=None).build())) as dump:
        assert dump.modules[0].version is None
        assert dump.modules[0].pdb is None


def test_names_keep_every_character(write_dump):
    path = "C:\\Прог\\日本\\😀 a.dll"
    with open_minidump(write_dump(DumpBuilder().module(0x1000, 0x1000, path).build())) as dump:
        assert dump.modules[0].path == path


@pytest.mark.parametrize("record", [b"NB10" + bytes(40), b"RSDS" + bytes(19), b"", b"RSD"])
def test_a_debug_record_that_is_no_rsds_gives_no_pdb(write_dump, record):
    built = DumpBuilder().module(0x1000, 0x1000, "a.dll", pdb=("a.pdb", GUID, 1)).build()
    _, at = stream_at(built, 4)
    place = len(built.data)
    data = patched(built, at + 4 + 76, "<II", len(record), place) + record
    with open_minidump(write_dump(data)) as dump:
        assert dump.modules[0].pdb is None
        assert dump.modules[0].path == "a.dll"


def test_a_pdb_record_behind_the_end_of_the_file_gives_no_pdb(write_dump):
    built = DumpBuilder().module(0x1000, 0x1000, "a.dll", pdb=("a.pdb", GUID, 1)).build()
    _, at = stream_at(built, 4)
    with open_minidump(write_dump(patched(built, at + 4 + 76, "<II", 0xFFFFFFFF, 0xFFFFFFF0))) as dump:
        assert dump.modules[0].pdb is None


def test_a_pdb_path_without_end_stops_at_the_record(write_dump):
    built = DumpBuilder().module(0x1000, 0x1000, "a.dll", pdb=("a.pdb", GUID, 1)).build()
    _, at = stream_at(built, 4)
    record = b"RSDS" + GUID + struct.pack("<I", 5) + b"no-nul"
    data = patched(built, at + 4 + 76, "<II", len(record), len(built.data)) + record + b"behind it\0"
    with open_minidump(write_dump(data)) as dump:
        assert dump.modules[0].pdb is not None
        assert (dump.modules[0].pdb.path, dump.modules[0].pdb.age) == ("no-nul", 5)


@pytest.mark.parametrize("offset", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_name_outside_of_the_file_is_empty(write_dump, offset):
    built = DumpBuilder().module(0x1000, 0x1000, "a.dll").build()
    _, at = stream_at(built, 4)
    with open_minidump(write_dump(patched(built, at + 4 + 20, "<I", offset))) as dump:
        assert dump.modules[0].path == ""


def test_a_name_longer_than_the_file_is_left_out_with_a_note(write_dump):
    built = DumpBuilder().module(0x1000, 0x1000, "a.dll").module(0x3000, 0x1000, "b.dll").build()
    _, at = stream_at(built, 4)
    (name,) = struct.unpack_from("<I", built.data, at + 4 + 20)
    with open_minidump(write_dump(patched(built, name, "<I", 0x7FFFFFFF))) as dump:
        assert [m.path for m in dump.modules] == ["", "b.dll"]
        assert any(f"{name:#x} (2,147,483,647 bytes)" in note and "too long" in note for note in dump.notes)


def test_many_unreadable_names_are_one_line_of_the_notes(write_dump):
    builder = DumpBuilder()
    for i in range(40):
        builder.module(0x1000 * (i + 1), 0x1000, f"{i}.dll")
    built = builder.build()
    _, at = stream_at(built, 4)
    data = bytearray(built.data)
    for i in range(40):
        (name,) = struct.unpack_from("<I", data, at + 4 + 108 * i + 20)
        struct.pack_into("<I", data, name, 0xFFFFFFFF)
    with open_minidump(write_dump(bytes(data))) as dump:
        assert len(dump.modules) == 40
        assert len([note for note in dump.notes if "too long" in note]) == 1


@pytest.mark.parametrize(("base", "size"), [(0x1000, 0), (0xFFFFFFFFFFFFF000, 0x1001), (0xFFFFFFFFFFFFFFFF, 2)])
def test_a_module_of_no_size_or_past_the_top_is_left_out_with_a_note(write_dump, base, size):
    built = DumpBuilder().module(base, size, "bad.dll").module(0x3000, 0x1000, "good.dll").build()
    with open_minidump(write_dump(built)) as dump:
        assert [m.path for m in dump.modules] == ["good.dll"]
        assert any("1 module entry" in note and "impossible extent" in note for note in dump.module_notes)


@pytest.mark.parametrize("count", [3, 100, 0xFFFFFFFF])
def test_a_count_above_what_the_stream_holds_is_cut_with_a_note(write_dump, count):
    built = DumpBuilder().module(0x1000, 0x1000, "a.dll").module(0x3000, 0x1000, "b.dll").build()
    _, at = stream_at(built, 4)
    with open_minidump(write_dump(patched(built, at, "<I", count))) as dump:
        assert [m.path for m in dump.modules] == ["a.dll", "b.dll"]
        assert f"the module list says {count:,} entries, its stream holds 2: the rest is missing" in dump.module_notes


@pytest.mark.parametrize("number", [4, 3, 5])
def test_lists_with_a_count_padded_to_eight_bytes_are_read(write_dump, number):
    """Breakpad pads the count so that the records are aligned; the stream's size tells."""
    builder = DumpBuilder(memory_list="32").module(0x10000, 0x1000, "a.dll").thread(4, 0x5000)
    built = builder.memory(0x5000, b"abc").memory(0x7000, b"defg").build()
    size, at = stream_at(built, number)
    stream = built.data[at : at + size]
    data = bytearray(built.data + stream[:4] + bytes(4) + stream[4:])
    struct.pack_into("<II", data, 32 + 12 * built.truth.streams.index(number) + 4, size + 4, len(built.data))
    with open_minidump(write_dump(bytes(data))) as dump:
        assert [m.path for m in dump.modules] == ["a.dll"]
        assert [(t.id, t.teb) for t in dump.threads] == [(4, 0x5000)]
        assert [(int(r["start"]), int(r["size"])) for r in dump.memory_ranges] == [(0x5000, 3), (0x7000, 4)]
        assert dump.notes == []
