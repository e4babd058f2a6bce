"""Class names from run-time type information, laid out by hand as Visual C++ does it."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess

import numpy as np
import pefile
import pytest
from click.testing import CliRunner

from heapdump.analyses.types.content import content_of
from heapdump.cli import cli
from heapdump.process.symbols.rtti import class_of_vtable
from tests.builders import DumpBuilder, NtHeapBuilder, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch

NAME = b".?AVImageTask@vision@@"
OBJECT_BYTES = 48


def image(arch: HeapArch, base: int, name: bytes = NAME) -> tuple[bytes, int]:
    """(bytes of a read-only section at base + 0x1000, address of the vtable in it)."""
    data = bytearray(0x1000)
    at = base + 0x1000
    locator, hierarchy, descriptor, vtable = 0x100, 0x140, 0x180, 0x208
    if arch == "x64":
        struct.pack_into("<6I", data, locator, 1, 0, 0, 0x1000 + descriptor, 0x1000 + hierarchy, 0x1000 + locator)
        struct.pack_into("<QQ", data, vtable - 8, at + locator, at + 0x800)
        data[descriptor + 16 : descriptor + 17 + len(name)] = name + b"\0"
    else:
        struct.pack_into("<5I", data, locator, 0, 0, 0, at + descriptor, at + hierarchy)
        struct.pack_into("<II", data, vtable - 4, at + locator, at + 0x800)
        data[descriptor + 8 : descriptor + 9 + len(name)] = name + b"\0"
    struct.pack_into("<4I", data, hierarchy, 0, 0, 1, 0)
    return bytes(data), at + vtable


def process(
    arch: HeapArch, name: bytes = NAME, damage: tuple[int, bytes] | None = None, base: int = 0
) -> tuple[ProcessBuilder, int, int]:
    """(a process with one object in its heap, its address, its vtable's)."""
    base = base or (0x7FF700000000 if arch == "x64" else 0x66000000)
    data, vtable = image(arch, base, name)
    if damage:
        data = data[: damage[0]] + damage[1] + data[damage[0] + len(damage[1]) :]
    heap = NtHeapBuilder(arch=arch, build=19041, base=0x20000000000 if arch == "x64" else 0x1000000)
    word = vtable.to_bytes(8 if arch == "x64" else 4, "little")
    address = heap.busy(OBJECT_BYTES, word + b"\1\2\3\4")
    built = ProcessBuilder(arch=arch, build=19041).heap(heap.build()).module(base, 0x8000, r"C:\acme\vision.dll")
    return built.memory(base + 0x1000, data), address, vtable


@pytest.mark.parametrize("arch", ["x64", "x86"])
def test_an_object_is_named_by_its_vtable(open_built, arch):
    built, address, vtable = process(arch)
    with open_built(built) as snapshot:
        view = snapshot.process.views[0]
        found = class_of_vtable(snapshot.process, view, vtable)
        assert found is not None
        assert (found.name, found.decorated, found.kind, found.module.name) == (
            "vision::ImageTask",
            NAME.decode(),
            "class",
            "vision.dll",
        )
        table = snapshot.walk.table
        content = content_of(snapshot.process, view, table, table.at(address)[0])
        assert content.guess == "object of class vision::ImageTask (vision.dll)"
        assert content.class_name == found


@pytest.mark.parametrize("arch", ["x64", "x86"])
@pytest.mark.parametrize("shift", [-16, -8, 8, 16])
def test_an_address_beside_the_vtable_is_none(open_built, arch, shift):
    built, _, vtable = process(arch)
    with open_built(built) as snapshot:
        assert class_of_vtable(snapshot.process, snapshot.process.views[0], vtable + shift) is None


@pytest.mark.parametrize("arch", ["x64", "x86"])
@pytest.mark.parametrize(
    "damage", [(0x100, b"\x07"), (0x10C, b"\xff\xff\xff\x7f"), (0x180, b"\0" * 0x40), (0x1FC, b"\xff" * 12)],
    ids=["signature", "descriptor", "name", "locator"],
)  # fmt: skip
def test_damaged_type_information_names_nothing(open_built, arch, damage):
    built, address, vtable = process(arch, damage=damage)
    with open_built(built) as snapshot:
        view = snapshot.process.views[0]
        assert class_of_vtable(snapshot.process, view, vtable) is None
        table = snapshot.walk.table
        assert (
            "perhaps an object with virtual functions"
            in content_of(snapshot.process, view, table, table.at(address)[0]).guess
        )


@pytest.mark.parametrize("arch", ["x64", "x86"])
def test_a_name_without_an_end_is_none(open_built, arch):
    built, _, vtable = process(arch, name=b".?AV" + b"x" * 0x600)
    with open_built(built) as snapshot:
        assert class_of_vtable(snapshot.process, snapshot.process.views[0], vtable) is None


@pytest.mark.parametrize("arch", ["x64", "x86"])
def test_a_template_is_named_as_in_the_source(open_built, arch):
    built, _, vtable = process(arch, name=b".?AV?$vector@V?$box@H@acme@@V?$allocator@V?$box@H@acme@@@std@@@std@@")
    with open_built(built) as snapshot:
        found = class_of_vtable(snapshot.process, snapshot.process.views[0], vtable)
        assert found is not None
        assert found.name == "std::vector<acme::box<int>,std::allocator<acme::box<int> > >"


def test_block_shows_the_class(write_dump):
    built, address, _ = process("x64")
    path = str(write_dump(built.build()))
    record = json.loads(CliRunner().invoke(cli, ["block", path, hex(address), "--json"]).stdout)["data"]
    assert record["content"]["class"] == {
        "name": "vision::ImageTask",
        "decorated": NAME.decode(),
        "module": "vision.dll",
    }
    assert (
        "content: object of class vision::ImageTask (vision.dll)"
        in CliRunner().invoke(cli, ["block", path, hex(address)]).stdout
    )


SOURCE = """\
extern "C" { int _fltused; }
namespace vision {
struct Shape { virtual int area() { return 1; } int side = 3; };
struct Square : Shape { int area() override { return side * side; } };
}
static vision::Shape shape;
static vision::Square square;
extern "C" __declspec(dllexport) int entry(int n) { vision::Shape *p = n ? &shape : &square; return p->area(); }
extern "C" int _DllMainCRTStartup(void*, unsigned, void*) { return 1; }
"""


@pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("clang", "lld-link")),
    reason="no DLL is made: clang and lld-link are not installed",
)
@pytest.mark.parametrize(("arch", "target"), [("x64", "x86_64-pc-windows-msvc"), ("x86", "i686-pc-windows-msvc")])
def test_classes_of_a_compiled_program_are_named_without_its_pdb(open_built, tmp_path, arch, target):
    (tmp_path / "shapes.cpp").write_text(SOURCE)
    start = "_DllMainCRTStartup"
    commands = (
        ["clang", f"--target={target}", "-O1", "-c", "shapes.cpp", "-o", "shapes.obj"],
        [
            "lld-link",
            "/dll",
            "/nodefaultlib",
            "/force:unresolved",
            "/safeseh:no",
            f"/entry:{start}",
            "/out:shapes.dll",
            "shapes.obj",
        ],
    )
    for command in commands:
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    image = pefile.PE(str(tmp_path / "shapes.dll"))
    base = image.OPTIONAL_HEADER.ImageBase & 0x7FFFFFFFFFFF
    data = image.get_memory_mapped_image().ljust(image.OPTIONAL_HEADER.SizeOfImage, b"\0")
    dump = DumpBuilder(arch=arch).module(base, len(data), r"C:\shapes.dll").memory(base, data)
    dump.thread(4, 0, ip=base, sp=base)
    pointer = 8 if arch == "x64" else 4
    with open_built(dump.build()) as snapshot:
        view = snapshot.process.views[0]
        found = (class_of_vtable(snapshot.process, view, base + at) for at in range(pointer, len(data), pointer))
        assert {name.name for name in found if name} == {"vision::Shape", "vision::Square"}


def test_classes_high_in_the_address_space_are_grouped(open_built):
    from heapdump.analyses.types.block_starts import BlockData
    from heapdump.analyses.types.block_types import types_of, view_by_heap

    built, address, _ = process("x64", base=0xFFFFFFFFFFFE0000)
    with open_built(built) as snapshot:
        table = snapshot.walk.table
        rows = np.array([table.at(address)[0]])
        views = view_by_heap(snapshot.process, snapshot.heaps)
        found = types_of(snapshot.process, views, BlockData(table), rows, by_class=True)
        assert [found.labels[number] for number in found.numbers.tolist()] == ["class vision::ImageTask (vision.dll)"]
