"""The walk in windows and threads, compiled or not, damaged or hostile: the same blocks, and no block lost beside damage."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump import kernels
from heapdump.blocks import columns as block_columns
from heapdump.heaps.check import check_heaps
from heapdump.heaps.nt import traces, windows, work
from heapdump.heaps.nt import walk as nt_walk
from heapdump.heaps.walk import walk_heaps
from heapdump.kernels import compiler
from heapdump.snapshot import Snapshot
from heapdump.spans import Span
from heapdump.trust import Trust
from tests.builders import NtHeapBuilder
from tests.heaps.nt.plans import Generation, process_of
from tests.patching import poke, word

TEN, SEVEN, XP = Generation("x64", 19041), Generation("x86", 7601), Generation("x86", 2600)
COLUMNS = ("entry", "size8", "unused", "header8", "heap", "tags")


def columns(snapshot: Snapshot, threads: int = 1) -> list[list[int]]:
    table = walk_heaps(snapshot.process, snapshot.heaps, lambda done, total: None, threads).table
    return [getattr(table, name).tolist() for name in COLUMNS]


def exact_blocks(snapshot: Snapshot) -> list[tuple[int, int]]:
    """Entries and their bytes, without those that are guessed: for that the headers around them must lie in one window."""
    table = walk_heaps(snapshot.process, snapshot.heaps, lambda done, total: None, 1).table
    return [
        (block.entry, block.entry_size)
        for block in table.blocks(np.arange(len(table)))
        if block.trust is not Trust.GUESS
    ]


def heap_of_sizes(generation: Generation, sizes: list[int], segments: int = 1) -> NtHeapBuilder:
    heap = NtHeapBuilder(arch=generation.arch, build=generation.build, base=generation.base, seed=9, reserve=0x100000)
    for segment in range(segments):
        if segment:
            heap.segment(generation.base + segment * 0x200000, 0x100000)
        for size in sizes:
            heap.busy(size)
    return heap


@pytest.mark.property
@pytest.mark.parametrize("generation", [TEN, SEVEN, XP], ids=str)
@given(
    sizes=st.lists(st.integers(0, 20_000), min_size=20, max_size=40), window=st.sampled_from([0x2000, 0x10000]),
    damaged=st.lists(st.tuples(st.integers(0, 39), st.binary(min_size=8, max_size=8)), max_size=3),
)  # fmt: skip
def test_small_windows_find_the_same_blocks(generation, sizes, window, damaged, open_built, tmp_path_factory):
    built = heap_of_sizes(generation, sizes).build()
    word_offset = 8 if generation.arch == "x64" else 0
    changes = [(built.truth.busy[i % len(sizes)].entry + word_offset, data) for i, data in damaged]
    with open_built(poke(process_of(generation, built).build(), *changes)) as snapshot:
        complete = exact_blocks(snapshot)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(windows, "WINDOW_BYTES", window)
            assert exact_blocks(snapshot) == complete


@pytest.mark.property
@pytest.mark.parametrize("generation", [TEN, SEVEN], ids=str)
@given(damaged=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 7), st.integers(0, 255)), max_size=6))
def test_compiled_and_plain_walks_agree_on_damage(generation, damaged, open_built):
    built = heap_of_sizes(generation, [10 + 7 * i for i in range(60)]).build()
    word_offset = 8 if generation.arch == "x64" else 0
    changes = [(built.truth.busy[i].entry + word_offset + at, bytes([value])) for i, at, value in damaged]
    with open_built(poke(process_of(generation, built).build(), *changes)) as snapshot:
        plain = walk_heaps(snapshot.process, snapshot.heaps, lambda done, total: None)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "WORTH_COMPILING", 0)
            quick = walk_heaps(snapshot.process, snapshot.heaps, lambda done, total: None)
        for name in COLUMNS:
            assert getattr(plain.table, name).tolist() == getattr(quick.table, name).tolist()
        assert (plain.counts, plain.findings, plain.gaps) == (quick.counts, quick.findings, quick.gaps)


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("generation", [TEN, XP], ids=str)
def test_threads_find_the_same_blocks(generation, threads, open_built, monkeypatch):
    built = heap_of_sizes(generation, [100 + 13 * i for i in range(90)], segments=6).build()
    with open_built(process_of(generation, built)) as snapshot:
        complete = columns(snapshot)
        monkeypatch.setattr(work, "_SHARE_BYTES", 0x40000)
        assert columns(snapshot, threads) == complete
        assert len(complete[0]) > 500


@pytest.mark.parametrize("threads", [2, 8])
def test_columns_may_move_while_threads_write_to_them(threads, open_built, monkeypatch):
    """They grow at each share: the rows of the ones before must have arrived."""
    built = heap_of_sizes(TEN, [100 + 13 * i for i in range(90)], segments=9).build()
    with open_built(process_of(TEN, built)) as snapshot:
        complete = columns(snapshot)
        monkeypatch.setattr(work, "_SHARE_BYTES", 0x10000)
        monkeypatch.setattr(block_columns, "_MORE", 1)
        monkeypatch.setattr(block_columns, "_MOST_GROWTH", 1)
        assert columns(snapshot, threads) == complete


def test_rows_of_heaps_over_each_other_are_put_in_order(open_built, monkeypatch):
    """Shares that come in any order stand for those of damaged heaps."""
    built = heap_of_sizes(TEN, [100 + 13 * i for i in range(90)], segments=6).build()
    with open_built(process_of(TEN, built)) as snapshot:
        complete = columns(snapshot)
        monkeypatch.setattr(work, "_SHARE_BYTES", 0x40000)
        monkeypatch.setattr(nt_walk, "cut", lambda heaps: work.cut(heaps)[::-1])
        assert columns(snapshot, 2) == complete


def test_ctrl_c_ends_every_thread(open_built, monkeypatch):
    built = heap_of_sizes(TEN, [5000] * 90, segments=6).build()
    monkeypatch.setattr(work, "_SHARE_BYTES", 0x40000)

    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with open_built(process_of(TEN, built)) as snapshot, pytest.raises(KeyboardInterrupt):
        walk_heaps(snapshot.process, snapshot.heaps, interrupted, 3)


def test_a_last_flag_in_mid_run_is_damage_and_costs_no_block_behind_it(open_built):
    built = heap_of_sizes(XP, [40] * 60).build()
    victim = built.truth.busy[20]
    with open_built(poke(process_of(XP, built).build(), (victim.entry + 5, b"\x11"))) as snapshot:
        found = set(snapshot.walk.table.entry.tolist())
        missing = [block.entry for block in built.truth.busy if block.entry not in found]
        assert missing == []
        assert [finding.kind for finding in snapshot.walk.findings] == ["ucr"]
        assert snapshot.walk.gaps


@pytest.mark.parametrize("pages", [0x8000000, 0x10000000, 0xFFFFFFFF])
@pytest.mark.parametrize("generation", [TEN, Generation("x64", 3790), SEVEN, XP], ids=str)
def test_a_segment_of_absurd_size_costs_no_memory_of_its_size(generation, pages, open_built):
    built = heap_of_sizes(generation, [40] * 9).build()
    truth = built.truth
    page_count = struct.pack("<I", (truth.segments[0][1] - truth.segments[0][0]) // 0x1000)
    start = truth.address
    data = process_of(generation, built).build()
    memory = dict(built.memory)[start]
    places = [i for i in range(0x10, 0x700, 4) if memory[i : i + 4] == page_count]
    with open_built(poke(data, *((start + place, struct.pack("<I", pages)) for place in places[:1]))) as snapshot:
        assert len(snapshot.walk.table) < 100


def test_an_uncommitted_range_off_its_pages_breaks_the_list(open_built):
    heap = NtHeapBuilder(arch="x86", build=2600, base=XP.base)
    heap.busy(100)
    heap.uncommitted(0x3000)
    heap.busy(200)
    built = heap.build()
    memory = dict(built.memory)[XP.base]
    hole = built.truth.uncommitted[0]
    at = memory.index(struct.pack("<II", hole[0], hole[1] - hole[0]))
    with open_built(poke(process_of(XP, built).build(), (XP.base + at, word(hole[0] + 3, 4)))) as snapshot:
        assert [finding.kind for finding in snapshot.heaps[0].findings] == ["ucr"]
        assert len(snapshot.walk.table) > 0


def test_a_large_block_with_a_long_prefix_is_damaged(open_built):
    heap = NtHeapBuilder(base=TEN.base)
    heap.virtual(0x30000000000, 0x100000)
    built = heap.build()
    entry = 0x30000000000 + 0x30
    with open_built(poke(process_of(TEN, built).build(), (entry + 14, b"\xc8"))) as snapshot:
        (block,) = (b for b in snapshot.walk.table.blocks(np.arange(len(snapshot.walk.table))) if b.entry == entry)
        assert block.address == entry + 16
        assert any("damaged" in gap for gap in snapshot.walk.gaps)


def test_a_damaged_numba_cache_is_compiled_anew(tmp_path: Path, monkeypatch):
    pytest.importorskip("numba")
    calls = []

    def njit(**options):
        def translate(function):
            def run(*arguments):
                calls.append(options)
                if options.get("cache"):
                    raise EOFError("Ran out of input")
                return function(*arguments)

            return run

        return translate

    quick = compiler.Dispatcher(lambda a, b: a + b, njit)
    assert [quick(1, 2), quick(3, 4)] == [3, 7]
    assert [bool(options.get("cache")) for options in calls] == [True, False, False]


def test_damage_all_over_keeps_bounded_words(open_built, monkeypatch):
    monkeypatch.setattr("heapdump.memory.limits.MAX_GAPS", 5)
    monkeypatch.setattr("heapdump.memory.limits.MAX_FINDINGS", 4)
    built = heap_of_sizes(TEN, [40] * 90).build()
    changes = [(block.entry + 8, b"AAAAAAAA") for block in built.truth.busy[2:80:4]]
    with open_built(poke(process_of(TEN, built).build(), *changes)) as snapshot:
        assert len(snapshot.walk.findings) == 4
        assert len(snapshot.walk.gaps) <= 5 + 3
        assert any("only the first 5 lines about its damaged places" in gap for gap in snapshot.walk.gaps)


def test_a_commit_size_beyond_the_committed_memory_is_damage_and_not_counted(open_built):
    heap = NtHeapBuilder(base=TEN.base)
    heap.busy(8)
    heap.virtual(0x30000000000, 0x80000, reserve=0x4000000)
    built = heap.build()
    commit = built.truth.large[0].commit_bytes
    with open_built(poke(process_of(TEN, built).build(), (0x30000000000 + 0x20, word(0x3000000)))) as snapshot:
        (block,) = snapshot.heaps[0].large_blocks or []
        assert block.commit_bytes == commit
        (finding,) = snapshot.heaps[0].findings
        assert (finding.kind, finding.address, finding.found) == ("virtual_list", 0x30000000020, "0x3000000")
        assert any("the memory map" in note for note in snapshot.heaps[0].notes)


def test_a_segment_whose_terabytes_are_not_in_the_dump_is_neither_walked_nor_checked(open_built, monkeypatch):
    """A damaged end of a segment: its windows would be hundreds of thousands."""
    built = heap_of_sizes(TEN, [40] * 90).build()
    read: list[int] = []

    def counted(*arguments):
        for window in windows.windows(*arguments):
            read.append(window.walked_bytes)
            assert len(read) < 100
            yield window

    for module in ("back_end", "entry_check", "traces"):
        monkeypatch.setattr(f"heapdump.heaps.nt.{module}.windows", counted)
    with open_built(process_of(TEN, built).build()) as snapshot:
        (heap,) = snapshot.heaps
        far = replace(heap.segments[0], span=Span(1 << 40, 1 << 42), uncommitted=())
        heaps = [replace(heap, segments=(*heap.segments, far))]
        walk = walk_heaps(snapshot.process, heaps, lambda done, total: None)
        assert any("most of its memory" in gap for gap in walk.gaps)
        assert {finding.kind for finding in check_heaps(snapshot.process, heaps, walk).findings} == {
            "segment"
        }  # counted: 1
        assert len(walk.table) == len(snapshot.walk.table)
        traces._sweep(snapshot.view_of(heap), heaps[0], walk.table)
    assert sum(read) < 1 << 24
