"""The block walk: random heaps of every generation equal the builder's truth; damage costs only what it hits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import heapdump
from heapdump import kernels
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.walk import Walk
from heapdump.heaps.nt import back_end, chain
from heapdump.kernels import nt_chain
from tests.builders import BuiltHeap, NtHeapBuilder, ProcessBuilder

GENERATIONS = [("x86", 2600), ("x64", 3790), ("x64", 6002), ("x86", 7601), ("x64", 7601), ("x86", 9600), ("x64", 9600),
               ("x64", 14393), ("x86", 19041), ("x64", 19041), ("x64", 26100)]  # fmt: skip
SIZES = st.integers(0, 6000)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("busy"), SIZES),
        st.tuples(st.just("free"), st.integers(3, 300)),
        st.tuples(st.just("virtual"), st.integers(600_000, 3_000_000)),
    ),
    max_size=60,
)
Write = Callable[[bytes], Path]


def build(arch: Literal["x64", "x86"], build_number: int, actions: list[tuple[str, int]], seed: int = 5) -> BuiltHeap:
    base, large = (0x20000000000, 0x30000000000) if arch == "x64" else (0x1000000, 0x8000000)
    heap = NtHeapBuilder(arch=arch, build=build_number, base=base, seed=seed)
    heap.busy(24)
    for number, (what, size) in enumerate(actions):
        if what == "busy":
            heap.busy(size, bytes([number % 255 + 1]) * min(size, 32))
        elif what == "free":
            heap.free(size)
        elif number < 16:
            heap.virtual(large + number * 0x400000, size)
    return heap.build()


def opened(built: BuiltHeap, tmp_path: Path, damage: dict[int, bytes] | None = None) -> heapdump.Snapshot:
    process = ProcessBuilder(arch=built.truth.arch, build=built.truth.build).heap(built)
    data = bytearray(process.build().data)
    path = tmp_path / "x.dmp"
    path.write_bytes(data)
    if damage:
        with heapdump.open_dump(path) as snapshot:
            space = snapshot.process.space
            for address, new in damage.items():
                old = space.read(address, len(new) + 16)
                at = data.find(old)
                data[at : at + len(new)] = new
        path.write_bytes(data)
    return heapdump.open_dump(path)


def busy(snapshot: heapdump.Snapshot) -> set[tuple[int, int, int]]:
    table = snapshot.walk.table
    rows = np.flatnonzero(table.is_busy & ~table.is_internal)
    return {(b.address, b.size, b.entry_size if b.kind is not BlockKind.VIRTUAL else 0) for b in table.blocks(rows)}


def wanted(built: BuiltHeap) -> set[tuple[int, int, int]]:
    small = {(b.user, b.size, b.entry_size) for b in built.truth.busy}
    return small | {(b.user, b.requested, 0) for b in built.truth.large}


@pytest.mark.property
@pytest.mark.parametrize(("arch", "number"), GENERATIONS)
@given(actions=ACTIONS)
def test_a_random_heap_walks_to_its_truth(
    arch: Literal["x64", "x86"], number: int, actions: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    built = build(arch, number, actions)
    with opened(built, tmp_path_factory.mktemp("blocks")) as snapshot:
        assert busy(snapshot) == wanted(built)
        table = snapshot.walk.table
        free = {(b.entry, b.entry_size) for b in table.blocks(np.flatnonzero(~table.is_busy))}
        assert free == {(f.entry, f.entry_size) for f in built.truth.free}
        count = snapshot.walk.counts[0]
        assert (count.integrity, snapshot.walk.findings, snapshot.walk.gaps) == (1.0, (), ())
        assert count.free_bytes == built.truth.free_bytes
        assert count.busy_bytes == sum(size for _, size, _ in wanted(built))


@pytest.mark.parametrize(("arch", "number"), [("x64", 19041), ("x86", 19041), ("x64", 7601), ("x86", 2600)])
def test_a_damaged_header_costs_its_block_and_no_other(
    arch: Literal["x64", "x86"], number: int, tmp_path: Path
) -> None:
    built = build(arch, number, [("busy", 40 + 8 * i) for i in range(50)])
    victim = built.truth.busy[20]
    header = victim.entry + (8 if arch == "x64" else 0)
    with opened(built, tmp_path, {header: b"AAAAAAAA"}) as snapshot:
        guessed = {(victim.user, victim.entry_size - 8, victim.entry_size)}
        assert busy(snapshot) == wanted(built) - {(victim.user, victim.size, victim.entry_size)} | guessed
        (finding,) = snapshot.walk.findings
        assert finding.kind == "entry_header"
        assert header <= finding.address < finding.address + finding.length <= header + 8
        assert snapshot.walk.gaps
        assert (snapshot.walk.counts[0].integrity or 1) < 1
        table = snapshot.walk.table
        behind = [b for b in table.blocks(np.arange(len(table))) if b.entry > victim.entry]
        assert {b.trust.value for b in behind} == {"derived"}
        assert [b.trust.value for b in table.blocks(np.arange(len(table))) if b.entry == victim.entry] == ["guess"]


@pytest.mark.parametrize(("arch", "number"), [("x64", 19041), ("x86", 9600), ("x86", 2600)])
@pytest.mark.parametrize("with_links", [False, True])
def test_what_a_free_list_holds_is_free_whatever_its_header_says(
    arch: Literal["x64", "x86"], number: int, *, with_links: bool, tmp_path: Path
) -> None:
    """With its own links destroyed as well, the entries around it on the list still lead to it."""
    built = build(arch, number, [("busy", 40), ("free", 9), ("busy", 48), ("free", 12), ("busy", 56), ("free", 14)])
    victim = built.truth.free[1]
    header = victim.entry + (8 if arch == "x64" else 0)
    length = 8 + (16 if arch == "x64" else 8) * with_links
    with opened(built, tmp_path, {header: b"A" * length}) as snapshot:
        table = snapshot.walk.table
        found = [
            (b.state, b.entry_size, b.trust.value)
            for b in table.blocks(np.arange(len(table)))
            if b.entry == victim.entry
        ]
        assert found == [("free", victim.entry_size, "guess")]
        assert busy(snapshot) == wanted(built)
        assert "assumed free" in snapshot.walk.gaps[0]


@pytest.mark.hostile
@pytest.mark.parametrize(("arch", "number"), [("x64", 19041), ("x86", 2600)])
@given(places=st.lists(st.tuples(st.integers(0, 0x3FFF), st.integers(0, 255)), min_size=1, max_size=12))
def test_random_damage_never_ends_the_walk_nor_overlaps_blocks(
    arch: Literal["x64", "x86"], number: int, places: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    built = build(arch, number, [("busy", 100 + i) for i in range(80)])
    base, data = built.memory[0]
    broken = bytearray(data)
    for at, value in places:
        broken[at % len(broken)] = value
    folder = tmp_path_factory.mktemp("damage")
    undamaged = ProcessBuilder(arch=built.truth.arch, build=built.truth.build).heap(built).build().data
    (folder / "x.dmp").write_bytes(undamaged.replace(bytes(data), bytes(broken), 1))
    with heapdump.open_dump(folder / "x.dmp") as snapshot:
        table = snapshot.walk.table
        rows = [b for b in table.blocks(np.arange(len(table))) if b.kind is BlockKind.BACKEND]
        assert all(a.end <= b.entry for a, b in pairwise(rows))
    assert base == built.truth.address


def old_heap(arch: Literal["x64", "x86"], number: int) -> BuiltHeap:
    """A heap of XP or Server 2003 with lookaside lists and some blocks, one of them as large as the lists."""
    base = 0x20000000000 if arch == "x64" else 0x1000000
    heap = NtHeapBuilder(arch=arch, build=number, base=base, front_end="lookaside")
    for size in (24, 128 * (0x40 if arch == "x64" else 0x30), 100):
        heap.busy(size)
    return heap.build()


@pytest.mark.parametrize(("arch", "number"), [("x86", 2600), ("x64", 3790)])
def test_the_block_of_the_lookaside_lists_is_the_heaps_own(
    arch: Literal["x64", "x86"], number: int, tmp_path: Path
) -> None:
    built = old_heap(arch, number)
    with opened(built, tmp_path) as snapshot:
        table = snapshot.walk.table
        assert busy(snapshot) == wanted(built)
        assert {b.user for b in built.truth.internal} < {
            b.address for b in table.blocks(np.flatnonzero(table.is_internal))
        }


@pytest.mark.parametrize("has_lists", [True, False])
@pytest.mark.parametrize(("arch", "number", "at"), [("x86", 2600, 0x586), ("x64", 3790, 0xAE2)])
def test_it_stays_the_heaps_own_when_the_low_fragmentation_heap_replaces_the_lists(
    arch: Literal["x64", "x86"], number: int, at: int, has_lists: bool, tmp_path: Path
) -> None:
    """`at`: offset of FrontEndHeapType. Seen on 2600.5512; without lists in it the first block is the program's."""
    built = old_heap(arch, number)
    (lists,), pointer = built.truth.internal, 8 if arch == "x64" else 4
    memory = bytearray(built.memory[0][1])
    memory[at] = 2
    front_end = at - (6 if pointer == 4 else 10)
    memory[front_end : front_end + pointer] = (0x6F000000).to_bytes(pointer, "little")  # not in the dump
    for i in range(128 * (not has_lists)):
        place = lists.user - built.truth.address + i * lists.size // 128 + 2 * pointer
        memory[place : place + 4] = bytes(4)
    changed = replace(built, memory=((built.truth.address, bytes(memory)), *built.memory[1:]))
    with opened(changed, tmp_path) as snapshot:
        assert snapshot.heaps[0].front_end == "lfh"
        first = set() if has_lists else {(lists.user, lists.size, lists.entry_size)}
        assert busy(snapshot) == wanted(built) | first


def both_ways(built: BuiltHeap, tmp_path: Path, damage: dict[int, bytes] | None = None) -> tuple[Walk, Walk]:
    """What the plain and the compiled walk make of a heap."""
    with pytest.MonkeyPatch.context() as patch:
        with opened(built, tmp_path, damage) as snapshot:
            plain = snapshot.walk
            assert len(plain.table)
        patch.setattr(kernels, "WORTH_COMPILING", 0)
        with opened(built, tmp_path, damage) as snapshot:
            quick = snapshot.walk
            assert len(quick.table)
    return plain, quick


def assert_same(plain: Walk, quick: Walk) -> None:
    assert [column.tolist() for column in plain.table.columns()] == [
        column.tolist() for column in quick.table.columns()
    ]
    assert (plain.counts, plain.findings, plain.gaps) == (quick.counts, quick.findings, quick.gaps)


@pytest.mark.parametrize(("arch", "number"), [("x64", 19041), ("x86", 7601), ("x86", 2600)])
def test_the_compiled_walk_is_the_plain_one(arch: Literal["x64", "x86"], number: int, tmp_path: Path) -> None:
    assert_same(*both_ways(build(arch, number, [("busy", 10 + 3 * i) for i in range(200)] + [("free", 40)]), tmp_path))


@pytest.mark.parametrize(("arch", "number"), [("x64", 19041), ("x86", 7601), ("x64", 6002)])
def test_an_entry_that_says_too_early_that_it_is_the_last_is_found_by_both_walks(
    arch: Literal["x64", "x86"], number: int, tmp_path: Path
) -> None:
    built = build(arch, number, [("busy", 10 + 3 * i) for i in range(40)])
    last = built.truth.busy[20]
    unused = last.entry + (15 if arch == "x64" else 7)  # this byte is never encoded
    plain, quick = both_ways(built, tmp_path, {unused: b"\3"})
    assert_same(plain, quick)
    assert [(f.kind, f.address) for f in plain.findings] == [("ucr", last.entry + last.entry_size)]
    blocks = list(plain.table.blocks(np.arange(len(plain.table))))
    assert {b.user for b in built.truth.busy} <= {b.address for b in blocks}
    assert {(b.trust.value, b.entry > last.entry) for b in blocks} == {("exact", False), ("derived", True)}


def test_small_dumps_never_load_numba(tmp_path: Path) -> None:
    import subprocess
    import sys

    built = build("x64", 19041, [("busy", 100)])
    opened(built, tmp_path).close()
    code = "import sys; from heapdump.cli import run; run(['heaps', sys.argv[1]]); assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.dmp")], check=True, capture_output=True)


def test_how_many_blocks_there_will_be_is_told_from_the_first_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected: list[int] = []
    monkeypatch.setattr(back_end, "_FIRST_BATCH", 300)
    monkeypatch.setattr(chain, "compiled_if_worth", lambda _, blocks: expected.append(blocks))
    with opened(build("x64", 19041, [("busy", 100)] * 1000), tmp_path) as snapshot:
        total = len(snapshot.walk.table)
    assert expected[0] == 0
    assert 0.9 * total < expected[1] < 1.1 * total


def test_a_few_small_blocks_do_not_stand_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected: list[int] = []
    monkeypatch.setattr(back_end, "_FIRST_BATCH", 20)
    monkeypatch.setattr(chain, "compiled_if_worth", lambda _, blocks: expected.append(blocks))
    with opened(build("x64", 19041, [("busy", 16)] * 120 + [("busy", 6000)] * 100), tmp_path) as snapshot:
        total = len(snapshot.walk.table)
    assert max(expected) < 10 * total


def test_reasons_of_a_stopped_chain_are_distinct() -> None:
    reasons = [nt_chain.END, nt_chain.RUN_END, nt_chain.CHECKSUM, nt_chain.PREVIOUS, nt_chain.SIZE, nt_chain.FULL]
    assert sorted(set(reasons)) == reasons
