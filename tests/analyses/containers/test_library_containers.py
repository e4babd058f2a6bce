"""Containers whose head lies in the owner or in a block of its own, of C++ libraries, Qt and MFC.

They are found and counted, in blocks and in data of modules; near misses are not.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from heapdump import kernels
from heapdump.analyses.containers.node_roles import NodeKind, Role
from tests.analyses.containers.framework_containers import FrameworkContainers
from tests.analyses.containers.library_containers import LibraryContainers, Made
from tests.analyses.types.test_block_types import ARCHES
from tests.builders import ProcessBuilder
from tests.patching import poke, word

MAKES: dict[str, tuple[Callable[[LibraryContainers], Made], NodeKind, int]] = {
    "list": (lambda b: b.linked(5), NodeKind.LIST, 5),
    "list of two": (lambda b: b.linked(2), NodeKind.LIST, 2),
    "gnu map": (lambda b: b.gnu_map(11), NodeKind.TREE, 11),
    "gnu map of two": (lambda b: b.gnu_map(2), NodeKind.TREE, 2),
    "llvm map": (lambda b: b.llvm_map(11), NodeKind.TREE, 11),
    "llvm map of two": (lambda b: b.llvm_map(2), NodeKind.TREE, 2),
    "hash": (lambda b: b.chained(9), NodeKind.HASH, 9),
    "msvc deque": (lambda b: b.msvc_deque(6), NodeKind.DEQUE, 6),
    "gnu deque": (lambda b: b.gnu_deque(3), NodeKind.DEQUE, 0),
    "llvm deque": (lambda b: b.llvm_deque(3), NodeKind.DEQUE, 1526),
}

FRAMEWORK_MAKES: dict[str, tuple[Callable[[FrameworkContainers], Made], NodeKind, int]] = {
    "QHash of Qt 5": (lambda b: b.qt5_hash(15), NodeKind.QHASH, 15),
    "QHash of Qt 5 with one element": (lambda b: b.qt5_hash(1), NodeKind.QHASH, 1),
    "QMap of Qt 5": (lambda b: b.qt5_map(11), NodeKind.QMAP, 11),
    "QHash of Qt 6": (lambda b: b.qt6_hash(150), NodeKind.QHASH, 150),
    "small QHash of Qt 6": (lambda b: b.qt6_hash(5, 16), NodeKind.QHASH, 5),
    "list of MFC": (lambda b: b.mfc_list(23), NodeKind.MFC_LIST, 23),
    "list of MFC with one element": (lambda b: b.mfc_list(1), NodeKind.MFC_LIST, 1),
    "map of MFC": (lambda b: b.mfc_map(23), NodeKind.MFC_MAP, 23),
    "map of MFC in small blocks": (lambda b: b.mfc_map(30, of_block=4), NodeKind.MFC_MAP, 30),
}
EVERY = FRAMEWORK_MAKES | MAKES


def found_in(
    open_built, blocks: LibraryContainers, *late: tuple[int, bytes]
) -> list[tuple[int, NodeKind, int, set[int]]]:
    """(address, kind, elements, blocks) of every container."""
    built = poke(ProcessBuilder(arch=blocks.arch, build=19041).heap(blocks.heap.build()).build(), *blocks.late, *late)
    with open_built(built) as snapshot:
        found, graph = snapshot.types.nodes, snapshot.graph
        out = []
        for number in range(len(found)):
            owner, offset = int(found.owner[number]), int(found.offset[number])
            base = int(graph.start[owner]) if owner >= 0 else graph.roots.areas[-1 - owner].span.start
            members = set(graph.start[found.members[found.container == number]].tolist())
            out.append((base + offset, NodeKind(int(found.kind[number])), int(found.count[number]), members))
        return sorted(out, key=lambda one: one[0])


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", EVERY)
def test_a_head_in_a_block_is_found(open_built, arch, name):
    make, kind, many = EVERY[name]
    blocks = FrameworkContainers(arch)
    made = make(blocks)
    assert found_in(open_built, blocks) == [(made.at, kind, many, {*made.nodes, *made.parts})]


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", EVERY)
def test_a_head_in_the_data_of_a_module_is_found(open_built, arch, name):
    make, kind, many = EVERY[name]
    blocks = FrameworkContainers(arch)
    data = ProcessBuilder(arch=arch, build=19041).plan.exe + 0xB040
    blocks.owner = lambda words, before=2: (data, data)  # type: ignore[method-assign]
    made = make(blocks)
    assert found_in(open_built, blocks) == [(made.at, kind, many, {*made.nodes, *made.parts})]


@pytest.mark.parametrize("arch", ARCHES)
def test_compiled_loops_find_the_same(open_built, monkeypatch, arch):
    pytest.importorskip("numba")
    monkeypatch.setattr(kernels, "WORTH_COMPILING", 0)
    blocks = FrameworkContainers(arch)
    made = [make(blocks) for make, _, _ in EVERY.values()]
    found = found_in(open_built, blocks)
    assert [(at, members) for at, _, _, members in found] == [
        (one.at, {*one.nodes, *one.parts}) for one in sorted(made, key=lambda one: one.at)
    ]


def at_word(made: Made, number: int, value: int, blocks: LibraryContainers) -> tuple[int, bytes]:
    """A change of one word of the head."""
    return made.owner + 2 * blocks.pointer + number * blocks.pointer, word(value, blocks.pointer)


MISSES: dict[str, tuple[Callable[[LibraryContainers], Made], Callable[[LibraryContainers, Made], tuple[int, bytes]]]] = {
    "list that is longer": (lambda b: b.linked(6), lambda b, m: at_word(m, 2, 5, b)),
    "list that is shorter": (lambda b: b.linked(6), lambda b, m: at_word(m, 2, 7, b)),
    "list whose last node is another": (lambda b: b.linked(6), lambda b, m: at_word(m, 1, m.nodes[3], b)),
    "list of which one does not point back": (
        lambda b: b.linked(6), lambda b, m: (m.nodes[3] + b.pointer, word(m.nodes[0], b.pointer)),
    ),
    "list whose first node knows another head": (
        lambda b: b.linked(6), lambda b, m: (m.nodes[0] + b.pointer, word(m.at + b.pointer, b.pointer)),
    ),
    "map of another size": (lambda b: b.gnu_map(9), lambda b, m: at_word(m, 5, 8, b)),
    "map with a black head": (lambda b: b.gnu_map(9), lambda b, m: at_word(m, 1, 1, b)),
    "map whose first node is not the first": (lambda b: b.gnu_map(9), lambda b, m: at_word(m, 3, m.nodes[1], b)),
    "map with a node of another parent": (
        lambda b: b.gnu_map(9), lambda b, m: (m.nodes[0] + b.pointer, word(m.nodes[8], b.pointer)),
    ),
    "map with a cycle": (
        lambda b: b.gnu_map(9), lambda b, m: (m.nodes[0] + 2 * b.pointer, word(m.nodes[4], b.pointer)),
    ),
    "map of libc++ of another size": (lambda b: b.llvm_map(9), lambda b, m: at_word(m, 2, 10, b)),
    "map of libc++ with a child elsewhere": (lambda b: b.llvm_map(9), lambda b, m: (m.nodes[0], word(0x777, b.pointer))),
    "hash table of another size": (lambda b: b.chained(9), lambda b, m: at_word(m, 3, 8, b)),
    "hash table of more buckets": (lambda b: b.chained(9), lambda b, m: at_word(m, 1, 14, b)),
    "hash table with a bucket elsewhere": (
        lambda b: b.chained(9), lambda b, m: (m.parts[0] + 12 * b.pointer, word(m.owner, b.pointer)),
    ),
    "hash table without a load factor": (lambda b: b.chained(9), lambda b, m: at_word(m, 4, 3, b)),
    "deque whose proxy is another's": (lambda b: b.msvc_deque(6), lambda b, m: (m.parts[1], word(m.owner, b.pointer))),
    "deque of more elements than blocks": (lambda b: b.msvc_deque(6), lambda b, m: at_word(m, 4, 97, b)),
    "deque with a slot elsewhere": (lambda b: b.msvc_deque(6), lambda b, m: (m.parts[0], word(m.owner, b.pointer))),
    "deque of libstdc++ with another slot": (
        lambda b: b.gnu_deque(3), lambda b, m: (m.parts[0] + 3 * b.pointer, word(m.owner, b.pointer)),
    ),
    "deque of libstdc++ of other blocks": (
        lambda b: b.gnu_deque(3), lambda b, m: at_word(m, 4, m.nodes[0] + 472, b),
    ),
    "deque of libc++ with a slot of zero": (
        lambda b: b.llvm_deque(3), lambda b, m: (m.parts[0] + 2 * b.pointer, word(0, b.pointer)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", MISSES)
def test_what_only_comes_near_is_none(open_built, arch, name):
    make, change = MISSES[name]
    blocks = LibraryContainers(arch)
    made = make(blocks)
    assert found_in(open_built, blocks, change(blocks, made)) == []


def test_a_copy_of_a_head_elsewhere_is_none(open_built):
    blocks = LibraryContainers("x64")
    expected = []
    for make, _, _ in MAKES.values():
        stale = blocks.heap.busy(16 * blocks.pointer)
        made = make(blocks)
        if not made.parts:  # what only the place of the head tells apart
            blocks.late.append((stale + 2 * blocks.pointer, blocks.words(*made.words)))
        expected.append(made.at)
    assert [at for at, *_ in found_in(open_built, blocks)] == sorted(expected)


def test_the_blocks_are_named_after_what_they_are(open_built):
    blocks = LibraryContainers("x64")
    blocks.msvc_deque(6)
    blocks.chained(9)
    built = poke(ProcessBuilder(arch="x64", build=19041).heap(blocks.heap.build()).build(), *blocks.late)
    with open_built(built) as snapshot:
        typing, found = snapshot.types.typing, snapshot.types.nodes
        assert {role.words for role in Role} >= {"node", "buckets", "map of blocks", "block", "proxy"}
        number = typing.of_rows(snapshot.graph.rows.astype("int64"))
        words = {typing.labels[int(number[node])].label for node in found.members}
    assert words == {
        "proxy of a std::deque", "map of blocks of a std::deque", "block of a std::deque",
        "node of a std::unordered_map or set", "buckets of a std::unordered_map or set",
    }  # fmt: skip
