"""Three ways to the same LFH blocks: array arithmetic, the loop over sound subsegments in plain Python, the compiled one."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump import kernels
from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.walk import Walk
from heapdump.heaps.nt import lfh_blocks, lfh_sound, lfh_subsegments
from heapdump.heaps.walk import walk_heaps
from heapdump.snapshot import Snapshot
from tests.builders import BuiltDump, BuiltHeap
from tests.builders.nt_heap_lfh_layout import lfh_layout
from tests.heaps.nt.lfh_plans import CODINGS, GENERATIONS, Plan, lfh_rows, lfh_truth
from tests.heaps.nt.plans import Generation
from tests.patching import peek, poke, without_memory

MODERN = [generation for generation in GENERATIONS if not generation.is_classic]
PARTS = (
    ("lfh", 4, 40),
    ("traced", 9, 20),
    ("lfh", 5, 40),
    ("busy", 100, 0),
    ("lfh", 9, 20),
    ("lfh", 33, 15),
    ("busy", 50, 0),
)


@cache
def built(generation: Generation) -> tuple[BuiltDump, BuiltHeap]:
    """A heap with five subsegments, one with front prefixes."""
    plan = Plan(generation, PARTS, seed=5)
    heap = plan.heap()
    return plan.process(heap).build(), heap


def walk_by(way: str, snapshot: Snapshot) -> Walk:
    """The walk by `arrays`, or by the loop: `plain`, `compiled`."""
    with pytest.MonkeyPatch.context() as patch:
        if way == "plain":
            patch.setattr(lfh_sound, "compiled_if_worth", lambda kernel, blocks: partial(kernels.run, kernel, 0))
        elif way == "compiled":
            pytest.importorskip("numba")
            patch.setattr(kernels, "WORTH_COMPILING", 0)
        return walk_heaps(snapshot.process, snapshot.heaps, lambda done, total: None, 1)


def everything(walk: Walk) -> tuple[object, ...]:
    columns = [column.tolist() for column in walk.table.columns()]
    return columns, walk.counts, walk.findings, walk.gaps


@pytest.mark.parametrize("way", ["plain", "compiled"])
@pytest.mark.parametrize("generation", MODERN, ids=str)
def test_sound_subsegments_never_take_the_long_way(open_built, generation, way, monkeypatch):
    """Their blocks come in ascending order: nothing is sorted."""
    dump, heap = built(generation)
    with open_built(dump) as snapshot:
        by_arrays = everything(walk_by("arrays", snapshot))
        assert lfh_rows(snapshot) == lfh_truth(heap)

        def never(*arguments: Any) -> None:
            raise AssertionError("the long way was taken")

        def ascending(columns: BlockColumns, first: int = 0) -> None:
            entry = columns.since(first).entry
            assert (entry[1:] > entry[:-1]).all()

        monkeypatch.setattr(lfh_subsegments, "add_lfh_blocks", never)
        monkeypatch.setattr(BlockColumns, "sort", ascending)
        assert everything(walk_by(way, snapshot)) == by_arrays


@pytest.mark.property
@pytest.mark.parametrize("generation", [g for g in CODINGS if not g.is_classic], ids=str)
@given(data=st.data())
def test_all_ways_agree_on_any_damage(open_built, generation, data):
    """Bits of block headers, last words, user data headers, bitmaps, subsegments and zones; missing pages."""
    dump, heap = built(generation)
    layout = lfh_layout(generation.arch, generation.build)
    spans = [(sub.user_blocks, 0x60) for sub in heap.truth.lfh]
    spans += [(sub.address, layout.subsegment_bytes) for sub in heap.truth.lfh]
    blocks = [block for sub in heap.truth.lfh for block in sub.blocks]
    places = st.one_of(
        st.sampled_from(spans).flatmap(lambda span: st.integers(span[0], span[0] + span[1] - 1)),
        st.sampled_from(blocks).flatmap(lambda block: st.integers(block.entry, block.entry + 15)),
        st.sampled_from(blocks).flatmap(lambda block: st.integers(block.entry + block.entry_size - 8, block.entry + block.entry_size + 7)),
    )  # fmt: skip
    changes = data.draw(st.lists(st.tuples(places, st.integers(0, 7)), min_size=1, max_size=5))
    damaged = dump
    for address, bit in changes:
        damaged = poke(damaged, (address, bytes([peek(damaged, address, 1) ^ 1 << bit])))
    content: BuiltDump | bytes = damaged
    if data.draw(st.integers(0, 3)) == 0:
        hole = data.draw(st.integers(heap.truth.lfh[0].user_blocks, blocks[-1].entry)) & -8
        content = without_memory(damaged, (hole, hole + data.draw(st.sampled_from([8, 0x100, 0x1000]))))
    with open_built(content) as snapshot:
        by_arrays = everything(walk_by("arrays", snapshot))
        assert everything(walk_by("plain", snapshot)) == by_arrays
        assert everything(walk_by("compiled", snapshot)) == by_arrays


def test_one_damaged_subsegment_leaves_the_others_to_the_loop(open_built, monkeypatch):
    """And its own blocks come out as by the long way alone, in their place."""
    dump, heap = built(Generation("x64", 19041))
    entry = heap.truth.lfh[2].blocks[3].entry
    taken = list[int]()

    def counting(context: Any, window: Any, subsegments: Any) -> None:
        taken.extend(one.place.user_blocks for one in subsegments)
        lfh_blocks.add_lfh_blocks(context, window, subsegments)

    with open_built(poke(dump, (entry + 8, b"AAAA"))) as snapshot:
        by_arrays = everything(walk_by("arrays", snapshot))
        monkeypatch.setattr(lfh_subsegments, "add_lfh_blocks", counting)
        assert everything(walk_by("compiled", snapshot)) == by_arrays
        assert taken == [heap.truth.lfh[2].user_blocks]
