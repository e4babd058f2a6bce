"""Files that are no minidumps of Windows processes are refused by name."""

from __future__ import annotations

import gzip
import struct

import pytest

from heapdump.dump.open import open_minidump
from heapdump.errors import NotAMinidump, UnsupportedDump
from tests.builders import DumpBuilder


def elf(kind: int, *, little: bool = True) -> bytes:
    return (
        b"\x7fELF\x02"
        + (b"\x01" if little else b"\x02")
        + bytes(10)
        + struct.pack("<H" if little else ">H", kind)
        + bytes(64)
    )


OTHERS = [
    (b"PAGEDU64" + bytes(4096), "a Windows kernel dump \\(64-bit\\).*procdump -ma"),
    (b"PAGEDUMP" + bytes(4096), "a Windows kernel dump \\(32-bit\\).*procdump -ma"),
    (b"PAGEXXXX" + bytes(100), "a Windows kernel dump; "),
    (b"USERDUMP" + bytes(100), "an old-style user dump"),
    (elf(4), "an ELF core dump \\(Linux\\)"),
    (elf(4, little=False), "an ELF core dump \\(Linux\\)"),
    (elf(2), "an ELF program"),
    (elf(99), "an ELF file"),
    (b"MZ\x90\0" + bytes(200), "a Windows program \\(EXE or DLL\\), not a dump of one"),
    (b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0", "a PDB symbol file"),
    (b"\xcf\xfa\xed\xfe" + bytes(100), "a Mach-O file"),
    (b"7z\xbc\xaf\x27\x1c" + bytes(100), "a 7z archive; unpack it first"),
    (b"Rar!\x1a\x07\0" + bytes(100), "a RAR archive"),
    (b"BZh9" + bytes(100), "a bzip2 file"),
    (b"PMDM" + bytes(100), "swapped byte order"),
    (b"Debug session time: Mon Jan  1\r\n", "a text file"),
    ("Grüße".encode("utf-16"), "a text file"),
    (b"\xef\xbb\xbfhello", "a text file"),
    ("Speicherabbild für Müller\r\n".encode(), "a text file"),
    (bytes(5000), "nothing but zero bytes"),
    (b"", "is empty"),
    (b"MDM", "a text file|starts with"),
    (b"\x01\x02\x03\x04\0\0", "starts with 01 02 03 04 instead of"),
]


@pytest.mark.parametrize(("content", "words"), OTHERS, ids=[words[:24] for _, words in OTHERS])
def test_a_file_that_is_no_minidump_is_named_in_the_refusal(write_dump, content, words):
    path = write_dump(content)
    with pytest.raises(NotAMinidump, match=words) as caught:
        open_minidump(path)
    assert str(path) in str(caught.value)


def test_a_packed_file_that_is_no_dump_is_named_by_what_is_inside(write_dump, temporary_folder):
    with pytest.raises(NotAMinidump, match="what is packed inside is a text file"):
        open_minidump(write_dump(gzip.compress(b"just some words\n" * 40), "a.dmp.gz"))
    assert list(temporary_folder.iterdir()) == []


def test_a_dump_of_another_processor_is_unsupported_by_name(write_dump):
    with pytest.raises(UnsupportedDump, match="Windows arm64 process; heapdump reads x86 and x64"):
        open_minidump(write_dump(DumpBuilder(arch="arm64").build()))


def patched_system_info(**values: int) -> bytes:
    built = DumpBuilder().build()
    at = struct.unpack_from("<III", built.data, 32)[2]
    data = bytearray(built.data)
    if "processor" in values:
        struct.pack_into("<H", data, at, values["processor"])
    if "platform" in values:
        struct.pack_into("<I", data, at + 20, values["platform"])
    return bytes(data)


@pytest.mark.parametrize(
    ("platform", "name"),
    [(0x8101, "macOS"), (0x8201, "Linux"), (0x8203, "Android"), (0x8206, "Fuchsia"), (0x9999, "platform 0x9999")],
)
def test_a_minidump_of_another_system_is_unsupported_by_name(write_dump, platform, name):
    with pytest.raises(UnsupportedDump, match=f"minidump of a {name} process; heapdump reads Windows processes"):
        open_minidump(write_dump(patched_system_info(platform=platform)))


def test_an_unheard_of_processor_is_unsupported_by_number(write_dump):
    with pytest.raises(UnsupportedDump, match="processor 0x4242"):
        open_minidump(write_dump(patched_system_info(processor=0x4242)))


@pytest.mark.real
@pytest.mark.parametrize(
    ("relative", "words"),
    [
        ("linux-x64-electron", "Linux"),
        ("macos-x64-electron", "macOS"),
    ],
)
def test_recorded_minidumps_of_other_systems_are_refused_by_name(recorded, relative, words):
    with pytest.raises(UnsupportedDump, match=words):
        open_minidump(recorded(f"real/other-systems/{relative}.dmp.xz"))
