"""Many damaged headers in one heap: passed one by one, by the loop in plain Python, and by the compiled one."""

from __future__ import annotations

import random

import numpy as np
import pytest

from heapdump import kernels
from heapdump.cli import run
from heapdump.heaps.nt import back_end, damaged_header, damaged_headers, windows
from heapdump.heaps.walk import walk_heaps
from heapdump.kernels.nt_damage import DamageReach
from heapdump.memory import limits
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.heaps.nt.plans import Generation, process_of
from tests.heaps.nt.test_random_damage import built_heap
from tests.patching import peek, poke

GENERATIONS = [
    Generation("x86", 2600), Generation("x64", 6002), Generation("x86", 7601), Generation("x64", 9600),
    Generation("x86", 19041), Generation("x64", 26100),
]  # fmt: skip
WAYS = ("one by one", "plain", "short calls", "compiled")


def everything(snapshot, way: str):
    """All that a walk finds, by one of the ways."""
    with pytest.MonkeyPatch.context() as patch:
        if way == "one by one":
            patch.setattr(back_end.BackEndWalk, "_damaged_part", lambda *_: None)
        elif way == "short calls":
            patch.setattr(damaged_headers, "_PLAIN", DamageReach(3, 2))
            patch.setattr(damaged_headers, "_MOST_DAMAGE", 3)
        elif way == "compiled":
            pytest.importorskip("numba")
            patch.setattr(kernels, "WORTH_COMPILING", 0)
        walk = walk_heaps(snapshot.process, snapshot.heaps, lambda done, total: None, 1)
    columns = [column.tolist() for column in walk.table.columns()]
    return columns, walk.counts, walk.findings, walk.gaps, walk.facts


def spoiled(dump, heap, draw: random.Random):
    """The dump with damage to a sixth of its entries."""
    truth = heap.truth
    entries = [block.entry for block in (*truth.busy, *truth.free, *truth.internal)]
    granule = 16 if truth.arch == "x64" else 8
    changes = []
    for entry in draw.sample(entries, len(entries) // 6):
        header = entry + granule - 8
        length = draw.choice([1, 2, 4, 7, 8, 8, 8, 24, 40])
        new = draw.choice([b"A" * length, bytes(length), b"\xff" * length, draw.randbytes(length)])
        if draw.random() < 0.2:  # one bit
            place = header + draw.randrange(8)
            new, header = bytes([peek(dump, place, 1) ^ 1 << draw.randrange(8)]), place
        changes.append((header, new))
    return poke(dump, *changes)


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("generation", GENERATIONS, ids=str)
def test_damaged_headers_are_passed_alike_in_every_way(open_built, generation, number):
    heap = built_heap(generation)
    dump = spoiled(process_of(generation, heap).build(), heap, random.Random(f"{generation} {number}"))
    with open_built(dump) as snapshot:
        expected = everything(snapshot, "one by one")
        for way in WAYS[1:]:
            assert everything(snapshot, way) == expected, way


def overrun(blocks: int, every: int, new: bytes = b"AAAAAAAA"):
    """(a dump of one heap of blocks of 96 bytes; the entries that are damaged)."""
    heap = NtHeapBuilder(base=0x28A00000000, reserve=blocks * 96 + 0x20000 & ~0xFFFF)
    first = heap.many(np.full(blocks, 88))
    dump = ProcessBuilder(build=19041).heap(heap.build()).build()
    entries = [first + 96 * i for i in range(every, blocks - 1, every)]
    return poke(dump, *((entry + 8, new) for entry in entries)), entries


@pytest.mark.parametrize("new", [b"AAAAAAAA", bytes(8), b"\xff" * 8], ids=["text", "zeros", "ones"])
def test_each_of_many_damaged_headers_is_a_finding(open_built, new):
    dump, entries = overrun(3_000, 5, new)
    with open_built(dump) as snapshot:
        expected = everything(snapshot, "one by one")
        assert {finding.address & ~0xF for finding in expected[2]} == set(entries)
        assert len(expected[0][0]) >= 3_000
        for way in WAYS[1:]:
            assert everything(snapshot, way) == expected, way


def test_more_damaged_headers_than_a_log_keeps_are_counted_alike(open_built, monkeypatch):
    monkeypatch.setattr(limits, "MAX_FINDINGS", 20)
    monkeypatch.setattr(limits, "MAX_GAPS", 30)
    dump, entries = overrun(1_000, 5)
    with open_built(dump) as snapshot:
        expected = everything(snapshot, "one by one")
        assert len(expected[2]) == 20 < len(entries)
        for way in WAYS[1:]:
            assert everything(snapshot, way) == expected, way


def test_a_damaged_header_on_a_free_list_is_free(open_built):
    heap = NtHeapBuilder(base=0x28A00000000, reserve=0x80000)
    free = []
    for i in range(300):
        heap.busy(88)
        if i % 7 == 3:
            free.append(heap.free(4 + i % 5))
    dump = ProcessBuilder(build=19041).heap(heap.build()).build()
    broken = free[10:30]
    with open_built(poke(dump, *((entry + 8, b"AAAAAAAA") for entry in broken))) as snapshot:
        expected = everything(snapshot, "one by one")
        said = [finding.message for finding in expected[2]]
        assert len(said) == len(broken) and all("assumed free" in message for message in said)
        for way in WAYS[1:]:
            assert everything(snapshot, way) == expected, way


def test_only_the_first_damaged_header_of_a_run_is_passed_alone(open_built, monkeypatch):
    """Up to it the rows are exact."""
    dump, _ = overrun(2_000, 10)
    passed: list[int] = []
    report = damaged_header.report_damage

    def spy(damaged, good):
        passed.append(damaged.granule)
        report(damaged, good)

    monkeypatch.setattr("heapdump.heaps.nt.back_end.report_damage", spy)
    with open_built(dump) as snapshot:
        everything(snapshot, "compiled")
    assert len(passed) == 1


def test_the_mark_of_the_lfh_in_damaged_headers_alone_starts_no_search(open_built, monkeypatch):
    """User blocks begin behind the header of their entry."""
    dump, _ = overrun(2_000, 10, b"\xff" * 8)
    searched: list[int] = []

    def spy(context, window, unplaced, key):
        searched.append(unplaced.span.start)
        return []

    monkeypatch.setattr("heapdump.heaps.nt.lfh_subsegments.unplaced_user_areas", spy)
    with open_built(dump) as snapshot:
        everything(snapshot, "plain")
    assert len(searched) == 1  # the first, which is passed alone


def test_damage_that_the_check_leaves_out_is_counted(open_built, monkeypatch):
    dump, _ = overrun(300, 5)
    with open_built(dump) as snapshot:
        found = len(snapshot.damage.findings) - len(snapshot.walk.findings)
        assert found > 7
    monkeypatch.setattr(limits, "MAX_FINDINGS", 7)
    with open_built(dump) as snapshot:
        assert (len(snapshot.walk.findings), len(snapshot.damage.findings)) == (7, 14)
        assert (
            f"heap 0x28a00000000: only the first 7 of at least {found} damaged places are kept" in snapshot.damage.gaps
        )


@pytest.mark.parametrize("command", ["check", "triage", "summary"])
def test_where_damage_is_left_out_numbers_are_lower_bounds(command, tmp_path, monkeypatch, capsys):
    (tmp_path / "d.dmp").write_bytes(overrun(300, 5)[0].data)
    run([command, str(tmp_path / "d.dmp"), "--no-cache"])
    assert "at least" not in capsys.readouterr().out
    monkeypatch.setattr(limits, "MAX_FINDINGS", 40)
    run([command, str(tmp_path / "d.dmp"), "--no-cache"])
    out = capsys.readouterr().out
    assert {"check": "at least 40 incidents: 40 errors", "triage": "at least 37 more incidents"}.get(
        command, "at least"
    ) in out


@pytest.mark.parametrize("generation", GENERATIONS[1:], ids=str)
@pytest.mark.parametrize("damaged", [1, 3])
def test_damage_at_the_end_of_a_window_loses_no_more_than_elsewhere(open_built, generation, damaged):
    heap = NtHeapBuilder(base=generation.base, reserve=1 << 23, arch=generation.arch, build=generation.build)
    entries = heap.many(np.full(60_000, 88)) + 96 * np.arange(60_000)
    dump = process_of(generation, heap.build()).build()
    place = 8 if generation.arch == "x64" else 0

    def lost(last: int) -> list[int]:
        """Which blocks before and after block `last` have no row, with damage to its header and those before."""
        changes = [(int(entries[last - i]) + place, b"AAAAAAAA") for i in range(damaged)]
        with open_built(poke(dump, *changes)) as snapshot:
            assert snapshot.walk.findings
            return [int(i) - last for i in np.flatnonzero(~np.isin(entries, snapshot.walk.table.entry))]

    last = int(np.searchsorted(entries, generation.base + windows.WINDOW_BYTES)) - 1
    assert lost(last) == lost(1000)
    assert damaged > 1 or not lost(last)
