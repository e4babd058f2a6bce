"""Class names of GCC, Clang, Delphi and Free Pascal, laid out by hand as their run-time libraries read them."""

from __future__ import annotations

import pytest

from heapdump.process.symbols.itanium_names import itanium_name
from heapdump.process.symbols.rtti import class_of_vtable
from tests.analyses.types.test_block_types import ARCHES, BASE, Blocks, labels
from tests.builders import ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.patching import poke

DATA = 0x1000
TABLE, INFO, NAME, ABI_TABLE, ABI_INFO, ABI_NAME = 0x400, 0x480, 0x500, 0x600, 0x680, 0x700
ABI = b"N10__cxxabiv120__si_class_type_infoE"


def itanium(arch: HeapArch, name: bytes = b"N2ns3FooE", to_top: int = 0, abi: bytes = ABI) -> dict[int, bytes]:
    """Offset in the image's data → bytes there."""
    blocks, base = Blocks(arch), BASE[arch] + DATA
    width = blocks.pointer
    return {
        TABLE - 2 * width: (-to_top & (1 << 8 * width) - 1).to_bytes(width, "little") + blocks.words(base + INFO, base),
        INFO: blocks.words(base + ABI_TABLE, base + NAME), NAME: name + b"\0",
        ABI_TABLE - width: blocks.words(base + ABI_INFO), ABI_INFO: blocks.words(base, base + ABI_NAME), ABI_NAME: abi + b"\0",
    }  # fmt: skip


def delphi(
    arch: HeapArch, name: bytes = b"\x0aTFrameList", places: tuple[int, int, int] = (-22, -14, -13)
) -> dict[int, bytes]:
    blocks, base = Blocks(arch), BASE[arch] + DATA
    words = dict(zip(places, (base + TABLE, base + NAME, 24), strict=True))
    return {TABLE + place * blocks.pointer: blocks.words(value) for place, value in words.items()} | {NAME: name}


def pascal(arch: HeapArch, size: int = 24, negative: int = -24) -> dict[int, bytes]:
    blocks, base = Blocks(arch), BASE[arch] + DATA
    negative &= (1 << 8 * blocks.pointer) - 1
    return {TABLE: blocks.words(size, negative, base + 8, base + NAME), NAME: b"\x0aTFrameList"}


def seen(open_built, arch: HeapArch, image: dict[int, bytes]) -> str:
    """The label of an object whose first word leads to the table."""
    blocks = Blocks(arch)
    thing = blocks.add(blocks.words(BASE[arch] + DATA + TABLE, 1, 2))
    process = (
        ProcessBuilder(arch=arch, build=19041)
        .heap(blocks.heap.build())
        .module(BASE[arch], 0x8000, r"C:\acme\camera.dll")
    )
    data = bytearray(0x1000)
    for offset, content in image.items():
        data[offset : offset + len(content)] = content
    process.memory(BASE[arch] + DATA, bytes(data))
    with open_built(poke(process.build())) as snapshot:
        (label,) = labels(snapshot, [thing])
        found = class_of_vtable(snapshot.process, snapshot.process.views[0], BASE[arch] + DATA + TABLE)
        assert (found is not None) == label.startswith("class ")
    return label


@pytest.mark.parametrize("arch", ARCHES)
def test_objects_of_other_compilers_have_names(open_built, arch):
    assert seen(open_built, arch, itanium(arch)) == "class ns::Foo (camera.dll)"
    assert seen(open_built, arch, itanium(arch, b"3Foo", to_top=16)) == "class Foo (camera.dll)"
    assert seen(open_built, arch, delphi(arch)) == "class TFrameList (camera.dll)"
    assert seen(open_built, arch, delphi(arch, places=(-19, -11, -10))) == "class TFrameList (camera.dll)"
    assert seen(open_built, arch, pascal(arch)) == "class TFrameList (camera.dll)"


MISSES = {
    "type information of no ABI class": lambda arch: itanium(arch, abi=b"3Bar"),
    "a name of other characters": lambda arch: itanium(arch, b"\x013Foo"),
    "far from the top": lambda arch: itanium(arch, to_top=1 << 24),
    "a table that names another": lambda arch: delphi(arch) | {TABLE - 22 * Blocks(arch).pointer: b"\0" * 4},
    "a name of no letters": lambda arch: delphi(arch, b"\x03\1\2\3"),
    "an empty name": lambda arch: delphi(arch, b"\0"),
    "two sizes that differ": lambda arch: pascal(arch, negative=-32),
    "no size": lambda arch: pascal(arch, 0, 0),
}


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", MISSES)
def test_what_only_comes_near_is_no_class(open_built, arch, name):
    assert seen(open_built, arch, MISSES[name](arch)) == "pointer into a module"


@pytest.mark.parametrize(
    ("mangled", "name"),
    [
        ("3Foo", "Foo"), ("N2ns3FooE", "ns::Foo"), ("N1a1b1cE", "a::b::c"), ("3FooIiE", "Foo<int>"), ("9Foo", "9Foo"),
        ("N12_GLOBAL__N_13FooE", "(anonymous namespace)::Foo"), ("", ""), ("St9exception", "std::exception"), ("NE", "NE"),
        ("N2ns3BoxINS_5PointELi3EEE", "ns::Box<ns::Point,3>"), ("St6vectorIiSaIiEE", "std::vector<int,std::allocator<int> >"),
        ("3BoxIPKcRiOdE", "Box<char const *,int &,double &&>"), ("3BoxIPFviPS_EE", "Box<void (*)(int,Box *)>"),
        ("3BoxIA3_iE", "Box<int[3]>"), ("3BoxIJifEE", "Box<int,float>"), ("3BoxIJEE", "Box<>"), ("3BoxILb1ELin5EE", "Box<true,-5>"),
        ("N3BoxIiE5InnerIS0_EE", "Box<int>::Inner<Box<int> >"), ("3BoxIVKiE", "Box<int const volatile>"), ("3BoxIS_E", "Box<Box>"),
        ("3BoxIS0_E", "3BoxIS0_E"), ("Z4mainE3Foo", "Z4mainE3Foo"), ("i", "i"), ("3BoxI" * 200, "3BoxI" * 200), ("3Box", "Box"),
        ("3BoxIS", "3BoxIS"), ("3BoxILiE", "3BoxILiE"), ("99999999999999999999999Foo", "99999999999999999999999Foo"),
    ],
)  # fmt: skip
def test_names_are_undecorated(mangled, name):
    assert itanium_name(mangled) == name
