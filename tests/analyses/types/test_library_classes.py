"""Objects without type information whose library says what they are: Qt's meta objects, COM objects; control blocks."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import cast

import pytest

from heapdump.process.model import View
from heapdump.process.symbols.adjustors import adjustor
from heapdump.process.symbols.control_blocks import control_block
from tests.analyses.types.test_block_types import ARCHES, BASE, Blocks, labels
from tests.builders import ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch

FIRST, SECOND, CODE, META, DATA = 0x1100, 0x1200, 0x2000, 0x1400, 0x1500


class Camera:
    """The module camera.dll, with what a test writes into it."""

    def __init__(self, arch: HeapArch) -> None:
        self.arch, self.base, self.blocks, self.image = arch, BASE[arch], Blocks(arch), bytearray(0x2000)

    def put(self, rva: int, content: bytes) -> None:
        self.image[rva - 0x1000 : rva - 0x1000 + len(content)] = content

    def tables(self, rva: int, *places: int) -> None:
        self.put(rva, self.blocks.words(*(self.base + place for place in places)))

    def built(self) -> ProcessBuilder:
        process = ProcessBuilder(arch=self.arch, build=19041).heap(self.blocks.heap.build())
        return process.module(self.base, 0x8000, r"C:\acme\camera.dll").memory(self.base + 0x1000, bytes(self.image))


def qt_module(arch: HeapArch, revision: int = 8, *, parents: int = 1, name: bytes = b"acme::Camera") -> Camera:
    """A class of Qt: its vtable, the function that gives its meta object, and that."""
    one = Camera(arch)
    one.tables(FIRST, CODE + 0x40, CODE, CODE)
    one.put(CODE + 0x40, b"\xe9" + struct.pack("<i", -0x45))  # of incremental linking
    load = b"\x48\x8b\x41\x08\x48\x8d\x05" if arch == "x64" else b"\x8b\x41\x04\xb8"
    end = CODE + len(load) + 4
    one.put(CODE, load + (struct.pack("<i", META - end) if arch == "x64" else struct.pack("<I", one.base + META)))
    one.tables(META, *[FIRST] * parents, DATA, DATA + 0x80)
    header = struct.pack("<II", 0x40, len(name))
    if revision < 9:
        header = struct.pack("<iII4xq" if arch == "x64" else "<iIIi", -1, len(name), 0, 0x40)
    one.put(DATA, header.ljust(0x40, b"\0") + name + b"\0")
    one.put(DATA + 0x80, struct.pack("<14I", revision, 0, 0, 0, 3, 14, 1, 29, 0, 0, 0, 0, 0, 2))
    return one


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize(("revision", "parents"), [(8, 1), (7, 2), (12, 2)], ids=["Qt 5", "Qt 5, two words", "Qt 6"])
def test_an_object_of_qt_has_the_name_of_its_meta_object(open_built, arch, revision, parents):
    one = qt_module(arch, revision, parents=parents)
    thing = one.blocks.add(one.blocks.words(one.base + FIRST, 1, 2))
    with open_built(one.built()) as snapshot:
        assert labels(snapshot, [thing]) == ["class acme::Camera (camera.dll)"]


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize(
    ("rva", "content"),
    [
        (DATA + 0x4D - 1, b"x"),
        (DATA + 0x40, b"1"),
        (DATA + 0x84, b"\x01"),
        (DATA + 0x80, b"\x60"),
        (DATA + 0xB4, b"\x09"),
    ],
    ids=["no end", "no name", "name elsewhere", "revision", "signals"],
)
def test_a_meta_object_that_does_not_agree_names_no_class(open_built, arch, rva, content):
    one = qt_module(arch)
    one.put(rva, content)
    thing = one.blocks.add(one.blocks.words(one.base + FIRST, 1, 2))
    with open_built(one.built()) as snapshot:
        assert labels(snapshot, [thing]) == ["vtable camera.dll+0x1100"]


def com_module(arch: HeapArch, moved: int, form: int) -> Camera:
    """A class with two interfaces; the functions of the second one move the pointer by `moved` bytes."""
    one = Camera(arch)
    one.tables(FIRST, CODE, CODE + 0x10, CODE + 0x20)
    one.tables(SECOND, CODE + 0x100, CODE + 0x110, CODE + 0x120)
    short = (b"\x48\x83\xe9", b"\x48\x83\xe9") if arch == "x64" else (b"\x83\x6c\x24\x04", b"\x83\xe9")
    long = b"\x48\x81\xe9" if arch == "x64" else b"\x81\x6c\x24\x04"
    for slot in (0, 0x10, 0x20):
        code = long + struct.pack("<i", moved) if form == 2 else short[form % 2] + bytes([moved])
        if form == 3:  # of Clang
            code = (b"\x48" if arch == "x64" else b"") + b"\x83\xc1" + bytes([256 - moved])
        there = CODE + 0x100 + slot
        jump = b"\xe9" + struct.pack("<i", CODE + slot - there - len(code) - 5)
        one.put(there, code + jump)
    return one


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("form", [0, 1, 2, 3])
def test_a_com_object_is_told_by_the_functions_of_its_second_interface(open_built, arch, form):
    width = 8 if arch == "x64" else 4
    one = com_module(arch, 2 * width, form)
    first, second = one.base + FIRST, one.base + SECOND
    there = one.blocks.add(one.blocks.words(first, 7, second, 1))
    elsewhere = one.blocks.add(one.blocks.words(first, second, 0, 1))
    alone = one.blocks.add(one.blocks.words(first, 7))
    with open_built(one.built()) as snapshot:
        assert labels(snapshot, [there, elsewhere, alone]) == [
            "COM object camera.dll+0x1100", "vtable camera.dll+0x1100", "vtable camera.dll+0x1100",
        ]  # fmt: skip
        typing = snapshot.types.typing
        label = typing.label_of(snapshot.walk.table.at(there)[0])
        assert label is not None
        assert (label.module, label.trust.value) == ("camera.dll", "derived")


def test_what_a_control_block_controls():
    said = {
        "std::_Ref_count_obj2<acme::Map<int,std::less<int> > >": "control block and acme::Map<int,std::less<int> >",
        "std::_Ref_count<CSession>": "control block of a CSession",
        "std::_Ref_count_resource<CSession *,Deleter<CSession,1> >": "control block of a CSession",
        "std::_Sp_counted_ptr_inplace<CSession, std::allocator<void>, (__gnu_cxx::_Lock_policy)2>": "control block and CSession",
        "std::_Sp_counted_ptr<CSession*, (__gnu_cxx::_Lock_policy)2>": "control block of a CSession",
        "std::__1::__shared_ptr_emplace<CSession, std::__1::allocator<CSession> >": "control block and CSession",
        "std::__1::__shared_ptr_pointer<CSession*, D, A>": "control block of a CSession",
        "std::_Ref_count_base": None, "std::vector<int>": None, "ns::_Ref_count<int>": None,
    }  # fmt: skip
    assert {name: control_block(name) for name in said} == said


@pytest.mark.parametrize(
    ("jump", "target"), [(b"\xe9" + struct.pack("<i", 0x1009), 0x1009), (b"\xeb\x09", 0x9)], ids=["far", "near"]
)
def test_a_jump_at_the_top_of_32_bit_memory_goes_on_at_its_bottom(jump, target):
    code = b"\x83\xe9\x04" + jump
    space = SimpleNamespace(try_read=lambda address, size: code.ljust(size, b"\xcc"))
    view = cast(View, SimpleNamespace(pointer_bytes=4, space=space))
    assert adjustor(view, (1 << 32) - len(code)) == (4, target)
