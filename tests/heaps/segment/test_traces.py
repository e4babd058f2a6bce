"""Allocation stacks of segment heaps: the second question, answered from the index, names the same ones."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import heapdump
from heapdump.blocks.kind import BlockKind, HeapKind
from heapdump.blocks.walk import Walk
from heapdump.heaps import walk
from heapdump.heaps.segment.traces import trace_reader
from tests.builders import ProcessBuilder, SegmentHeapBuilder
from tests.heaps.segment.plans import BASES
from tests.heaps.segment.test_walk import EACH

RECORDS = 0x5000000


def traced_process(generation) -> ProcessBuilder:
    """Large blocks with a stack each; padding, as far as the generation was seen with it."""
    arch, build = generation
    base = BASES[arch]
    heap = SegmentHeapBuilder(arch=arch, build=build, base=base, padding=build < 20348)
    heap.segment(base + 0x400000)
    heap.chunks([20 + 3 * i for i in range(60)])
    for i, size in enumerate((0x80001, 0x90000, 0xA0FF8)):
        heap.large(base + 0x8000000 + i * 0x400000, size, trace=RECORDS + 0x100 * i)
    process = heap.build().add_to(ProcessBuilder(arch=arch, build=build))
    word = "Q" if arch == "x64" else "I"
    records = [struct.pack(f"<{word}II2{word}", 0, 7, 2, 0x66001000 + i, 0x66002000) for i in range(3)]
    process.region(RECORDS, 0x1000)
    return process.memory(RECORDS, b"".join(record.ljust(0x100, b"\0") for record in records).ljust(0x1000, b"\0"))


def large_stacks(path: Path) -> list[int]:
    with heapdump.open_dump(path) as snapshot:
        rows = np.flatnonzero((snapshot.walk.table.kind == BlockKind.LARGE) & snapshot.walk.table.is_busy)
        return snapshot.stacks.numbers(rows).tolist()


@EACH
def test_the_index_knows_where_the_stacks_of_large_blocks_stand(tmp_path, generation, monkeypatch):
    """Up to 15063 they stand behind the padding, which nothing but the walk can tell."""
    path = tmp_path / "x.dmp"
    traced_process(generation).write(path)
    assert large_stacks(path) == [RECORDS, RECORDS + 0x100, RECORDS + 0x200]
    monkeypatch.delattr(walk, "walk_heaps")  # from here on the index answers
    assert large_stacks(path) == [RECORDS, RECORDS + 0x100, RECORDS + 0x200]


@pytest.mark.parametrize("padding", [None, -16, 1 << 80, "16", True])
def test_facts_that_no_walk_writes_are_not_followed(open_built, padding):
    with open_built(traced_process(("x64", 14393)).build()) as snapshot:
        found = snapshot.walk
        (heap,) = [heap for heap in snapshot.heaps if heap.kind is HeapKind.SEGMENT]
        rows = np.flatnonzero(found.table.kind == BlockKind.LARGE)
        other = Walk(lambda: found.table, found.counts, (), (), {heap.index: {"padding_bytes": padding}})
        numbers = trace_reader(snapshot.view_of(heap), heap, other)
        assert numbers is not None
        assert RECORDS not in numbers(rows).tolist()
