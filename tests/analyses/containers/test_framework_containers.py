"""Containers of Qt and MFC: near misses are none, blocks have names. That they are found: test_library_containers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from heapdump.analyses.types.members import Container
from tests.analyses.containers.buffers import Buffers
from tests.analyses.containers.framework_containers import FrameworkContainers
from tests.analyses.containers.library_containers import Made
from tests.analyses.containers.test_library_containers import found_in
from tests.analyses.types.test_block_types import ARCHES
from tests.builders import ProcessBuilder
from tests.patching import poke, word


def changed(
    make: Callable[[FrameworkContainers], Made], place: Callable[[Made, int], int], value: int
) -> Callable[[FrameworkContainers], Made]:
    """A container with another word at a place of it. `place`: of the container and the bytes of a pointer."""

    def made(blocks: FrameworkContainers) -> Made:
        one = make(blocks)
        blocks.late.append((place(one, blocks.pointer), word(value, blocks.pointer)))
        return one

    return made


MISSES: dict[str, Callable[[FrameworkContainers], Made]] = {
    "QHash of Qt 5 that counts more": lambda b: b.qt5_hash(15, count=16),
    "QHash of Qt 5 that counts less": lambda b: b.qt5_hash(15, count=14),
    "QHash of Qt 5 with a bucket that leads nowhere": changed(lambda b: b.qt5_hash(5), lambda m, w: m.parts[0] + w, 8),
    "QHash of Qt 5 with a ring": changed(lambda b: b.qt5_hash(5), lambda m, _: m.nodes[0], 0),
    "QMap of Qt 5 that counts more": lambda b: b.qt5_map(11, count=12),
    "QMap of Qt 5 with another parent": changed(lambda b: b.qt5_map(11), lambda m, _: m.nodes[3], 0x1230),
    "QHash of Qt 6 that counts more": lambda b: b.qt6_hash(150, count=151),
    "QHash of Qt 6 without entries": changed(lambda b: b.qt6_hash(5, 16), lambda m, w: m.parts[0] + w + 128, 0),
    "list of MFC with more than has room": lambda b: b.mfc_list(23, count=31),
    "list of MFC with one before the first": changed(lambda b: b.mfc_list(1), lambda m, w: m.at + w, 0x77),
    "list of MFC without a table of functions": changed(lambda b: b.mfc_list(5), lambda m, _: m.at, 0x77),
    "list of MFC whose blocks do not end": changed(lambda b: b.mfc_list(5), lambda m, _: m.nodes[0], 0x77),
    "map of MFC with a bucket that leads elsewhere": changed(lambda b: b.mfc_map(5), lambda m, w: m.parts[0] + w, 0x77),
    "map of MFC with more than has room": lambda b: b.mfc_map(23, count=31),
}


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", MISSES)
def test_what_only_comes_near_is_none(open_built, arch, name):
    blocks = FrameworkContainers(arch)
    MISSES[name](blocks)
    assert found_in(open_built, blocks) == []


@pytest.mark.parametrize("arch", ARCHES)
def test_their_blocks_have_names(open_built, arch):
    blocks = FrameworkContainers(arch)
    hash_, list_ = blocks.qt5_hash(15), blocks.mfc_list(23)
    shared = [blocks.heap.busy(64, blocks.words(3, 4, hash_.parts[-1])) for _ in range(3)]
    built = ProcessBuilder(arch=arch, build=19041).heap(blocks.heap.build()).build()
    with open_built(poke(built, *blocks.late)) as snapshot:
        labels = {
            start: label.label if (label := snapshot.types.typing.label_of(row)) else ""
            for row, start in zip(snapshot.graph.rows.tolist(), snapshot.graph.start.tolist(), strict=True)
        }
    assert shared
    assert {labels[node].partition(" at ")[0] for node in hash_.nodes} == {"node of a QHash"}
    assert labels[hash_.parts[0]] == "buckets of a QHash"
    assert labels[hash_.parts[1]] == "head of a QHash"
    assert {labels[node] for node in list_.nodes} == {"block of a CList (MFC)"}


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("is_mfc", [True, False])
def test_arrays_of_mfc_are_found_where_mfc_is_there(open_built, arch, is_mfc):
    blocks = Buffers(arch)
    vtable = ProcessBuilder(arch=arch, build=19041).plan.exe + 0x1040
    array = blocks.counted(2, 9, 12, 24)
    owner = blocks.add(blocks.words(0xFFFFFFF1, vtable) + array.content + blocks.words(0, 0xFFFFFFF1))
    unlike = blocks.counted(2, 9, 12, 24)
    blocks.add(blocks.words(0xFFFFFFF1, 0x10) + unlike.content + blocks.words(0, 0xFFFFFFF1))
    process = ProcessBuilder(arch=arch, build=19041).heap(blocks.heap.build())
    if is_mfc:
        process.module(0x71000000, 0x10000, r"C:\Windows\System32\mfc140u.dll")
    with open_built(process.build()) as snapshot:
        found, start = snapshot.types.containers, snapshot.graph.start
        known = [
            (int(start[owner]) + offset, Container(kind).words, used, capacity)
            for owner, offset, kind, used, capacity in zip(
                found.owner.tolist(), found.offset.tolist(), found.kind.tolist(), found.used.tolist(),
                found.capacity.tolist(), strict=True,
            )
        ]  # fmt: skip
    assert known == ([(owner + 2 * blocks.pointer, "CArray (MFC)", 216, 288)] if is_mfc else [])
