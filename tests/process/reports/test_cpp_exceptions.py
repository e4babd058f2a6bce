"""C++ exceptions: the thrown type and its message, from the descriptors in the image."""

from __future__ import annotations

import struct

import pytest

from heapdump.process.model import Process
from heapdump.process.reports.cpp_exception import CppException, thrown
from tests.builders import ProcessBuilder
from tests.patching import without_memory

TID, MAGIC, BASE = 99, 0x19930520, 0x180000000


def described(arch: str, names: list[bytes]) -> bytes:
    """_ThrowInfo at 0x100 of the image, its array of catchable types, their type descriptors, by hand."""
    base, width = (0, 8) if arch == "x64" else (0x10000000, 4)
    image = bytearray(0x1000)
    struct.pack_into("<IIII", image, 0x100, 0, 0, 0, base + 0x200)
    struct.pack_into(
        f"<I{len(names)}I", image, 0x200, len(names), *(base + 0x300 + 0x40 * i for i in range(len(names)))
    )
    for i, name in enumerate(names):
        struct.pack_into("<II", image, 0x300 + 0x40 * i, 0, base + 0x600 + 0x80 * i)
        image[0x600 + 0x80 * i + 2 * width : 0x600 + 0x80 * i + 2 * width + len(name)] = name
    return bytes(image)


def raised(arch: str, names: list[bytes], what: bytes, *, has_image: bool = True) -> ProcessBuilder:
    base, width = (BASE, 8) if arch == "x64" else (0x10000000, 4)
    process = ProcessBuilder(arch="x64" if arch == "x64" else "x86").thread(TID)
    thing = 0x50000000
    content = (0).to_bytes(width, "little") + (thing + 0x40).to_bytes(width, "little")
    process.region(thing, 0x1000).memory(thing, content.ljust(0x40, b"\0") + what + b"\0")
    if has_image:
        process.region(base, 0x1000).memory(base, described(arch, names))
    parameters = (MAGIC, thing, base + 0x100, *([base] if arch == "x64" else []))
    process.dump.exception(TID, 0xE06D7363, 0x401000, parameters)
    return process


def exception_of(process: Process) -> CppException:
    found = thrown(process)
    assert found is not None
    return found


@pytest.mark.parametrize("arch", ["x64", "x86"])
def test_a_standard_exception_is_named_with_its_message(open_built, arch):
    names = [b".?AVbad_alloc@std@@\0", b".?AVexception@std@@\0"]
    with open_built(raised(arch, names, b"bad allocation").build()) as snapshot:
        assert exception_of(snapshot.process).words == "std::bad_alloc ('bad allocation')"
        (incident,) = snapshot.incidents
        assert "C++ exception std::bad_alloc ('bad allocation')" in incident.leading.finding.message
        assert not incident.is_error


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("Größe zu klein".encode(), "Größe zu klein"),
        ("Größe zu klein".encode("cp1252"), "Größe zu klein"),
        (b"first line\r\nsecond", "first line\r\nsecond"),
        (b"x" * 255, "x" * 255),
        (b"x" * 5000, "x" * 256 + "…"),
        (("zu groß: ".encode("cp1252") + b"x" * 300), "zu groß: " + "x" * 247 + "…"),
        (("ö" * 200).encode(), "ö" * 128 + "…"),
        (("x" + "ö" * 200).encode(), "x" + "ö" * 127 + "…"),
        ("не открыт файл ".encode("cp1251") * 20, ""),
        (b"\x01\x02\x90\xfe\xc3", ""),
        (b"\xc8\xf2\xd0\xe5", ""),
        (b"", ""),
    ],
)
def test_every_text_is_a_message_and_other_bytes_are_none(open_built, what, message):
    process = raised("x64", [b".?AVruntime_error@std@@\0", b".?AVexception@std@@\0"], what)
    with open_built(process.build()) as snapshot:
        assert exception_of(snapshot.process).message == message


def test_a_message_that_memory_cuts_ends_with_dots(open_built):
    process = raised("x64", [b".?AVexception@std@@\0"], b"x" * 0xFF0)
    with open_built(without_memory(process.build(), (0x50000060, 0x50001000))) as snapshot:
        assert exception_of(snapshot.process).message == "x" * 0x20 + "…"


def test_another_type_has_no_message(open_built):
    with open_built(raised("x64", [b".?AVFailure@app@@\0"], b"text").build()) as snapshot:
        assert exception_of(snapshot.process) == CppException(("app::Failure",), "")


def test_a_type_that_is_not_in_the_dump_is_said(open_built):
    with open_built(raised("x64", [], b"", has_image=False).build()) as snapshot:
        assert exception_of(snapshot.process).words == "of a type that is not in the dump"
