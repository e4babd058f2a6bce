"""The pointer graph and who can be reached, of random graphs laid out by the builders, against set arithmetic."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from heapdump import kernels
from heapdump.analyses.graph import unreachable
from heapdump.analyses.graph.node_places import ArrayPlaces, RowPlaces
from heapdump.analyses.graph.pointer_graph import PointerGraph, columns_of, from_columns, referrers_of
from heapdump.analyses.graph.pointer_map import pointer_map
from heapdump.analyses.graph.program_blocks import (
    in_arrays,
    program_blocks,
    rows_again,
    size_again,
    start_again,
)
from heapdump.analyses.graph.sweep import Sources, Sweeper
from heapdump.analyses.graph.unreachable import Reach, classify
from heapdump.blocks.crt_blocks import CrtBlocks
from heapdump.blocks.table import BlockTable
from heapdump.kernels.pointer_map import mark, thin
from heapdump.kernels.row import BUSY
from heapdump.memory.mapped import MappedMemory
from heapdump.spans import Span
from tests.analyses.graph.plans import Laid, Plan, expected, lay, plans

pytestmark = pytest.mark.property
CYCLE = Plan("x64", [10, 20, 30, 40], [(0, 1, "start"), (1, 0, "start"), (1, 2, "start"), (3, 3, "start")], [])
INSIDE = Plan("x64", [20, 20, 20, 20], [(0, 1, "start"), (1, 2, "inside"), (2, 3, "inside")], [("module", 0, "start")])
FIRST_INSIDE = Plan("x64", [20, 20, 20], [(0, 1, "inside"), (0, 2, "start"), (2, 1, "start")], [("module", 0, "start")])


def numbers(laid: Laid, graph: PointerGraph) -> dict[int, int]:
    """Node → number of the plan's block; blocks of the heaps' own are in none."""
    by_address = {user: i for i, user in enumerate(laid.users)}
    return {node: by_address[start] for node, start in enumerate(graph.start.tolist()) if start in by_address}


@pytest.mark.parametrize("unaligned", [False, True])
@settings(max_examples=40)
@given(plan=plans())
@example(plan=CYCLE)
@example(plan=INSIDE)
@example(plan=FIRST_INSIDE)
def test_edges_and_reach_are_those_of_the_plan(open_built, plan, unaligned):
    laid = lay(plan)
    truth = expected(laid, unaligned=unaligned)
    with open_built(laid.built) as snapshot:
        graph = snapshot.sweep(unaligned=unaligned)
        number = numbers(laid, graph)
        assert sorted(number.values()) == list(range(len(laid.users)))
        assert [graph.size[node] for node in number] == [laid.sizes[i] for i in number.values()]
        found = set()
        for node, i in number.items():
            for target in graph.edges.targets[graph.first[node] : graph.first[node + 1]].tolist():
                found.add((i, number[target if target >= 0 else -1 - target], target >= 0))
        assert found == truth.edges
        for as_lsan in (False, True):
            reached = classify(graph, as_lsan=as_lsan)
            by_reach = {
                kind: {number[node] for node in reached.nodes(kind).tolist() if node in number} for kind in Reach
            }
            assert by_reach[Reach.REACHABLE] == truth.reachable
            assert by_reach[Reach.POSSIBLE] == truth.possible
            assert {frozenset(number[node] for node in members.tolist()) for members in reached.cycles} == truth.cycles
            firsts = set() if as_lsan else {number[int(members[0])] for members in reached.cycles}
            assert by_reach[Reach.DIRECT] == truth.direct | firsts
            assert sum(map(len, by_reach.values())) == len(laid.users)
        referrers = referrers_of(graph)
        first, sources = referrers.first, referrers.sources
        back = {
            (number[s if s >= 0 else -1 - s], i, s >= 0)
            for n, i in number.items()
            for s in sources[first[n] : first[n + 1]].tolist()
        }
        assert back == truth.edges
        assert graph.roots.missing == () and graph.missing_bytes == 0


@pytest.mark.parametrize("is_compiled", [False, True])
@given(plan=plans())
@example(plan=CYCLE)
@example(plan=INSIDE)
@example(plan=FIRST_INSIDE)
def test_wide_graphs_are_flooded_in_the_order_of_their_nodes(open_built, plan, is_compiled):
    if is_compiled and kernels.compiled(mark) is None:
        pytest.skip("numba is not installed")
    with pytest.MonkeyPatch.context() as patch, open_built(lay(plan).built) as snapshot:
        graph = snapshot.graph
        state = classify(graph).state.tolist()
        patch.setattr(
            kernels, "compiled_if_worth", lambda function, blocks: kernels.compiled(function) if is_compiled else None
        )
        for least in (0, 1):
            patch.setattr(unreachable, "_LEAST_WIDE", least)
            assert classify(graph).state.tolist() == state


@pytest.mark.parametrize("least", [0, 1 << 16])
@given(plan=plans(most=8, arches=("x64", "x86")))
def test_what_ignored_blocks_hold_is_no_leak(open_built, plan, least):
    laid = lay(plan)
    with open_built(laid.built) as snapshot, pytest.MonkeyPatch.context() as patch:
        patch.setattr(unreachable, "_LEAST_WIDE", least)
        graph = snapshot.graph
        before = classify(graph)
        unreached = before.nodes(Reach.DIRECT, Reach.INDIRECT)
        reached = classify(graph, unreached)
        assert len(reached.nodes(Reach.DIRECT, Reach.INDIRECT)) == 0
        assert reached.nodes(Reach.IGNORED).tolist() == unreached.tolist()
        one = classify(graph, unreached[:1])
        assert set(one.nodes(Reach.DIRECT, Reach.INDIRECT).tolist()) <= set(unreached.tolist()) - set(
            unreached[:1].tolist()
        )


BLOCKS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 300_000)), min_size=1, max_size=12)


@given(steps=BLOCKS, shift=st.integers(0, 4), base=st.sampled_from([0x10000, 0xFFFF0000, 0x7FFFFFF00000]))
def test_the_map_finds_the_block_of_any_address(steps, shift, base):
    """Large blocks fill whole stretches of 64 KiB; starts lie on any granule; both ways to look up agree."""
    start, size, at = [], [], base
    for gap, length in steps:
        at += gap << shift
        start.append(at)
        size.append(length)
        at = -(-(at + max(length, 1)) // (1 << shift)) << shift
    blocks = pointer_map(ArrayPlaces(np.array(start), np.array(size)))
    edges = [a + d for a, s in zip(start, size, strict=True) for d in (-1, 0, 1, s // 2, s - 1, s, s + 1) if a + d > 0]
    edges += [base - 65536, base + (1 << 33), (1 << 64) - 1]
    wanted = np.array(edges, np.uint64)
    truth = [next((i for i, a in enumerate(start) if a <= v < a + max(size[i], 1)), -1) for v in edges]
    assert blocks.places.find(wanted).tolist() == truth
    assert sweep_words(blocks, wanted) == [(i, v == start[i]) for v, i in zip(edges, truth, strict=True) if i >= 0]


class Memory:
    """Mapped memory that holds some words at address 0x1000."""

    def __init__(self, words: np.ndarray) -> None:
        self.words = words
        self.starts, self.ends = np.array([0x1000], np.uint64), np.array([0x1000 + 8 * len(words)], np.uint64)
        self.file_offsets = np.zeros(1, np.int64)

    def file_words(self, phase: int, size: int) -> np.ndarray:
        assert (phase, size) == (0, 8)
        return self.words.view(np.int64)

    def expect(self, span: object) -> None:
        """Nothing to read ahead."""

    def forget(self, span: object) -> None:
        pass


def memory(words: np.ndarray) -> MappedMemory:
    """These words at address 0x1000, as a sweep reads them."""
    return cast("MappedMemory", Memory(words))


def sweep_words(blocks, words: np.ndarray) -> list[tuple[int, bool]]:
    """(block, to its start) of every word that the kernel finds to be a pointer."""
    edges = Sweeper(memory(words), blocks).edges(
        Sources(ArrayPlaces(np.array([0x1000]), np.array([8 * len(words)])), 8)
    )
    assert edges.degree.tolist() == [len(edges.targets)]
    return [(t if t >= 0 else -1 - t, t >= 0) for t in edges.targets.tolist()]


def test_blocks_with_impossible_addresses_are_left_out_and_those_over_others_cut():
    """Damaged heaps lie over each other: rows that go back are put in order first."""
    entry = np.array([0x1000, 0x1000, 0x1020, 0x900, 0x2000, 0xFFFF800000000000], np.uint64)
    size8 = np.array([8, 8, 2, 2, 2, 2], np.uint32)
    zero, tags = np.zeros(6, np.uint32), np.full(6, BUSY, np.uint16)
    table = BlockTable(entry, size8, zero, zero.astype(np.uint8), zero.astype(np.uint16), tags)
    found = program_blocks(table, lambda rows: CrtBlocks.none())
    assert isinstance(found.places, ArrayPlaces)
    assert [hex(a) for a in found.places.start.tolist()] == ["0x900", "0x1000", "0x1020", "0x2000"]
    assert (found.rows.tolist(), found.places.size.tolist()) == ([3, 0, 2, 4], [16, 32, 16, 16])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(0, 1), st.booleans()), max_size=30))
def test_places_of_rows_are_those_of_arrays(blocks):
    """Steps to the next entry, sizes that may reach over it, headers, free blocks between."""
    step8, size8, header8, is_busy = (
        np.array(column, np.int64) for column in zip(*blocks, (1, 2, 0, True), strict=True)
    )
    table = BlockTable(
        (0xFE00 + 8 * np.cumsum(step8)).astype(np.uint64), (size8 + header8).astype(np.uint32),
        (8 * header8 + (size8 > 3)).astype(np.uint32), header8.astype(np.uint8), np.zeros(len(size8), np.uint16),
        np.where(is_busy, BUSY, 0).astype(np.uint16),
    )  # fmt: skip
    order = np.argsort(table.address, kind="stable")
    if (order != np.arange(len(order))).any():
        return
    found, (rows, arrays) = program_blocks(table, lambda rows: CrtBlocks.none()), in_arrays(table)
    assert isinstance(found.places, RowPlaces)
    assert (found.rows.tolist(), rows_again(table, len(rows)).tolist()) == (rows.tolist(), rows.tolist())
    assert (start_again(table, rows).tolist(), size_again(table, rows).tolist()) == (
        arrays.start.tolist(), arrays.size.tolist(),
    )  # fmt: skip
    places, n = found.places, len(rows)
    for some in (np.arange(n)[::-1], np.arange(0, n, 6), np.arange(0)):
        assert places.starts(some).tolist() == arrays.start[some].tolist()
        assert places.sizes(some).tolist() == arrays.size[some].tolist()
    assert places.sizes(slice(1, 5)).tolist() == arrays.size[1:5].tolist()
    for low, high in ((0, n), (1, 5), (n - 1, n)):
        assert [a.tolist() for a in places.part(low, high)] == [a.tolist() for a in arrays.part(low, high)]
    assert places.total_bytes == arrays.total_bytes
    own, other = pointer_map(places), pointer_map(arrays)
    assert (own.low, own.bits, own.shift) == (other.low, other.bits, other.shift)
    for name in ("tops", "middles", "cells"):
        assert np.array_equal(getattr(own, name), getattr(other, name))
    words = np.arange(int(arrays.start[0]) - 9, int(arrays.start[-1] + arrays.size[-1]) + 9).astype(np.uint64)
    assert places.find(words).tolist() == arrays.find(words).tolist()
    assert sweep_words(own, words) == sweep_words(other, words)


def test_a_graph_gives_up_the_places_of_its_nodes_and_makes_them_again(open_built):
    with open_built(lay(CYCLE).built) as snapshot:
        graph = snapshot.sweep()
        assert not {"start", "size", "rows"} & set(vars(graph))
        rows, arrays = in_arrays(snapshot.walk.table)
        assert np.array_equal(rows, graph.rows)
        assert [graph.span(node) for node in range(len(graph))] == [
            Span(start, start + size) for start, size in zip(arrays.start.tolist(), arrays.size.tolist(), strict=True)
        ]
        assert graph.find(arrays.start.view(np.uint64)).tolist() == list(range(len(graph)))
        assert not {"start", "size"} & set(vars(graph))
        assert np.array_equal(arrays.start, graph.start)
        assert np.array_equal(arrays.size, graph.size)


def test_a_graph_is_stored_without_what_follows_from_the_blocks(open_built):
    with open_built(lay(CYCLE).built) as snapshot:
        graph, table = snapshot.sweep(), snapshot.walk.table
        columns = columns_of(graph)
        assert not {"rows", "start", "size"} & set(columns)
        again = from_columns(columns, graph.roots, table)
        assert again is not None
        for name in ("rows", "start", "size", "widths"):
            assert getattr(again, name).tolist() == getattr(graph, name).tolist()
        assert again.edges.targets.tolist() == graph.edges.targets.tolist()
        with pytest.raises(ValueError, match="blocks do not fit"):
            from_columns(columns, graph.roots, table.part(0, 1))


def test_pointers_are_found_however_little_room_there_is(monkeypatch):
    """The kernel stops where its array is full and goes on there; parts are swept by several threads."""
    monkeypatch.setattr("heapdump.analyses.graph.sweep._BUFFER_WORDS", 3)
    monkeypatch.setattr("heapdump.analyses.graph.sweep._JOB_BYTES", 64)
    random = np.random.default_rng(1)
    blocks = pointer_map(ArrayPlaces(np.arange(0x100000, 0x100000 + 64 * 50, 64), np.full(50, 48)))
    words = random.integers(0x100000, 0x100000 + 64 * 50, 400).astype(np.uint64)
    start = np.arange(0x1000, 0x1000 + 3200, 40)
    edges = Sweeper(memory(words), blocks, threads=3).edges(Sources(ArrayPlaces(start, np.full(len(start), 40)), 8))
    truth = [(blocks.places.find(words[5 * i : 5 * i + 5]), words[5 * i : 5 * i + 5]) for i in range(len(start))]
    assert edges.degree.tolist() == [int((found >= 0).sum()) for found, _ in truth]
    flat = [
        int(b) if int(v) == int(0x100000 + 64 * b) else -1 - int(b)
        for found, values in truth
        for b, v in zip(found, values, strict=True)
        if b >= 0
    ]
    assert edges.targets.tolist() == flat


@given(owners=st.lists(st.integers(0, 2), max_size=80), most=st.integers(1, 9))
def test_some_rows_of_each_heap_are_taken_at_equal_distances(owners, most):
    heap, rows = np.array([*owners, 0], np.uint16), np.arange(len(owners), dtype=np.int32)
    counts, out = np.zeros(3, np.int64), np.empty(len(rows), np.int64)
    places = out[: thin(rows, heap, most, counts, np.zeros(3, np.int64), out)].tolist()
    assert counts.tolist() == [owners.count(i) for i in range(3)]
    for i in range(3):
        own = [place for place, owner in enumerate(owners) if owner == i]
        assert [place for place in places if owners[place] == i] == own[:: max(1, len(own) // most)]
    assert places == sorted(places)


def test_words_of_any_value_are_no_pointers_or_those_they_are():
    """Blocks at both ends of what there can be; the kernel looks at words from the first one on, up to twice as far away."""
    start, size = np.array([0x10, 0x1000, 0xFFFFFFFF0000]), np.array([16, 0, 0xFFF0])
    blocks = pointer_map(ArrayPlaces(start, size))
    values = [
        0,
        0xF,
        0x10,
        0x1F,
        0x20,
        0x1000,
        0x1001,
        0xFFFFFFFEFFFF,
        0xFFFFFFFF0000,
        0xFFFFFFFFFFEF,
        0xFFFFFFFFFFF0,
        1 << 48,
        0x1000000000010,
    ]
    values += [(2 << 48) - 1, 2 << 48, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
    edges = Sweeper(memory(np.array(values, np.uint64)), blocks).edges(
        Sources(ArrayPlaces(np.array([0x1000]), np.array([8 * len(values)])), 8)
    )
    assert edges.targets.tolist() == [0, -1, 1, 2, -3]


@given(plan=plans(most=10, arches=("x64",)))
def test_compiled_kernels_say_the_same(open_built, plan):
    if kernels.compiled(mark) is None:
        pytest.skip("numba is not installed")
    laid = lay(plan)
    with pytest.MonkeyPatch.context() as patch, open_built(laid.built) as snapshot:
        patch.setattr(kernels, "compiled_if_worth", lambda function, blocks: None)
        plain = snapshot.sweep()
        state = classify(plain).state
        patch.setattr(kernels, "compiled_if_worth", lambda function, blocks: kernels.compiled(function))
        quick = snapshot.sweep()
        assert quick.edges.targets.tolist() == plain.edges.targets.tolist()
        assert quick.edges.degree.tolist() == plain.edges.degree.tolist()
        assert classify(quick).state.tolist() == state.tolist()
        assert [a.tolist() for a in vars(referrers_of(quick)).values()] == [
            a.tolist() for a in vars(referrers_of(plain)).values()
        ]
