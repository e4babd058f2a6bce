"""Blocks of the CRT's debug heap: each header variant, inside ordinary heaps and page heaps; no false recognition."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.analyses.allocated.crt import describe
from heapdump.heaps import crt
from heapdump.memory.mapped import MappedMemory
from heapdump.snapshot import Snapshot
from heapdump.spans import Span
from tests.builders import ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.builders.page_heap import PageHeapBuilder
from tests.heaps.nt.plans import FIXED, Generation, heap_of, process_of
from tests.patching import poke

GUARD = b"\xfd" * 4
NAMES = 0x50000000
VARIANTS = [
    pytest.param(("x64", "ucrt"), id="x64"),
    pytest.param(("x86", "ucrt"), id="x86-ucrt"),
    pytest.param(("x86", "old"), id="x86-to-2013"),
]


def header(
    variant: tuple[str, str], links: tuple[int, int], file: int, line: int, use: int, size: int, request: int
) -> bytes:
    """_CrtMemBlockHeader with its guard."""
    if variant[0] == "x64":
        return struct.pack("<QQQiIQi", *links, file, line, use, size, request) + GUARD
    pair = (use, size) if variant[1] == "ucrt" else (size, use)
    return struct.pack("<IIIiIIi", *links, file, line, *pair, request) + GUARD


def crt_heap(variant: tuple[HeapArch, str], blocks: list[tuple[int, int, int, int, int]]):
    """(builder, [user address]) of blocks (size, file, line, use, request), linked as the CRT does: newest first."""
    generation = Generation(variant[0], 19041)
    heap = heap_of(generation, FIXED[0])
    header_bytes = 0x30 if variant[0] == "x64" else 0x20
    places, step = [], 16 if variant[0] == "x64" else 8
    # the links are written afterwards, when the addresses are known
    contents = []
    for size, file, line, use, request in blocks:
        data = header(variant, (0, 0), file, line, use, size, request) + b"\xcd" * size + GUARD
        places.append(heap.busy(len(data), data))
        contents.append((size, file, line, use, request))
    assert all(place % step == 0 for place in places)
    pokes = []
    for i, place in enumerate(places):
        links = (places[i - 1] if i else 0, places[i + 1] if i + 1 < len(places) else 0)
        pokes.append((place, header(variant, links, *[contents[i][k] for k in (1, 2, 3, 0, 4)])))
    return heap, [place + header_bytes for place in places], pokes


def crt_of(snapshot: Snapshot):
    found = snapshot.crt.blocks(np.arange(len(snapshot.walk.table)))
    return describe(snapshot.process.space, found)


def built_with(variant, blocks):
    heap, users, pokes = crt_heap(variant, blocks)
    process = process_of(Generation(variant[0], 19041), heap.build())
    process.region(NAMES, 0x1000).memory(NAMES, b"d:\\src\\app\\main.cpp\0\0\0\0".ljust(0x1000, b"\0"))
    return poke(process.build(), *pokes), users


@pytest.mark.parametrize("variant", VARIANTS)
def test_file_line_request_use_and_size_of_each_header_variant(open_built, variant):
    built, users = built_with(variant, [
        (100, NAMES, 42, 1, 7), (1, 0, 0, 1, 8), (33, NAMES, 43, 0x00050004, 9), (20, 0, 0, 2, 10), (16, 0, 0, 0, 11),
    ])  # fmt: skip
    with open_built(built) as snapshot:
        found = crt_of(snapshot)
        assert [block.address for block in found] == users
        assert [(b.size, b.file, b.line, b.use, b.subtype, b.request) for b in found] == [
            (100, "d:\\src\\app\\main.cpp", 42, "normal", 0, 7), (1, None, 0, "normal", 0, 8),
            (33, "d:\\src\\app\\main.cpp", 43, "client", 5, 9), (20, None, 0, "CRT", 0, 10), (16, None, 0, "free", 0, 11),
        ]  # fmt: skip
        assert found[0].words == f"d:\\src\\app\\main.cpp(42) : {{7}} normal block at {users[0]:#x}, 100 bytes long"
        assert not any(block.damage for block in found)


@pytest.mark.parametrize("apart", [False, True])
def test_many_blocks_are_read_some_at_a_time_and_their_pages_given_back(open_built, monkeypatch, apart):
    built, users = built_with(("x64", "ucrt"), [(5000 if apart else 10, 0, 0, 1, i) for i in range(20)])
    monkeypatch.setattr(crt, "_BATCH_APART" if apart else "_BATCH", 3)
    forgotten: list[Span] = []
    monkeypatch.setattr(MappedMemory, "forget", lambda _, span: forgotten.append(span))
    with open_built(built) as snapshot:
        table = snapshot.walk.table
        rows = np.flatnonzero(np.isin(table.address, np.array(users, np.uint64) - np.uint64(0x30)))
        forgotten.clear()
        assert snapshot.crt.blocks(rows).user.tolist() == users
        assert len(forgotten) == 7
        assert all(span.size < (20_000 if apart else 1000) for span in forgotten)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_changed_guard_is_seen_through_the_neighbours(open_built, variant, side):
    built, users = built_with(variant, [(100, NAMES, 1, 1, 1), (50, NAMES, 2, 1, 2), (60, NAMES, 3, 1, 3)])
    place = users[1] - 2 if side == "before" else users[1] + 50
    with open_built(poke(built, (place, b"XX"))) as snapshot:
        found = crt_of(snapshot)
        assert [block.address for block in found] == users
        assert found[1].damage == (f"HEAP CORRUPTION DETECTED: {side} Normal block (#2) at {users[1]:#x}",)
        assert not found[0].damage
        header_bytes = 0x30 if variant[0] == "x64" else 0x20
        alone = np.flatnonzero(snapshot.walk.table.address == users[1] - header_bytes)
        assert snapshot.crt.blocks(alone).user.tolist() == [users[1]]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_line_of_verdict_counts_changed_guards(open_built, variant):
    built, users = built_with(variant, [(100, NAMES, 1, 1, 1), (50, NAMES, 2, 1, 2)])
    with open_built(built) as snapshot:
        assert snapshot.verdict(snapshot.heaps).text == "no damage found in 1 heap"
    with open_built(poke(built, (users[0] + 100, b"X"))) as snapshot:
        assert [explained.finding.kind for explained in snapshot.explained_findings] == ["crt_guard"]
        assert snapshot.verdict(snapshot.heaps).text == "1 damaged place found in 1 heap"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_changed_guard_without_neighbours_is_no_block(open_built, variant):
    built, users = built_with(variant, [(100, NAMES, 1, 1, 1)])
    with open_built(poke(built, (users[0] - 1, b"X"))) as snapshot:
        assert not crt_of(snapshot)


def test_blocks_under_page_heap(open_built):
    page = PageHeapBuilder(0x30000000)
    data = header(("x64", "ucrt"), (0, 0), 0, 0, 1, 77, 5) + b"\xcd" * 77 + GUARD
    user = page.block(len(data), fill=data)
    with open_built(ProcessBuilder(build=19041, nt_global_flag=0x02000000).heap(page.build())) as snapshot:
        (block,) = crt_of(snapshot)
        assert (block.address, block.size, block.request) == (user + 0x30, 77, 5)


@pytest.mark.property
@pytest.mark.parametrize("arch", ["x64", "x86"])
@given(blocks=st.lists(st.binary(min_size=0, max_size=200), max_size=20), guards=st.booleans())
def test_random_data_is_never_taken_for_a_crt_block(open_built, arch, blocks, guards):
    heap = heap_of(Generation(arch, 19041), FIXED[0])
    for data in blocks:
        content = data.replace(b"\0", b"\xfd") if guards else data
        heap.busy(len(content), content)
    with open_built(process_of(Generation(arch, 19041), heap.build())) as snapshot:
        assert not crt_of(snapshot)
