"""Summary tables add up, whatever the process looks like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.analyses.headlines import MOST, Headline, HeadlineFacts, headlines
from heapdump.analyses.memory.capabilities import capabilities
from heapdump.analyses.memory.fragmentation import external, virtual
from heapdump.analyses.memory.summary import Summary, summarize
from heapdump.memory.regions import State
from heapdump.snapshot import Snapshot
from tests.analyses.memory.test_usage import rich
from tests.builders import DumpBuilder, ProcessBuilder
from tests.heaps.nt.plans import ACTIONS, FIXED, REPRESENTATIVES, Generation, heap_of, process_of
from tests.patching import poke, without_memory, without_stream, word

TEN = Generation("x64", 19041)


def in_segments(items: dict[str, int]) -> int:
    """Bytes of the lines that divide heap segments."""
    return sum(size for name, size in items.items() if name.startswith("heap segments: "))


def assert_adds_up(snapshot: Snapshot) -> Summary:
    """Tables sum to the map, the reconciliation to the committed bytes."""
    summary, table = summarize(snapshot.usage, snapshot.heaps, snapshot.walk), snapshot.process.regions
    total = sum(table.size.tolist())
    committed = sum(table.size[table.state == State.MEM_COMMIT].tolist())
    free = sum(table.size[table.state == State.MEM_FREE].tolist())
    assert sum(row.bytes for row in summary.usage) == total
    assert sum(row.bytes for row in summary.state) == total
    assert sum(row.bytes for row in summary.type) == total - free
    assert sum(row.bytes for row in summary.protect) == committed
    assert sum(item.bytes for item in summary.reconciliation) == summary.committed_bytes == committed
    assert sum(row.committed_bytes or 0 for row in summary.usage) == committed
    assert sum(row.bytes for row in summary.usage if row.name == "Free") == free
    if committed and summary.is_whole_process:
        assert sum(item.share or 0 for item in summary.reconciliation) == pytest.approx(1)
    for row in (*summary.usage, *summary.type, *summary.state, *summary.protect):
        assert row.regions > 0 and row.bytes > 0
        assert row.busy_share is None or 0 <= row.busy_share <= 1
    assert {row.usage for row in summary.largest} == {row.name for row in summary.usage}
    for largest in summary.largest:
        i = snapshot.usage.table.index_at(largest.address)
        assert i is not None and int(snapshot.usage.table.size[i]) == largest.bytes
    return summary


@pytest.mark.parametrize(
    ("arch", "build"), [("x64", 19041), ("x86", 2600), ("x86", 19041), ("wow64", 7601), ("wow64", 19041)]
)
def test_tables_of_a_whole_process_add_up(open_built, arch, build):
    with open_built(rich(arch, build)) as snapshot:
        summary = assert_adds_up(snapshot)
        assert summary.usage[0].name == "Free"
        sizes = [row.bytes for row in summary.usage[1:]]
        assert sizes == sorted(sizes, reverse=True)
        assert sum(row.total_share or 0 for row in summary.usage) == pytest.approx(1)
        assert sum(row.busy_share or 0 for row in summary.usage) == pytest.approx(1)


@pytest.mark.property
@given(
    generation=st.sampled_from(REPRESENTATIVES), actions=ACTIONS,
    extra=st.lists(
        st.tuples(
            st.integers(0, 40), st.integers(1, 30), st.sampled_from(["MEM_COMMIT", "MEM_RESERVE"]),
            st.sampled_from(["MEM_PRIVATE", "MEM_MAPPED", "MEM_IMAGE"]), st.sampled_from([1, 2, 4, 0x20, 0x104]),
        ),
        max_size=6,
    ),
)  # fmt: skip
def test_tables_of_a_random_process_add_up(open_built, generation, actions, extra):
    process = process_of(generation, heap_of(generation, actions).build())
    for i, (gap, pages, state, kind, protect) in enumerate(extra):
        process.region(
            0x50000000 + i * 0x1000000 + gap * 0x1000, pages * 0x1000, state=state, type=kind, protect=protect
        )
    with open_built(process) as snapshot:
        assert_adds_up(snapshot)
        answers = capabilities(snapshot.process, snapshot.heaps)
        assert {q.answer for q in answers} <= {"yes", "partly", "no"}
        assert len(headlines_of(snapshot)) <= MOST


@pytest.mark.property
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 9), st.sampled_from(["MEM_COMMIT", "MEM_RESERVE", "MEM_FREE"])),
        max_size=12,
    )
)
def test_tables_of_a_map_that_overlaps_itself_add_up(open_built, rows):
    process = ProcessBuilder()
    process.heap(heap_of(TEN, FIXED[2]).build())
    for page, pages, state in rows:
        process.dump.region(TEN.base - 0x8000 + page * 0x1000, pages * 0x1000, state=state)
    with open_built(process) as snapshot:
        assert_adds_up(snapshot)


def test_every_kind_of_memory_has_its_line_in_the_reconciliation(open_built):
    with open_built(rich()) as snapshot:
        summary = summarize(snapshot.usage, snapshot.heaps, snapshot.walk)
        items = {item.item.words: item.bytes for item in summary.reconciliation}
        heaps = snapshot.heaps
        assert in_segments(items) == sum(h.committed_bytes or 0 for h in heaps)
        assert items["heap large blocks"] == sum(h.large_committed_bytes or 0 for h in heaps)
        assert items["unknown private memory"] > 0x10000
        assert items["mapped files and sections"] == 0x3000
        assert items["stacks"] == 2 * 0x5000
        assert {"TEBs and PEBs", "images", "other system data"} <= items.keys()
        unknown = sum(size for item, size in items.items() if item.startswith("unknown"))
        assert summary.explained_share == pytest.approx(1 - unknown / summary.committed_bytes)


def test_pages_committed_against_the_heaps_own_list_have_a_line_of_their_own(open_built):
    """The csr heap of the real Windows 7 dump: committed by the memory map, uncommitted by its list."""
    heap = heap_of(TEN, FIXED[0], flags=0x1000).build()
    start, end = heap.truth.uncommitted[0]
    regions = tuple((b, s, "MEM_COMMIT", t, 4, a) for b, s, _, t, _, a in heap.regions)
    with open_built(process_of(TEN, replace(heap, regions=regions))) as snapshot:
        summary = assert_adds_up(snapshot)
        items = {item.item.words: item.bytes for item in summary.reconciliation}
        assert items["heap segments, uncommitted by the heap's own list"] == end - start
        assert in_segments(items) == heap.truth.committed_bytes


def test_pages_that_windows_took_out_of_a_free_block_are_no_free_bytes(open_built):
    """8 and later give whole pages inside a free block back; no list of the heap names them, the memory map does."""
    heap = heap_of(TEN, [("busy", 100), ("free", 900), ("busy", 50)]).build()
    truth, first = heap.truth, heap.truth.free[0]
    start, end = -(-first.entry // 0x1000) * 0x1000 + 0x1000, (first.entry + first.entry_size) & ~0xFFF
    (base, size, state, kind, protect, allocation), *others = heap.regions
    committed = (state, kind, protect, allocation)
    assert end - start == 0x1000 and base < start < end < base + size
    pieces = (
        (base, start - base, *committed),
        (start, end - start, "MEM_RESERVE", "MEM_PRIVATE", 0, base),
        (end, base + size - end, *committed),
    )
    built = process_of(TEN, replace(heap, regions=(*pieces, *others))).build()
    with open_built(without_memory(built, (start, end))) as snapshot:
        assert (snapshot.walk.findings, snapshot.walk.gaps) == ((), ())
        items = {item.item.words: item.bytes for item in assert_adds_up(snapshot).reconciliation}
    assert items["heap segments: free blocks"] == truth.free_bytes - (end - start)
    assert items["heap segments: busy blocks"] == 150
    assert "heap segments: not walked" not in items
    assert in_segments(items) == truth.committed_bytes - (end - start)


def test_without_memory_map_nothing_is_called_free_and_shares_are_not_known(open_built):
    with open_built(without_stream(rich().build(), 16)) as snapshot:
        summary = assert_adds_up(snapshot)
        assert not snapshot.process.regions.is_complete_map
        assert "Free" not in {row.name for row in summary.usage}
        assert "MEM_FREE" not in {row.name for row in summary.state}
        assert summary.largest_allocatable is None
        assert all(row.total_share is None for row in (*summary.usage, *summary.state, *summary.type))
        assert all(row.reserved_bytes is None for row in summary.usage)
        assert {"Heap", "Stack", "TEB", "PEB", "Image"} <= {row.name for row in summary.usage}
        assert any("no memory map (MemoryInfoList)" in note for note in snapshot.gaps)
        assert summary.committed_bytes == snapshot.process.space.total_bytes


def test_a_dump_without_memory_and_map_has_empty_tables(open_built):
    with open_built(DumpBuilder().thread(4, 0x5000).build()) as snapshot:
        summary = assert_adds_up(snapshot)
        assert (summary.usage, summary.committed_bytes, summary.explained_share) == ((), 0, None)


def free_map(*free: tuple[int, int]) -> DumpBuilder:
    builder = DumpBuilder().thread(4, 0x5000).region(0x1000, 0x1000)
    for start, end in free:
        builder.region(start, end - start, state="MEM_FREE")
    return builder


@pytest.mark.parametrize(
    ("free", "address", "size"),
    [
        ([(0x2000, 0x30000)], 0x10000, 0x20000),
        ([(0x10000, 0x20000), (0x31000, 0x52000)], 0x40000, 0x12000),
        ([(0x11000, 0x20000), (0x30000, 0x31000)], 0x30000, 0x1000),
        ([((1 << 64) - 0x8000, (1 << 64) - 0x1000), (0x10000, 0x13000)], 0x10000, 0x3000),
    ],
)
def test_the_largest_allocation_starts_on_64_kib(open_built, free, address, size):
    with open_built(free_map(*free).build()) as snapshot:
        largest = summarize(snapshot.usage, snapshot.heaps, snapshot.walk).largest_allocatable
        assert largest is not None
        assert (largest.address, largest.bytes) == (address, size)


def test_a_heap_s_fragmentation_is_that_of_the_published_formulas(open_built):
    with open_built(process_of(TEN, heap_of(TEN, FIXED[2]).build())) as snapshot:
        (heap,) = snapshot.heaps
        assert external(heap) == pytest.approx(heap.free_bytes / heap.committed_bytes)
        assert heap.reserved_bytes is not None and heap.counters.large_uncommitted_bytes is not None
        size = heap.reserved_bytes - heap.counters.large_uncommitted_bytes
        assert virtual(heap) == pytest.approx((size - heap.committed_bytes) / size)


def test_damage_is_the_first_headline(open_built):
    built = rich().build()
    head = TEN.base + 0x110
    with open_built(poke(built, (head, word(0x4141)))) as snapshot:
        first = headlines_of(snapshot)[0]
        assert (
            first.sentence == f"the large-block list of heap {TEN.base:#x} is broken: the link at {head:#x} is 0x4141"
        )
        assert first.command == ("heaps",)


def test_a_small_healthy_process_has_no_headline_about_heaps(open_built):
    with open_built(process_of(TEN, heap_of(TEN, FIXED[0]).build())) as snapshot:
        found = headlines_of(snapshot)
        assert not [h for h in found if "heap" in h.sentence]


def headlines_of(snapshot: Snapshot) -> tuple[Headline, ...]:
    summary = summarize(snapshot.usage, snapshot.heaps, snapshot.walk)
    return headlines(HeadlineFacts(snapshot.process, snapshot.heaps, snapshot.walk, summary, snapshot.crash))


def questions(snapshot: Snapshot) -> dict[str, str]:
    return {q.question.split("?")[0]: q.answer for q in capabilities(snapshot.process, snapshot.heaps)}


def test_a_whole_dump_answers_and_a_small_one_says_what_it_cannot(open_built):
    built = rich().build()
    with open_built(built) as snapshot:
        answers = questions(snapshot)
        assert answers["where did the memory go"] == answers["which heaps are there, and how large"] == "yes"
        assert answers["what is in the blocks"] == "yes"
        assert answers["what happened"] == "partly"
    everything = (0, 1 << 63)
    with open_built(without_memory(without_stream(built, 16), everything)) as snapshot:
        answers = questions(snapshot)
        assert answers["which heaps are there, and how large"] == "no"
        assert answers["where did the memory go"] == "partly"
        assert answers["what is in the blocks"] == "no"


def test_shares_are_numbers_not_arrays(open_built):
    with open_built(rich()) as snapshot:
        for row in summarize(snapshot.usage, snapshot.heaps, snapshot.walk).usage:
            assert not isinstance(row.bytes, np.generic)
            assert not isinstance(row.regions, np.generic)


@pytest.mark.parametrize("generation", REPRESENTATIVES, ids=str)
@pytest.mark.parametrize("actions", FIXED)
def test_heap_segments_are_divided_to_the_byte(open_built, generation, actions):
    built = heap_of(generation, actions).build()
    truth = built.truth
    with open_built(process_of(generation, built)) as snapshot:
        items = {item.item.words: item.bytes for item in assert_adds_up(snapshot).reconciliation}
    assert items.get("heap segments: busy blocks", 0) == sum(block.size for block in truth.busy)
    assert items.get("heap segments: free blocks", 0) == truth.free_bytes
    assert "heap segments: not walked" not in items
    assert in_segments(items) == truth.committed_bytes


@pytest.mark.parametrize("generation", [TEN, Generation("x86", 2600)], ids=str)
def test_what_damage_hides_is_not_walked(open_built, generation):
    heap = heap_of(generation, [])
    heap.busy(100)
    victim = heap.busy(200)
    heap.busy(300)
    built = heap.build()
    entry_size = built.truth.busy[1].entry_size
    data = poke(process_of(generation, built).build(), (victim - 8, b"AAAAAAAA"))
    with open_built(data) as snapshot:
        items = {item.item.words: item.bytes for item in assert_adds_up(snapshot).reconciliation}
        assert items["heap segments: busy blocks"] == 400 + entry_size - 8  # listed as a guess
        assert items.get("heap segments: not walked", 0) == 0
