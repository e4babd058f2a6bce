"""Damaged large-block lists: what can be reached is listed, the damage is a finding, every walk ends."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump.analyses.blocks.locate import Owners
from heapdump.analyses.blocks.select import Filter, select
from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind
from heapdump.memory import limits
from tests.builders import BuiltDump, NtHeapBuilder, ProcessBuilder
from tests.heaps.nt.plans import REPRESENTATIVES, Generation, heap_of, process_of
from tests.patching import peek, poke, without_memory, word

GENERATIONS = [g for g in REPRESENTATIVES if str(g) in ("x86-2600", "x64-7601", "x86-19041", "x64-19041")]
LIST_HEADS = {"x86-2600": 0x50, "x64-7601": 0x118, "x86-19041": 0x9C, "x64-19041": 0x110}
COUNT = 6
BASE = 0x20000000000


class Large:
    """A heap with six large blocks, and the addresses of the list that joins them."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.size = 8 if generation.arch == "x64" else 4
        self.heap = heap_of(generation, [("busy", 100), *[("virtual", 0x80000)] * COUNT]).build()
        self.built = process_of(generation, self.heap).build()
        self.head = generation.base + LIST_HEADS[str(generation)]
        self.nodes = [block.list_entry for block in self.heap.truth.large]

    def with_links(self, *changes: tuple[int, str, int]) -> BuiltDump:
        """(address of a list entry, "flink" or "blink", new value) each."""
        return poke(
            self.built,
            *((at + (self.size if link == "blink" else 0), word(value, self.size)) for at, link, value in changes),
        )


def entries(heap: Heap) -> list[int]:
    assert heap.large_blocks is not None
    return sorted(block.list_entry for block in heap.large_blocks)


def virtual_findings(heap: Heap) -> list[int]:
    """Addresses of the findings, all of which must be about the large-block list."""
    assert {f.kind for f in heap.findings} == {"virtual_list"}
    assert all(f.heap == heap.address and f.severity == "error" for f in heap.findings)
    return [f.address for f in heap.findings]


@pytest.fixture(params=GENERATIONS, ids=str)
def large(request) -> Large:
    return Large(request.param)


@pytest.mark.parametrize("index", [0, 2, COUNT - 1])
def test_an_overwritten_flink_leaves_all_blocks_listed_and_is_a_finding(open_built, large, index):
    with open_built(
        large.with_links((large.nodes[index], "flink", 0xBEEF0000AD0B if large.size == 8 else 0xBEEF))
    ) as snapshot:
        (heap,) = snapshot.heaps
        assert entries(heap) == large.nodes
        assert virtual_findings(heap) == [large.nodes[index]]
        assert not heap.is_fully_walked
        assert any("large-block list" in note and "more may lie between" in note for note in heap.notes)


@pytest.mark.parametrize("index", [0, 2, COUNT - 1])
def test_an_overwritten_blink_leaves_all_blocks_listed_and_is_a_finding(open_built, large, index):
    with open_built(large.with_links((large.nodes[index], "blink", 0x4141))) as snapshot:
        (heap,) = snapshot.heaps
        assert entries(heap) == large.nodes
        (finding,) = heap.findings
        assert (finding.kind, finding.address) == ("virtual_list", large.nodes[index] + large.size)
        before = large.nodes[index - 1] if index else large.head
        assert (finding.expected, finding.found) == (f"{before:#x}", "0x4141")


def test_a_finding_is_as_long_as_the_pointer_that_is_damaged(open_built, large):
    with open_built(large.with_links((large.nodes[2], "blink", 0x4141))) as snapshot:
        assert [f.length for f in snapshot.heaps[0].findings] == [large.size]


def test_an_entry_overwritten_in_both_links_leaves_all_blocks_listed(open_built, large):
    with open_built(large.with_links((large.nodes[2], "flink", 0x42), (large.nodes[2], "blink", 0x41))) as snapshot:
        (heap,) = snapshot.heaps
        assert entries(heap) == large.nodes
        assert sorted(virtual_findings(heap)) == [large.nodes[2], large.nodes[2] + large.size]
        assert not heap.is_fully_walked


def test_a_list_broken_twice_gives_what_both_ends_and_the_key_reach_and_is_not_fully_walked(open_built, large):
    changed = large.with_links(
        (large.nodes[1], "flink", 0x1000), (large.nodes[4], "blink", 0x2000), (large.nodes[2], "flink", 0)
    )
    with open_built(changed) as snapshot:
        (heap,) = snapshot.heaps
        reached = (0, 1, 4, 5) if large.generation.is_classic else range(COUNT)
        assert entries(heap) == [large.nodes[i] for i in reached]
        assert set(virtual_findings(heap)) == {large.nodes[1], large.nodes[4] + large.size}
        assert not heap.is_fully_walked


def test_an_overwritten_head_is_walked_from_its_other_end(open_built, large):
    for link, at in (("flink", large.head), ("blink", large.head + large.size)):
        with open_built(large.with_links((large.head, link, 0x12345))) as snapshot:
            (heap,) = snapshot.heaps
            assert entries(heap) == large.nodes
            assert virtual_findings(heap) == [at]


def test_a_flink_back_to_the_head_does_not_hide_the_blocks_behind_it(open_built, large):
    with open_built(large.with_links((large.nodes[2], "flink", large.head))) as snapshot:
        (heap,) = snapshot.heaps
        assert heap.findings
        assert entries(heap) == large.nodes


def test_a_flink_that_skips_an_entry_does_not_hide_it(open_built, large):
    with open_built(large.with_links((large.nodes[1], "flink", large.nodes[3]))) as snapshot:
        (heap,) = snapshot.heaps
        assert heap.findings
        assert entries(heap) == large.nodes


def test_a_head_that_points_at_itself_one_way_does_not_hide_the_blocks(open_built, large):
    for link in ("flink", "blink"):
        with open_built(large.with_links((large.head, link, large.head))) as snapshot:
            (heap,) = snapshot.heaps
            assert heap.findings
            assert entries(heap) == large.nodes


def test_a_head_that_points_at_itself_both_ways_is_an_empty_list(open_built, large):
    changed = large.with_links((large.head, "flink", large.head), (large.head, "blink", large.head))
    with open_built(changed) as snapshot:
        (heap,) = snapshot.heaps
        assert (heap.large_blocks, heap.findings, heap.is_fully_walked) == ((), (), True)


@pytest.mark.parametrize("target", [0, 1, 2, 3])
def test_a_list_that_runs_in_a_circle_ends_with_each_block_once(open_built, large, target):
    with open_built(large.with_links((large.nodes[3], "flink", large.nodes[target]))) as snapshot:
        (heap,) = snapshot.heaps
        assert entries(heap) == large.nodes
        assert large.nodes[3] in virtual_findings(heap)
        assert not heap.is_fully_walked


def test_a_list_longer_than_the_limit_is_cut(open_built, large, monkeypatch):
    monkeypatch.setattr(limits, "MAX_LIST_NODES", 2)
    with open_built(large.built) as snapshot:
        (heap,) = snapshot.heaps
        assert len(entries(heap)) <= 2 * 2
        assert not heap.is_fully_walked


@pytest.mark.parametrize(
    ("commit", "reserve"),
    [(0, 0x81000), (0x81001, 0x82000), (0x82000, 0x81000), (0x1000, 0x1001), (0x1000, (1 << 64) - 0x1000)],
)
def test_a_block_whose_sizes_cannot_be_true_ends_the_list_there(open_built, large, commit, reserve):
    size = large.size
    sizes = word(commit, size) + word(reserve, size)
    with open_built(poke(large.built, (large.nodes[3] + 4 * size, sizes))) as snapshot:
        (heap,) = snapshot.heaps
        assert entries(heap) == [node for i, node in enumerate(large.nodes) if i != 3]
        assert large.nodes[2] in virtual_findings(heap)
        assert not heap.is_fully_walked


@pytest.mark.parametrize("gibibytes", [31, 40])
def test_a_large_block_with_impossible_sizes_keeps_the_others_and_is_never_a_wrapped_size(open_built, gibibytes):
    large = Large(next(g for g in GENERATIONS if str(g) == "x64-19041"))
    victim, commit = large.nodes[2], gibibytes << 30
    with open_built(
        poke(large.built, (victim + 0x20, word(commit)), (victim + 0x28, word(commit + 0x10000)))
    ) as snapshot:
        table, owners = snapshot.walk.table, Owners(snapshot.heaps)
        blocks = table.blocks(select(table, snapshot.heaps, Filter(kind="virtual")))
        held = {found.list_entry: block for block in blocks if (found := owners.large_block(block))}
        assert set(held) == set(large.nodes)
        shown = next(block.commit_bytes for block in snapshot.heaps[0].large_blocks or () if block.list_entry == victim)
        assert shown < 1 << 30 and held[victim].entry_size == shown - 0x30
        assert any(f"{victim:#x}" in note and "the memory map" in note for note in snapshot.heaps[0].notes)


@pytest.mark.parametrize("lost", [(0,), (2,), (1, 4), (0, 5), (0, 2, 4)])
def test_blocks_behind_missing_nodes_are_listed(open_built, large, lost):
    """The neighbours of a missing node name it."""
    pages = [(large.nodes[i], large.nodes[i] + 0x1000) for i in lost]
    with open_built(without_memory(large.built, *pages)) as snapshot:
        (heap,) = snapshot.heaps
        assert entries(heap) == [node for i, node in enumerate(large.nodes) if i not in lost]
        assert not heap.is_fully_walked
        assert not snapshot.explained_findings


@pytest.mark.parametrize("is_heap_lost", [False, True])
def test_blocks_that_no_link_reaches_are_told_by_the_key(open_built, large, is_heap_lost):
    """Before Vista there is no key; where the heap's header alone is lost, links lead to its place."""
    if large.generation.is_classic and not is_heap_lost:
        pytest.skip("headers before Vista have no key")
    heap = heap_of(large.generation, [*[("busy", 100)] * 60, *[("virtual", 0x80000)] * COUNT]).build()
    nodes = [block.list_entry for block in heap.truth.large]
    pages = [heap.truth.address] if is_heap_lost else [nodes[0], nodes[1], nodes[4], nodes[5]]
    cut = without_memory(process_of(large.generation, heap).build(), *((page, page + 0x1000) for page in pages))
    with open_built(cut) as snapshot:
        assert entries(snapshot.heaps[0]) == [node for node in nodes if node not in pages]
        assert not snapshot.explained_findings
        users = {block.user for block in heap.truth.large if block.list_entry not in pages}
        table = snapshot.walk.table
        assert users <= {block.address for block in table.blocks(np.flatnonzero(table.kind == BlockKind.VIRTUAL))}


def test_blocks_of_another_heap_are_not_taken_though_the_key_decodes_them(open_built):
    """A header of eight bits of checksum fits a wrong key now and then; the links say whose the block is."""
    step = 0x10000  # seed and base together make the key: both heaps have the same
    first = NtHeapBuilder(base=BASE, seed=step + 7)
    heaps = [first, NtHeapBuilder(base=BASE + step * 1_000_003, flags=0x1002, seed=7)]
    for i, heap in enumerate(heaps):
        heap.busy(100)
        for k in range(2):
            heap.virtual(0x30000000000 + (2 * i + k) * 0x1000000, 0x200000)
    built = [heap.build() for heap in heaps]
    process = ProcessBuilder()
    for one in built:
        process.heap(one)
    head = BASE + LIST_HEADS["x64-19041"]
    dump = poke(process.build(), (head, word(0x7373737373737373) * 2))
    with open_built(dump) as snapshot:
        assert [entries(heap) for heap in snapshot.heaps] == [
            [block.list_entry for block in one.truth.large] for one in built
        ]


def test_a_commit_size_that_says_too_little_is_corrected_by_the_memory_map(open_built, large):
    """A row that is shorter by whole pages has a possible size: only the map contradicts."""
    node, block = large.nodes[1], large.heap.truth.large[1]
    place = node + 4 * large.size if large.generation.arch == "x64" else node + 16
    small = poke(large.built, (place, word(peek(large.built, place, large.size) - 0x10000, large.size)))
    with open_built(small) as snapshot:
        (heap,) = snapshot.heaps
        assert virtual_findings(heap) == [place]
        table = snapshot.walk.table
        sizes = {b.address: b.size for b in table.blocks(np.flatnonzero(table.kind == BlockKind.VIRTUAL))}
        assert sizes[block.user] == block.requested
