"""The recorded Windows 7 WOW64 process: numbers that an independent walk and Windows' own counters agree on."""

from __future__ import annotations

import pytest

from heapdump.analyses.memory.summary import summarize
from heapdump.blocks.kind import HeapKind
from heapdump.snapshot import open_dump
from heapdump.spans import Span
from heapdump.trust import Trust

pytestmark = pytest.mark.real

# address, view, role, free bytes, committed bytes, front end
HEAPS = [
    (0x500000, "x64", "process", 9648, 0x8000, "none"),
    (0x10000, "x64", "csr port", 1344, 0x1000, "none"),
    (0x20000, "x64", "csr port", 62784, 0x10000, "none"),
    (0x700000, "x86", "process", 3384, 0x14000, "lfh"),
    (0x460000, "x86", "private", 8120, 0x5000, "none"),
]


@pytest.fixture
def snapshot(recorded):
    with open_dump(recorded("real/win7sp1-wow64-fizzbuzz.dmp.xz")) as opened:
        yield opened


def test_the_five_heaps_have_the_known_numbers(snapshot):
    assert [heap.address for heap in snapshot.heaps] == [row[0] for row in HEAPS]
    for heap, (_, view, role, free, committed, front_end) in zip(snapshot.heaps, HEAPS, strict=True):
        assert (heap.kind, heap.view, heap.trust) == (HeapKind.NT, view, Trust.EXACT)
        assert (heap.role, heap.free_bytes, heap.committed_bytes, heap.front_end) == (role, free, committed, front_end)
        assert (heap.findings, heap.is_fully_walked) == ((), True)


def test_what_windows_counted_is_what_is_found(snapshot):
    for heap in snapshot.heaps:
        counters = heap.counters
        assert (counters.reserved_bytes, counters.committed_bytes) == (heap.reserved_bytes, heap.committed_bytes)
        assert counters.segments == len(heap.segments)
        assert counters.virtual_bytes == heap.large_committed_bytes


def test_the_only_large_block_holds_the_lfh_context(snapshot):
    large = [
        (heap.address, block.list_entry, block.commit_bytes)
        for heap in snapshot.heaps
        for block in heap.large_blocks or ()
    ]
    assert large == [(0x700000, 0xE0000, 0xD4000)]


def test_the_csr_heap_calls_uncommitted_what_the_memory_map_calls_committed(snapshot):
    csr = next(heap for heap in snapshot.heaps if heap.address == 0x10000)
    assert [s.uncommitted for s in csr.segments] == [(Span(0x11000, 0x20000),)]
    assert snapshot.process.regions.committed_bytes(Span(0x11000, 0x20000)) == 0xF000
    items = {
        item.item.words: item.bytes for item in summarize(snapshot.usage, snapshot.heaps, snapshot.walk).reconciliation
    }
    assert items["heap segments, uncommitted by the heap's own list"] == 0xF000


def test_the_process_is_whole(snapshot):
    process = snapshot.process
    assert (process.arch, process.windows.build, process.windows.revision) == ("wow64", 7601, 19135)
    assert [view.arch for view in process.views] == ["x64", "x86"]
    assert all(view.heap_list_complete and view.is_layout_exact for view in process.views)
    assert all(len(thread.tebs) == 2 and len(thread.stacks) == 2 for thread in process.threads)
    assert snapshot.gaps == ()


def test_every_committed_byte_has_its_place(snapshot):
    summary = summarize(snapshot.usage, snapshot.heaps, snapshot.walk)
    assert sum(item.bytes for item in summary.reconciliation) == summary.committed_bytes
    assert {"Heap32", "Heap64", "Stack32", "Stack64", "TEB32", "TEB64", "PEB32", "PEB64"} <= {
        r.name for r in summary.usage
    }
