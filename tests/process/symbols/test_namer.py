"""Names of code addresses from export tables and unwind data laid out by hand; images in memory and in files."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import cabarchive
import pytest

from heapdump.cli import run
from heapdump.dump.streams import UnloadedModule
from heapdump.process.symbols.namer import Namer
from heapdump.process.symbols.store import SymbolStores
from heapdump.process.symbols.stored_files import is_plain
from heapdump.snapshot import Snapshot
from heapdump.spans import Span
from tests.builders import BuiltDump, ProcessBuilder
from tests.builders.image_header import image_header
from tests.builders.nt_heap_layout import HeapArch
from tests.patching import poke

BASE, SIZE, STAMP = 0x67000000, 0x8000, 0x5F000000
NAMES = {"alloc": 0x2000, "release": 0x2100, "table": 0x6000}
FUNCTIONS = [(0x2000, 0x2080, 0x3800), (0x2090, 0x20F0, 0x3800), (0x2100, 0x2200, 0x3800)]
EXPORT_AT, UNWIND_AT = 0x3000, 0x3400


def directories(arch: HeapArch) -> int:
    """Offset of the data directories in the header page."""
    return 0x98 + (112 if arch == "x64" else 96)


def sections(forwarder: bool = False) -> bytes:
    """The export table at 0x3000 and the unwind table at 0x3400."""
    data = bytearray(0x1000)
    names = dict(NAMES, forwarded=EXPORT_AT + 0x380) if forwarder else NAMES
    order = sorted(names)
    pool = 0x200
    struct.pack_into(
        "<6I", data, 0x10, 1, len(names), len(names), EXPORT_AT + 0x100, EXPORT_AT + 0x140, EXPORT_AT + 0x180
    )
    for i, name in enumerate(order):
        struct.pack_into("<I", data, 0x100 + 4 * i, names[name])
        struct.pack_into("<I", data, 0x140 + 4 * i, EXPORT_AT + pool)
        struct.pack_into("<H", data, 0x180 + 2 * i, i)
        data[pool : pool + len(name) + 1] = name.encode() + b"\0"
        pool += 0x20
    for i, row in enumerate(FUNCTIONS):
        struct.pack_into("<3I", data, 0x400 + 12 * i, *row)
    return bytes(data)


def tables(arch: HeapArch) -> bytes:
    """The first four data directories."""
    return struct.pack("<8I", EXPORT_AT, 0x400, 0, 0, 0, 0, UNWIND_AT, 12 * len(FUNCTIONS) if arch == "x64" else 0)


def built(arch: HeapArch, content: bytes | None = None) -> BuiltDump:
    process = ProcessBuilder(arch=arch, build=19041).module(BASE, SIZE, r"C:\acme\vision.dll", timestamp=STAMP)
    if content is not None:
        process.memory(BASE + EXPORT_AT, content)
    process.region(0x5000000, 0x1000, protect=0x40)
    return poke(process.build(), (BASE + directories(arch), tables(arch)))


def name(snapshot: Snapshot, rva: int, folder: Path | None = None) -> tuple[str, str]:
    frame = Namer(snapshot.process, SymbolStores.of_folder(folder) if folder else None).frame(BASE + rva)
    return str(frame), frame.trust


def test_x64_exports_name_their_own_function_only(open_built):
    with open_built(built("x64", sections())) as snapshot:
        assert name(snapshot, 0x2010) == ("vision.dll!alloc+0x10", "derived")
        assert name(snapshot, 0x2080) == ("vision.dll!alloc+0x80", "derived")  # behind the last call of the function
        assert name(snapshot, 0x20A0) == ("vision.dll+0x20a0", "exact")  # another function without a name
        assert name(snapshot, 0x2101) == ("vision.dll!release+0x1", "derived")
        assert name(snapshot, 0x1800) == ("vision.dll+0x1800", "exact")  # before the first export


def test_x86_exports_are_a_guess_and_only_near(open_built):
    with open_built(built("x86", sections())) as snapshot:
        assert name(snapshot, 0x20A0) == ("vision.dll!alloc+0xa0", "guess")
        assert name(snapshot, 0x7FF0) == ("vision.dll!table+0x1ff0", "guess")


def test_forwarders_name_nothing(open_built):
    with open_built(built("x86", sections(forwarder=True))) as snapshot:
        assert name(snapshot, 0x3390)[0] == "vision.dll!release+0x1290"


@pytest.mark.parametrize("at", range(0x10, 0x28, 4))
@pytest.mark.parametrize("value", [0xFFFFFFFF, 0x7FFFFFFF, 0x10001, 0])
def test_a_damaged_export_table_names_nothing_wrong(open_built, at, value):
    content = bytearray(sections())
    struct.pack_into("<I", content, at, value)
    with open_built(built("x64", bytes(content))) as snapshot:
        assert name(snapshot, 0x2010)[0] in ("vision.dll!alloc+0x10", "vision.dll+0x2010")


def image_file(folder: Path, stamp: int = STAMP) -> None:
    header = bytearray(image_header("x64", SIZE, stamp))
    header[directories("x64") : directories("x64") + 32] = tables("x64")
    rows = 0x98 + 0xF0
    struct.pack_into("<I", header, rows + 20, 0x1000)  # .text: raw data at 0x1000 of the file, as in memory
    struct.pack_into("<I", header, rows + 40 + 20, SIZE - 0x2000)
    data = bytes(header).ljust(EXPORT_AT, b"\0") + sections()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vision.dll").write_bytes(data.ljust(SIZE, b"\0"))


@pytest.mark.parametrize("place", ["", f"vision.dll/{STAMP:08X}{SIZE:x}"])
def test_what_the_dump_lacks_is_read_from_the_file_with_the_same_stamp_and_size(open_built, tmp_path, place):
    image_file(tmp_path / "images" / place)
    with open_built(built("x64")) as snapshot:
        assert name(snapshot, 0x2010) == ("vision.dll+0x2010", "exact")
        assert name(snapshot, 0x2010, tmp_path / "images") == ("vision.dll!alloc+0x10", "derived")


def test_a_file_of_another_build_is_not_used(open_built, tmp_path):
    image_file(tmp_path / "images", STAMP + 1)
    with open_built(built("x64")) as snapshot:
        assert name(snapshot, 0x2010, tmp_path / "images") == ("vision.dll+0x2010", "exact")


def test_addresses_outside_modules_say_what_is_there(open_built):
    with open_built(built("x64", sections())) as snapshot:
        gone = UnloadedModule(Span(0x69000000, 0x69010000), "plugin.dll", 0)
        process = replace(snapshot.process, unloaded=(gone,))
        namer = Namer(process)
        assert str(namer.frame(0x69000123)) == "plugin.dll+0x123 (unloaded)"
        assert str(namer.frame(0x5000010)) == "0x5000010 (generated code)"
        assert str(namer.frame(0x5900010)) == "0x5900010 (no memory)"
        assert namer.frame(0x5000010).module is None


@pytest.mark.parametrize("name_", ["..", ".", "", "a/b.dll", "a\\b.dll", "D:x.dll", "x.dll:stream", "a\0b"])
def test_names_that_lead_somewhere_are_not_plain(name_):
    assert not is_plain(name_)
    assert is_plain("vision.dll")


def test_an_address_outside_the_files_sections_is_not_read(open_built, tmp_path):
    image_file(tmp_path / "images")
    with open_built(built("x64")) as snapshot:
        namer = Namer(snapshot.process, SymbolStores.of_folder(tmp_path / "images"))
        image = namer.image(next(m for m in snapshot.process.modules if m.name == "vision.dll"))
        assert image is not None
        assert image.read(0x7FFF0, 16) is None and image.read(-8, 8) is None
        assert image.read(EXPORT_AT, 16) == sections()[:16]


def test_names_without_an_end_are_cut_and_cost_little():
    from heapdump.process.symbols.exports import read_exports

    count = 4000
    table = bytearray(0x100 + 10 * count) + b"x" * 200_000
    struct.pack_into(
        "<6I", table, 0x10, 1, count, count, 0x1000 + 0x100, 0x1000 + 0x100 + 4 * count, 0x1000 + 0x100 + 8 * count
    )
    for i in range(count):
        struct.pack_into("<I", table, 0x100 + 4 * i, 0x90000 + i)
        struct.pack_into("<I", table, 0x100 + 4 * count + 4 * i, 0x1000 + 0x100 + 10 * count)
        struct.pack_into("<H", table, 0x100 + 8 * count + 2 * i, i)
    data = bytes(table)

    def read(rva: int, size: int) -> bytes | None:
        return data[rva - 0x1000 : rva - 0x1000 + size] if rva >= 0x1000 and rva + size <= 0x1000 + len(data) else None

    found = read_exports(read, 0x1000, len(data))
    assert len(found.names) == count and {len(text) for text in found.names} == {512}


@pytest.mark.parametrize("packed", [False, True])
def test_a_server_of_images_is_asked_for_what_the_dump_lacks(site, tmp_path, capsys, packed):
    process = ProcessBuilder(arch="x64", build=19041).module(BASE, SIZE, r"C:\acme\vision.dll", timestamp=STAMP)
    dump = tmp_path / "small.dmp"
    dump.write_bytes(poke(process.thread(7, ip=BASE + 0x2011).build(), (BASE + directories("x64"), tables("x64"))).data)
    image_file(tmp_path / "images")
    file = (tmp_path / "images" / "vision.dll").read_bytes()
    name = f"vision.dll/{STAMP:08X}{SIZE:x}/vision.dl"
    if packed:
        archive = cabarchive.CabArchive()
        archive["vision.dll"] = cabarchive.CabFile(file)
        site.answers[f"{name}_"] = bytes(archive.save(True))
    else:
        site.answers[f"{name}l"] = file

    def asked(path: str) -> tuple[str | None, str]:
        run(["threads", str(dump), "--frames", "--json", "--no-cache", "--image-path", path])
        captured = capsys.readouterr()
        return json.loads(captured.out)["data"][0]["frames"][0]["symbol"], captured.err

    path = f"cache*{tmp_path / 'kept'};{tmp_path / 'nothing'};{site.url}"
    assert asked(str(tmp_path / "nothing")) == (None, "")
    symbol, err = asked(path)
    assert symbol == "alloc" and err.count("asking http://127.0.0.1") == 1
    before = len(site.asked)
    assert (tmp_path / "kept" / "vision.dll" / f"{STAMP:08X}{SIZE:x}" / "vision.dll").read_bytes() == file
    assert asked(path) == ("alloc", "") and len(site.asked) == before
    assert asked(str(tmp_path / "images"))[0] == "alloc"
