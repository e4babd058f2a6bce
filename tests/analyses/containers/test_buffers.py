"""Containers with one buffer: found with what they use and have, wherever they lie; what only comes near is none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from heapdump import kernels
from heapdump.analyses.types.members import Container, place_of
from tests.analyses.containers.buffers import Buffers, Member
from tests.analyses.types.test_block_types import ARCHES
from tests.builders import ProcessBuilder
from tests.patching import poke

MAKES: dict[str, Callable[[Buffers], Member]] = {
    "string of libc++": lambda b: b.llvm_string("a text that is too long for itself", 48),
    "wide string of libc++": lambda b: b.llvm_string("a text that is too long", 32, 2),
    "QString of Qt 5": lambda b: b.qt5("QString", "a text".encode("utf-16-le"), 7, 2),
    "QByteArray of Qt 5": lambda b: b.qt5("QByteArray", b"some bytes", 32, 1),
    "QVector of Qt 5": lambda b: b.qt5("QVector", b"\x07" * 60, 8, 12),
    "QList of Qt 5": lambda b: b.qt5_list(3, 8),
    "QString of Qt 6": lambda b: b.qt6("QString", "a text of Qt 6".encode("utf-16-le"), 20, 2, 2),
    "QByteArray of Qt 6": lambda b: b.qt6("QByteArray", b"some bytes", 24, 1, 1),
    "QList of Qt 6": lambda b: b.qt6("QList", b"\x07" * 60, 8, 12),
    "CString": lambda b: b.cstring("a text of MFC", 15),
    "wide CString": lambda b: b.cstring("a text of MFC", 23, 2),
    "HashMap": lambda b: b.hash_map(20, 32, 20),
    "HashMap of old": lambda b: b.hash_map(3, 4, 16, is_old=True),
    "String of Rust": lambda b: b.counted(0, 20, 24, 1, b"a text of twenty let"),
}


def found_in(open_built, blocks: Buffers, module: bytes = b"") -> list[tuple[int, str, int, int, int]]:
    """(address, kind, bytes used, bytes held, buffer) of every container. `module`: bytes in the program's data."""
    built = ProcessBuilder(arch=blocks.arch, build=19041).heap(blocks.heap.build()).build()
    built = poke(built, *blocks.late, (blocks.module_data, module))
    with open_built(built) as snapshot:
        found, graph = snapshot.types.containers, snapshot.graph
        places = place_of(graph, found, np.arange(len(found))).tolist()
        kinds = [Container(kind).words for kind in found.kind.tolist()]
        buffers = graph.start[found.buffer].tolist()
        return sorted(zip(places, kinds, found.used.tolist(), found.capacity.tolist(), buffers, strict=True))


def expected(place: int, member: Member) -> tuple[int, str, int, int, int]:
    """What is found."""
    return place, member.kind, member.used, member.capacity, member.buffer


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", MAKES)
def test_a_member_of_a_block_is_found(open_built, arch, name):
    blocks = Buffers(arch)
    member = MAKES[name](blocks)
    owner = blocks.add(blocks.words(2, 0xFFFFFFF1) + member.content + blocks.words(0xFFFFFFF1, 5))
    assert found_in(open_built, blocks) == [expected(owner + 2 * blocks.pointer, member)]


@pytest.mark.parametrize("name", [name for name in MAKES if "Qt 5" in name or "CString" in name])
def test_a_header_is_found_where_most_blocks_have_no_pointer_to_them(open_built, name):
    blocks = Buffers("x64")
    member = MAKES[name](blocks)
    owner = blocks.add(blocks.words(2, 0xFFFFFFF1) + member.content + blocks.words(0xFFFFFFF1, 5))
    for _ in range(200):
        blocks.add(blocks.words(2, 7, 9))
    assert found_in(open_built, blocks) == [expected(owner + 2 * blocks.pointer, member)]


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", MAKES)
def test_one_in_the_data_of_a_module_is_found(open_built, arch, name):
    blocks = Buffers(arch)
    member = MAKES[name](blocks)
    assert found_in(open_built, blocks, member.content) == [expected(blocks.module_data, member)]


@pytest.mark.parametrize("arch", ARCHES)
def test_compiled_loops_find_the_same(open_built, monkeypatch, arch):
    pytest.importorskip("numba")
    monkeypatch.setattr(kernels, "WORTH_COMPILING", 0)
    blocks = Buffers(arch)
    members = [make(blocks) for make in MAKES.values()]
    places, content = [], b""
    for member in members:
        content += blocks.words(0xFFFFFFF1)
        places.append(len(content))
        content += member.content.ljust(-(-len(member.content) // blocks.pointer) * blocks.pointer, b"\0")
    owner = blocks.add(content + blocks.words(0xFFFFFFF1))
    assert found_in(open_built, blocks) == [
        expected(owner + place, one) for place, one in zip(places, members, strict=True)
    ]


@pytest.mark.parametrize("order", range(5))
def test_arrays_with_a_capacity_are_known_by_their_number(open_built, order):
    blocks = Buffers("x64")
    wanted = []
    for number in range(5):
        member = blocks.counted(order, 3 + number, 8 << number, 24)
        owner = blocks.add(blocks.words(0xFFFFFFF1) + member.content + blocks.words(0xFFFFFFF1))
        wanted.append(expected(owner + 8, member))
    assert found_in(open_built, blocks) == sorted(wanted)


def test_arrays_of_one_capacity_are_no_evidence(open_built):
    blocks = Buffers("x64")
    for number in range(8):
        blocks.add(blocks.words(0xFFFFFFF1) + blocks.counted(2, 3 + number % 3, 8, 24).content)
    assert found_in(open_built, blocks) == []


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("kind", ["String of Rust", "GNU"])
def test_what_one_of_many_like_owners_has_is_none(open_built, arch, kind):
    blocks = Buffers(arch)
    for number in range(40):
        text = b"a text of twenty letters"
        capacity = 24 if kind != "GNU" else 23
        fits = number == 7
        words = (blocks.add(text[:20], 24), 20 if fits else 33, capacity if fits else 40 + number)
        blocks.add(blocks.words(0xFFFFFFF1, 2, *words, 0xFFFFFFF1))
    assert found_in(open_built, blocks) == []


def changed(member: Member, word: int, value: int, width: int) -> Member:
    """The member with another word."""
    content = bytearray(member.content)
    content[word * width : (word + 1) * width] = value.to_bytes(width, "little")
    return Member(bytes(content), member.kind, member.used, member.capacity, member.buffer)


MISSES: dict[str, Callable[[Buffers], Member]] = {
    "string of libc++ of another capacity": lambda b: changed(MAKES["string of libc++"](b), 0, 65, b.pointer),
    "string of libc++ without an end": lambda b: changed(MAKES["string of libc++"](b), 1, 20, b.pointer),
    "QList of Qt 5 without elements": lambda b: b.qt5_list(0, 8, 3),
    "QList of Qt 6 of more elements than its capacity": lambda b: changed(MAKES["QList of Qt 6"](b), 2, 9, b.pointer),
    "QList of Qt 6 that begins in its header": (
        lambda b: (lambda m: changed(m, 1, m.buffer + 8, b.pointer))(MAKES["QList of Qt 6"](b))
    ),
    "CString beside its text": lambda b: (lambda m: changed(m, 0, m.buffer, b.pointer))(MAKES["CString"](b)),
    "HashMap of more elements": lambda b: changed(MAKES["HashMap"](b), 3, 21, b.pointer),
    "HashMap of more buckets": lambda b: changed(MAKES["HashMap"](b), 1, 63, b.pointer),
    "HashMap elsewhere in its block": (
        lambda b: (lambda m: changed(m, 0, m.buffer + 624, b.pointer))(MAKES["HashMap"](b))
    ),
    "bytes with a capacity that are no text": lambda b: b.counted(2, 20, 24, 1, b"\x01\x02" * 10),
    "one array with a capacity": lambda b: b.counted(2, 3, 8, 24),
}


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", MISSES)
def test_what_only_comes_near_is_none(open_built, arch, name):
    blocks = Buffers(arch)
    member = MISSES[name](blocks)
    blocks.add(blocks.words(2, 0xFFFFFFF1) + member.content + blocks.words(0xFFFFFFF1, 5))
    assert found_in(open_built, blocks) == []


DAMAGE: dict[str, tuple[str, int, int]] = {
    "Qt 5: no references": ("QString of Qt 5", 0, 0),
    "Qt 5: larger than its capacity": ("QString of Qt 5", 4, 8),
    "Qt 5: capacity that does not fill the block": ("QString of Qt 5", 8, 9),
    "CString: longer than its capacity": ("CString", -16, 16),
    "CString: capacity that does not fill the block": ("CString", -12, 14),
    "Qt 6: capacity that does not fill the block": ("QList of Qt 6", 8, 7),
    "Qt 6: no references": ("QList of Qt 6", 0, 0),
}


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_headers_are_none(open_built, arch, name):
    kind, offset, value = DAMAGE[name]
    blocks = Buffers(arch)
    member = MAKES[kind](blocks)
    if offset < 0:
        offset += 24 if arch == "x64" else 20
    blocks.late.append((member.buffer + offset, value.to_bytes(4, "little")))
    blocks.add(blocks.words(2, 0xFFFFFFF1) + member.content + blocks.words(0xFFFFFFF1, 5))
    assert found_in(open_built, blocks) == []
