"""The memory of a process in the classes of VMMap, as a tree, as rows of cells, and heaps as maps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.analyses.memory.address_rows import CELLS, address_rows
from heapdump.analyses.memory.coverage import Coverage
from heapdump.analyses.memory.heap_maps import LEVELS, UNCOMMITTED, heap_map
from heapdump.analyses.memory.memory_classes import MemoryClass
from heapdump.analyses.memory.memory_tree import MemoryNode, memory_tree
from heapdump.snapshot import Snapshot
from heapdump.spans import Span
from tests.analyses.memory.test_usage import AREA, rich
from tests.builders import NtHeapBuilder, ProcessBuilder


@pytest.fixture
def snapshot(open_built) -> Iterator[Snapshot]:
    with open_built(rich()) as opened:
        yield opened


def nodes(snapshot: Snapshot) -> dict[MemoryClass, MemoryNode]:
    return {node.kind: node for node in memory_tree(snapshot.usage, snapshot.heaps)}


def names(node: MemoryNode) -> list[str]:
    return [child.name for child in node.children]


def test_every_region_counts_in_one_class(snapshot):
    table = snapshot.usage.table
    found = nodes(snapshot).values()
    assert sum(node.bytes for node in found) == int(table.size.sum())
    for node in found:
        assert node.bytes == sum(child.bytes for child in node.children) or not node.children
        assert node.committed_bytes == sum(child.committed_bytes for child in node.children) or not node.children


def test_classes_are_those_of_vmmap(snapshot):
    found = nodes(snapshot)
    assert f"{AREA:#x} 'hello world.'" in names(found[MemoryClass.PRIVATE])
    assert "TEB ~0 tid 0x64" in names(found[MemoryClass.PRIVATE])
    assert names(found[MemoryClass.STACK]) == ["~0 tid 0x64", "~1 tid 0x65"]
    assert f"{AREA + 0x100000:#x}" in names(found[MemoryClass.MAPPED])
    assert "was gone.dll" in names(found[MemoryClass.IMAGE])
    assert [child.heap for child in found[MemoryClass.HEAP].children] == [heap.index for heap in snapshot.heaps]


def test_a_key_does_not_change_with_the_first_bytes(snapshot):
    found = nodes(snapshot)[MemoryClass.PRIVATE]
    keys = {child.name: child.key for child in found.children}
    assert keys[f"{AREA:#x} 'hello world.'"] == f"{AREA:#x}"


def test_a_file_that_its_first_bytes_tell_is_a_mapped_file(open_built):
    process = rich().region(0x50000000, 0x3000, type="MEM_MAPPED", protect=2)
    process.memory(0x50000000, b"SQLite format 3\0".ljust(0x3000, b"\0"))
    with open_built(process) as opened:
        found = nodes(opened)
    assert names(found[MemoryClass.MAPPED_FILE]) == ["mapped SQLite database"]
    assert f"{AREA + 0x100000:#x}" in names(found[MemoryClass.MAPPED])


def test_free_memory_below_a_multiple_of_64_kb_is_unusable(open_built):
    process = ProcessBuilder(arch="x86", build=7601).region(0x4400000, 0x3000).region(0x4420000, 0x10000)
    with open_built(process) as opened:
        table = opened.usage.table
        free = [
            (int(a), int(b))
            for a, b, state in zip(table.start, table.end, table.state, strict=True)
            if state == 0x10000
        ]
        assert (0x4403000, 0x4420000) in free
        unusable = sum(min(b, max(-(-a // 0x10000) * 0x10000, 0x10000)) - a for a, b in free)
        found = nodes(opened)
        assert found[MemoryClass.UNUSABLE].bytes == unusable
        assert found[MemoryClass.FREE].bytes == sum(b - a for a, b in free) - unusable


def test_a_row_has_the_classes_in_their_places(open_built):
    process = (
        ProcessBuilder(arch="x86", build=7601)
        .region(0x10000000, 0x8000000)
        .region(0x18000000, 0x8000000, state="MEM_RESERVE")
    )
    with open_built(process) as opened:
        rows = address_rows(opened.usage)
    assert [row.span for row in rows[:2]] == [Span(0, 0x10000000), Span(0x10000000, 0x20000000)]
    runs = [(run.first, run.count, run.kind, run.is_reserved) for run in rows[1].runs]
    half = CELLS // 2
    assert runs == [(0, half, MemoryClass.PRIVATE, False), (half, half, MemoryClass.PRIVATE, True)]


def test_rows_of_a_64_bit_process_leave_wide_gaps_out(snapshot):
    rows = address_rows(snapshot.usage)
    assert 1 < len(rows) <= 14
    assert rows[0].gap_bytes == 0
    assert all(row.gap_bytes >= 1 << 28 for row in rows[1:])
    assert all(run.first + run.count <= CELLS for row in rows for run in row.runs)


def test_the_map_of_a_heap_shows_what_is_busy_and_what_is_not_committed(open_built):
    builder = NtHeapBuilder(base=0x20000000000)
    for _ in range(40):
        builder.busy(4000)
    with open_built(ProcessBuilder().heap(builder.build())) as opened:
        heap = opened.heaps[0]
        found = heap_map(opened.walk.table, heap)
        (segment,) = found.segments
        cells = segment.levels
        busy = opened.walk.counts[0].busy_blocks
    assert segment.cell_bytes * len(cells) >= segment.span.size
    assert LEVELS in cells and UNCOMMITTED in cells
    assert sum(one.busy_blocks for one in found.sizes) == busy
    assert sum(one.busy_bytes for one in found.sizes if one.low == 2048) == 40 * 4000


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=12), st.integers(1, 60), st.integers(1, 300)
)
def test_cells_count_every_covered_byte_once(pieces, count, size):
    starts, sizes, at = [], [], 100
    for gap, length in pieces:
        starts.append(at + gap)
        sizes.append(length)
        at += gap + length
    span = Span(90, 90 + size)
    found = Coverage(np.array(starts, np.uint64), np.array(sizes, np.uint64)).cells(span, count)
    covered = {byte for start, length in zip(starts, sizes, strict=True) for byte in range(start, start + length)}
    edges = [span.start + size * i // count for i in range(count + 1)]
    assert found.tolist() == [sum(byte in covered for byte in range(a, b)) for a, b in pairwise(edges)]
