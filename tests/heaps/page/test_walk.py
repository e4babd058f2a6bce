"""Page heaps by the builder: every generation, full and light, whole and damaged.

XP and 10 are laid out as recorded dumps show; Vista to 8.1 (`vista`) and 11 rest on published layouts, confirmed by no
recording.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.blocks.kind import BlockKind, HeapKind
from heapdump.heaps.page import node_lists
from heapdump.layouts import load
from heapdump.snapshot import Snapshot
from tests.builders import ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.builders.page_heap import BuiltPageHeap, PageGeneration, PageHeapBuilder
from tests.heaps.nt.plans import FIXED, Generation, heap_of
from tests.patching import poke, without_memory, word

HPA = 0x02000000
PageHeapOf = tuple[HeapArch, int, PageGeneration]
PAGE_HEAPS: dict[str, PageHeapOf] = {
    "recorded-xp-x86": ("x86", 2600, "xp"),
    "recorded-10-x64": ("x64", 19041, "ten"),
    "recorded-10-x86": ("x86", 19041, "ten"),
    "unconfirmed-11-x64": ("x64", 22000, "ten"),
    "unconfirmed-7-x64": ("x64", 7601, "vista"),
    "unconfirmed-7-x86": ("x86", 7601, "vista"),
    "unconfirmed-8-x64": ("x64", 9200, "vista"),
    "unconfirmed-vista-x86": ("x86", 6002, "vista"),
}
GENERATIONS = [pytest.param(generation, id=name) for name, generation in PAGE_HEAPS.items()]
TEN: PageHeapOf = ("x64", 19041, "ten")
PLACE = 0x30000000


def builder_of(generation: PageHeapOf, **options) -> PageHeapBuilder:
    arch, _, kind = generation
    return PageHeapBuilder(PLACE, arch=arch, generation=kind, **options)


def process_with(generation: PageHeapOf, page: BuiltPageHeap, *others) -> ProcessBuilder:
    arch, build, _ = generation
    process = ProcessBuilder(arch=arch, build=build, revision=5512 if build == 2600 else 508, nt_global_flag=HPA)
    for heap in (page, *others):
        process.heap(heap)
    return process


def rows_of(snapshot: Snapshot, state: str) -> dict[int, int]:
    """User address → requested size of page heap blocks in this state."""
    blocks = snapshot.walk.table.blocks(np.arange(len(snapshot.walk.table)))
    return {b.address: b.size for b in blocks if b.state == state and b.kind in (BlockKind.PAGE, BlockKind.LIGHT)}


@pytest.mark.parametrize("generation", GENERATIONS)
def test_blocks_sizes_states_and_stacks_of_a_full_page_heap(open_built, generation):
    page = builder_of(generation)
    trace = page.trace(0x401000, 0x402000, 0x403000)
    busy = {page.block(size, trace=trace, thread=77): size for size in (0, 1, 7, 8, 100, 4000, 4096, 70000)}
    freed = {page.block(size, state="freed", trace=trace): size for size in (24, 5000)}
    with open_built(process_with(generation, page.build())) as snapshot:
        (heap,) = snapshot.heaps
        assert (heap.kind, heap.role, heap.flags, heap.stack_traces) == (HeapKind.PAGE, "process", 0x1002, True)
        assert heap.reserved_bytes == page.reserve
        assert rows_of(snapshot, "busy") == busy
        assert rows_of(snapshot, "free") == freed
        count = snapshot.walk.counts[0]
        assert (count.busy_blocks, count.busy_bytes, count.integrity) == (len(busy), sum(busy.values()), 1.0)
        assert not snapshot.walk.gaps
        assert not snapshot.walk.findings
        table = snapshot.walk.table
        numbers = snapshot.stacks.numbers(np.arange(len(table)))
        assert set(numbers.tolist()) == {trace}
        assert snapshot.stacks.frames(heap, trace) == (0x401000, 0x402000, 0x403000)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_block_whose_guard_page_lies_before_it(open_built, generation):
    page = builder_of(generation)
    user = page.block(123, backward=True)
    other = page.block(50)
    with open_built(process_with(generation, page.build())) as snapshot:
        assert rows_of(snapshot, "busy") == {user: 123, other: 50}
        nodes = snapshot.page_nodes(snapshot.heaps[0])
        assert nodes is not None
        assert nodes.data[0] == user
        assert nodes.thread.tolist() == [0, 0]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_light_blocks_lie_in_blocks_of_the_ordinary_heap(open_built, generation):
    arch, build, _ = generation
    ordinary_base = Generation(arch, build).base
    page = builder_of(generation, normal_heap=ordinary_base)
    trace = page.trace(0x401000)
    ordinary = heap_of(Generation(arch, build), FIXED[0])
    carriers = {}
    for size, state in ((10, "light busy"), (300, "light busy"), (64, "light freed")):
        content = page.light(size, state=state, trace=trace)
        carriers[ordinary.busy(len(content), content)] = (size, state)
    own = ordinary.busy(40, b"no stamps here")
    built, ordinary_heap = page.build(), ordinary.build()
    with open_built(process_with(generation, built, ordinary_heap)) as snapshot:
        assert [heap.kind for heap in snapshot.heaps] == [HeapKind.PAGE, HeapKind.NT]
        assert snapshot.heaps[0].normal_heap == ordinary_base
        prefix = page.information
        assert rows_of(snapshot, "busy") == {
            a + prefix: s for a, (s, state) in carriers.items() if state == "light busy"
        }
        assert rows_of(snapshot, "free") == {
            a + prefix: s for a, (s, state) in carriers.items() if state == "light freed"
        }
        table = snapshot.walk.table
        internal = {b.address for b in table.blocks(np.flatnonzero(table.is_internal))}
        assert set(carriers) <= internal
        assert own not in internal
        light = np.flatnonzero(table.kind == BlockKind.LIGHT)
        assert set(snapshot.stacks.numbers(light).tolist()) == {trace}
        hosted = snapshot.walk.counts[1].hosted
        assert [(kind.busy_blocks, kind.free_blocks) for kind in hosted] == [(2, 1)]
        assert snapshot.walk.counts[1].busy_bytes == 40
        reconciled = {item.item.words: item.bytes for item in summary_of(snapshot)}
        assert reconciled["heap segments: busy blocks"] == 310 + 40


def summary_of(snapshot: Snapshot):
    from heapdump.analyses.memory.summary import summarize

    return summarize(snapshot.usage, snapshot.heaps, snapshot.walk).reconciliation


@pytest.mark.property
@pytest.mark.parametrize("generation", [GENERATIONS[0], GENERATIONS[1], GENERATIONS[5]])
@given(plan=st.lists(st.tuples(st.integers(0, 9000), st.booleans(), st.booleans(), st.booleans()), max_size=40))
def test_random_page_heaps_come_back_as_built(open_built, generation, plan):
    page = builder_of(generation, reserve=0x800000)
    for size, busy, backward, aligned in plan:
        page.block(size, state="busy" if busy else "freed", backward=backward, aligned=aligned)
    built = page.build()
    with open_built(process_with(generation, built)) as snapshot:
        for state, name in (("busy", "busy"), ("free", "freed")):
            assert rows_of(snapshot, state) == {b.user: b.size for b in built.truth.blocks if b.state == name}
        nodes = snapshot.page_nodes(snapshot.heaps[0])
        assert nodes is not None
        assert nodes.node.tolist() == [b.node for b in sorted(built.truth.blocks, key=lambda b: b.user)]


def test_heaps_on_the_list_of_roots_are_found(open_built):
    """A second page heap that no reservation scan would find, because it does not begin one."""
    first, second = builder_of(TEN), PageHeapBuilder(PLACE + 0x1000000)
    first.block(10)
    user = second.block(20)
    one, two = first.build(), second.build()
    process = ProcessBuilder(build=19041, nt_global_flag=HPA).heap(one)
    for base, size, state, kind, protect, _ in two.regions:
        process.region(base, size, state=state, type=kind, protect=protect, allocation_base=PLACE + 0xFF0000)
    process.region(PLACE + 0xFF0000, 0x10000, state="MEM_RESERVE", allocation_base=PLACE + 0xFF0000)
    for address, data in two.memory:
        process.memory(address, data)
    built = process.build()
    links = {PLACE + 0x1138: PLACE + 0x1001138, PLACE + 0x1001138: PLACE + 0x1138}
    with open_built(poke(built, *((at, word(to) + word(to)) for at, to in links.items()))) as snapshot:
        assert [heap.address for heap in snapshot.heaps] == [PLACE, PLACE + 0x1000000]
        assert user in rows_of(snapshot, "busy")


def damaged(generation, changes) -> tuple[BuiltPageHeap, object]:
    page = builder_of(generation)
    for size in range(20, 320, 20):
        page.block(size)
    page.block(64, state="freed")
    page.block(65, state="freed")
    heap = page.build()
    return heap, poke(process_with(generation, heap).build(), *changes(heap.truth.blocks, page))


@pytest.mark.parametrize("generation", [GENERATIONS[0], GENERATIONS[1]])
def test_a_tree_or_list_that_leads_back_into_itself_ends(open_built, generation):
    size = 8 if generation[0] == "x64" else 4
    link = 0 if generation[2] == "xp" else 2 * size

    def back(blocks, page):
        return [(blocks[9].node + link, word(blocks[3].node, size))]

    heap, built = damaged(generation, back)
    with open_built(built) as snapshot:
        assert any("leads back into itself" in gap for gap in snapshot.walk.gaps)
        busy = rows_of(snapshot, "busy")
        assert busy
        assert busy.items() <= {b.user: b.size for b in heap.truth.blocks if b.state == "busy"}.items()


@pytest.mark.property
@given(links=st.lists(st.tuples(st.integers(0, 14), st.sampled_from([8, 16]), st.integers(-2, 14)), max_size=3))
def test_the_quick_way_through_a_tree_is_taken_for_sound_ones_alone(open_built, links):
    """Any child becomes another node, or none, or memory that the dump lacks."""

    def changes(blocks, page):
        targets = [*(block.node for block in blocks[:15]), 0x7000_0000, 0]
        return [(blocks[node].node + side, word(targets[target])) for node, side, target in links]

    _, built = damaged(TEN, changes)
    with open_built(built) as snapshot:
        view, heap = snapshot.process.views[0], snapshot.heaps[0]
        layout = load(heap.layout or "")
        links_of = layout["_RTL_BALANCED_LINKS"]
        table = heap.address + 0x1000 + layout["_DPH_HEAP_ROOT"].offset("BusyNodesTable")
        root = np.array([view.space.pointer(table + links_of.offset("RightChild"))], np.uint64)
        careful = node_lists._doubtful_tree(view, layout, root, 1000)
        quick = node_lists._sound_tree(view, layout, root, 1000)
        found = node_lists.tree_nodes(view, layout, table, 1000)
        assert (found.nodes.tolist(), found.why) == (careful.nodes.tolist(), careful.why)
        assert quick is None or (quick.tolist(), "") == (careful.nodes.tolist(), careful.why)
        assert quick is not None or links


def test_a_cyclic_list_of_freed_blocks_ends(open_built):
    def back(blocks, page):
        return [(blocks[-1].node, word(blocks[-2].node))]

    heap, built = damaged(TEN, back)
    with open_built(built) as snapshot:
        assert rows_of(snapshot, "free") == {b.user: b.size for b in heap.truth.blocks if b.state == "freed"}
        assert "the list leads back into itself" in "".join(snapshot.walk.gaps)


@pytest.mark.parametrize("member", [0x20, 0x28, 0x30, 0x40])
def test_a_node_whose_members_do_not_fit_together_is_a_finding_and_no_block(open_built, member):
    def changed(blocks, page):
        return [(blocks[4].node + member, word(0x4141414141414141))]

    heap, built = damaged(TEN, changed)
    with open_built(built) as snapshot:
        (finding,) = snapshot.walk.findings
        assert (finding.kind, finding.address) == ("page_header", heap.truth.blocks[4].node)
        missing = heap.truth.blocks[4].user
        assert rows_of(snapshot, "busy") == {
            b.user: b.size for b in heap.truth.blocks if b.state == "busy" and b.user != missing
        }
        assert snapshot.walk.counts[0].integrity < 1


@pytest.mark.property
@given(data=st.data())
def test_random_bytes_in_root_and_nodes_never_make_a_wrong_busy_block(open_built, data):
    page = builder_of(TEN)
    for size in range(20, 320, 20):
        page.block(size)
    heap = page.build()
    truth = {b.user: b.size for b in heap.truth.blocks}
    at = data.draw(st.integers(PLACE + 0x1004, PLACE + 0x2000 + 16 * 0x68))
    built = poke(process_with(TEN, heap).build(), (at, data.draw(st.binary(min_size=1, max_size=8))))
    with open_built(built) as snapshot:
        found = rows_of(snapshot, "busy")
        assert set(found) <= set(truth)
        wrong = [user for user, size in found.items() if size != truth[user] and abs(size - truth[user]) >= 16]
        assert not wrong


def test_a_root_outside_of_the_dump_leaves_the_heap_without_blocks(open_built):
    page = builder_of(TEN)
    page.block(100)
    built = process_with(TEN, page.build()).build()
    with open_built(without_memory(built, (PLACE + 0x1010, PLACE + 0x2000))) as snapshot:
        assert not rows_of(snapshot, "busy")
        assert any("not in the dump" in gap for gap in (*snapshot.walk.gaps, *snapshot.heaps[0].notes))


def test_nodes_outside_of_the_dump_are_said(open_built):
    page = builder_of(TEN)
    for _ in range(200):
        page.block(100)
    built = process_with(TEN, page.build()).build()
    with open_built(without_memory(built, (PLACE + 0x3000, PLACE + 0x4000))) as snapshot:
        assert 0 < len(rows_of(snapshot, "busy")) < 200
        assert any("not in the dump" in gap for gap in snapshot.walk.gaps)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_layout_is_seen_on_the_root_whatever_the_build_says(open_built, generation):
    """XP's root under a build whose neighbours have the later one, and the other way round."""
    arch, _, kind = generation
    page = builder_of(generation)
    busy = {page.block(size): size for size in (10, 200)}
    process = ProcessBuilder(
        arch=arch, build=19041 if kind == "xp" else 6001 if arch == "x86" else 9600, nt_global_flag=HPA
    )
    with open_built(process.heap(page.build())) as snapshot:
        assert rows_of(snapshot, "busy") == busy
        assert snapshot.heaps[0].is_fully_walked


def test_a_page_heap_whose_reservations_cannot_be_followed_is_doubted(open_built):
    page = builder_of(TEN)
    page.block(10)
    built = poke(process_with(TEN, page.build()).build(), (PLACE + 0x1018, word(0x4141414141)))
    with open_built(built) as snapshot:
        (heap,) = snapshot.heaps
        assert (heap.kind, heap.trust, heap.is_fully_walked) == (HeapKind.PAGE, "derived", False)
        assert any("reservations of page heap" in note for note in heap.notes)
        assert [extent.span.start for extent in heap.extents] == [PLACE]
