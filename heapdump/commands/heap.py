"""`heap ADDRESS`: one heap in depth."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from heapdump.commands.common.addresses import heap_in
from heapdump.commands.common.gaps import unchecked_lines, walk_gaps
from heapdump.commands.common.locks import lock_sentence
from heapdump.commands.common.next_command import arrow
from heapdump.commands.common.request import Request, dump_command
from heapdump.commands.common.verdict import verdict_line
from heapdump.commands.heaps import heap_record
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, StyledLine, Table, size_column

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from heapdump.analyses.memory.heap_detail import (
        Bucket,
        ContextDetail,
        FreeClass,
        HeapDetail,
        SegmentDetail,
        SizeClass,
    )
    from heapdump.blocks.findings import Finding
    from heapdump.blocks.heap import Heap
    from heapdump.blocks.walk import Check
    from heapdump.snapshot import Snapshot
    from heapdump.spans import Span

_BAR = 24
SEGMENTS: tuple[Column[SegmentDetail], ...] = (
    Column("Segment", lambda s: f"{s.address:#x}", "address of its header", right=True),
    Column("End", lambda s: f"{s.end:#x}", "first address behind its reservation (NumberOfPages)", right=True, rank=1),
    size_column(
        "Committed",
        lambda s: s.committed_bytes,
        "reserved minus its uncommitted ranges (segment heaps: by the memory map)",
    ),
    Column("Runs", lambda s: text.count(s.runs), "committed runs between them", right=True),
    Column("UCR", lambda s: text.count(s.uncommitted_ranges), "uncommitted ranges on its list", right=True),
    size_column("LargestUCR", lambda s: s.largest_uncommitted_bytes, "the largest of them", rank=2),
)
FREE_LISTS: tuple[Column[FreeClass], ...] = (
    Column("On free lists", lambda c: f"{c.low:,}..{c.high - 1:,}", "occupied bytes of entries linked on _HEAP.FreeLists", right=True),
    Column("Entries", lambda c: text.count(c.blocks), "entries of that size", right=True),
    size_column("Bytes", lambda c: c.bytes, "bytes they occupy"),
    Column("Smallest", lambda c: text.count(c.smallest), "bytes of the smallest", right=True, rank=1),
    Column("Largest", lambda c: text.count(c.largest), "bytes of the largest", right=True, rank=1),
)  # fmt: skip
UNCOMMITTED: tuple[Column[Span], ...] = (
    Column(
        "Uncommitted",
        lambda u: f"{u.start:#x}",
        "start of an uncommitted range, by the segments' own lists",
        right=True,
    ),
    Column("End", lambda u: f"{u.end:#x}", "first address behind it", right=True),
    size_column("Size", lambda u: u.size, "bytes of it"),
)
CONTEXTS: tuple[Column[ContextDetail], ...] = (
    size_column("Unit", lambda c: c.unit_bytes, "bytes of a unit of page ranges: 4 kB in segments of 1 MB, 64 kB in those of 16 MB"),
    Column("Segments", lambda c: text.count(c.segments), "segments on the context's list", right=True),
    size_column("Reserved", lambda c: c.reserved_bytes, "bytes of them", rank=1),
    size_column("Committed", lambda c: c.committed_bytes, "bytes of them that the memory map calls committed"),
    Column("PageBlocks", lambda c: text.count(c.page_blocks), "blocks made of whole page ranges", right=True),
    size_column("Occupied", lambda c: c.page_block_bytes, "bytes of their ranges", rank=1),
    Column("FreeRuns", lambda c: text.count(c.free_runs), "committed runs of pages in free page ranges", right=True),
    size_column("FreePages", lambda c: c.free_run_bytes, "bytes of them"),
    size_column("LargestRun", lambda c: c.largest_free_run_bytes, "the largest of them", rank=2),
)  # fmt: skip
BUCKETS: tuple[Column[Bucket], ...] = (
    Column("LFH bucket", lambda b: text.count(b.entry_size), "bytes that each block occupies", right=True),
    Column(
        "Subsegments",
        lambda b: text.count(b.subsegments),
        "subsegments (in segment heaps: page ranges) that hold them",
        right=True,
    ),
    Column("Busy", lambda b: text.count(b.busy), "busy blocks", right=True),
    Column("Free", lambda b: text.count(b.free), "free blocks", right=True),
    Column("Occupancy", lambda b: text.share(b.occupancy), "busy share", right=True),
)
CHECKS: tuple[Column[Check], ...] = (
    Column("Self-check", lambda c: c.kind.words, "a number that Windows keeps in the heap's header, or what its lists link"),
    Column("Windows", lambda c: text.count(c.counted), "what Windows counted or links; - where this version does not", right=True),
    Column("Walked", lambda c: text.count(c.walked), "what the walk counted", right=True),
    Column("", lambda c: "" if c.holds else "differs", "differs = damage, or the heap was being changed", style="red"),
)  # fmt: skip


def sizes_view(detail: HeapDetail) -> tuple[Column[SizeClass], ...]:
    """The histogram; bars are relative to the class with most busy bytes."""
    most = max((c.busy_bytes for c in detail.sizes), default=0) or 1
    return (
        Column("Size", lambda c: f"{c.low:,}..{c.high - 1:,}", "requested bytes of busy, occupied bytes of free blocks", right=True),
        Column("Busy", lambda c: text.count(c.busy_blocks), "busy blocks", right=True),
        size_column("BusyBytes", lambda c: c.busy_bytes, "their requested bytes"),
        Column("Free", lambda c: text.count(c.free_blocks), "free blocks, of the LFH too", right=True, rank=1),
        size_column("FreeBytes", lambda c: c.free_bytes, "their occupied bytes", rank=1),
        Column("", lambda c: text.bar(c.busy_bytes, most, _BAR), "busy bytes, relative to the largest class", rank=2, style="cyan"),
    )  # fmt: skip


@dump_command("heap", takes_address=True)
def command(request: Request, address: str) -> int:
    """One heap in depth: segments, size classes, LFH, self-checks.

    ADDRESS is that of the heap, or its number in the table of heaps.

    \b
    heapdump heap crash.dmp 0x29fb0000
    heapdump heap crash.dmp 2
    """
    from heapdump.analyses.blocks.select import heap_index
    from heapdump.analyses.memory.heap_detail import heap_detail

    request.refuse_sorting("heap")
    with request.open() as snapshot:
        heap = snapshot.heaps[heap_index(snapshot.heaps, heap_in(request, snapshot, address) or 0)]
        lists = snapshot.free_lists(heap)
        detail = heap_detail(heap, snapshot.walk, lists)
        answer = Answer(
            "heap",
            data=lambda: _data(snapshot, heap, detail),
            records=lambda: [_data(snapshot, heap, detail)],
            page=lambda: _page(request, snapshot, heap, detail, lists.findings if lists else ()),
            gaps=(
                *walk_gaps(snapshot),
                *(finding.message for finding in (lists.findings if lists else ())),
                *unchecked_lines(snapshot.heaps, snapshot.verdict([heap]).unchecked),
            ),
            shown=request.shown(_messages(snapshot, heap, lists.findings if lists else ()))[0],
        )
        return request.emit(snapshot, answer)


def _data(snapshot: Snapshot, heap: Heap, detail: HeapDetail) -> Record:
    return heap_record(snapshot, heap) | {
        "verdict": snapshot.verdict([heap]).text,
        "segment_list": [
            asdict(s) | {"address": hex(s.address), "start": hex(s.start), "end": hex(s.end)} for s in detail.segments
        ],
        "contexts": [asdict(context) for context in detail.contexts],
        "uncommitted": [
            {"address": hex(part.start), "size": part.size} for segment in heap.segments for part in segment.uncommitted
        ],
        "sizes": [asdict(size) for size in detail.sizes],
        "free_lists": [asdict(size) for size in detail.free_classes],
        "buckets": [asdict(bucket) for bucket in detail.buckets],
        "checks": [
            {"what": check.kind.words, "stated": check.counted, "walked": check.walked} for check in detail.checks
        ],
    }


def _messages(snapshot: Snapshot, heap: Heap, lists: Sequence[Finding]) -> list[str]:
    """A line for each damaged place of the heap that its lists and the walk met."""
    found = (*heap.findings, *lists, *snapshot.walk.findings)
    return [finding.message for finding in found if finding.heap == heap.address]


def _page(
    request: Request, snapshot: Snapshot, heap: Heap, detail: HeapDetail, list_findings: Sequence[Finding]
) -> Iterator[PageItem]:
    yield Lines(list(_heading_lines(snapshot, heap)))
    uncommitted = [part for segment in heap.segments for part in segment.uncommitted]
    tables: tuple[tuple[Any, Sequence[Any]], ...] = (
        (CONTEXTS, detail.contexts), (SEGMENTS, detail.segments), (UNCOMMITTED, uncommitted),
        (sizes_view(detail), detail.sizes), (FREE_LISTS, detail.free_classes), (BUCKETS, detail.buckets),
    )  # fmt: skip
    for columns, rows in tables:
        if rows:
            shown, hidden = request.shown(rows)
            yield Table(columns, shown, hidden=hidden)
    if heap.large_blocks:
        committed = f"{text.size(heap.large_committed_bytes)} committed"
        blocks = f"{text.plural(len(heap.large_blocks), 'large block')} with {committed}"
        yield Lines([[(blocks, ""), arrow(snapshot, ("virt-blocks", "--heap", f"{heap.address:#x}"))]])
    if heap.index in snapshot.walk.counts:
        yield Table(CHECKS, detail.checks)
    if messages := _messages(snapshot, heap, list_findings):
        yield Lines(request.shown_lines([[(message, "red")] for message in messages]))


def _heading_lines(snapshot: Snapshot, heap: Heap) -> Iterator[StyledLine]:
    """Kind, flags, front end, layout, block counts, verdict."""
    count = snapshot.walk.counts.get(heap.index)
    flags = "-" if heap.flags is None else f"{heap.flags:#x} {' '.join(heap.flag_names)}"
    kind = f"  {heap.kind}, {heap.role}, {heap.view}, flags {flags}"
    yield [(f"heap #{heap.index} {heap.address:#x}", "bold"), (kind, "")]
    front_end = f"front end {heap.front_end or '-'}, lock contention {text.count(heap.counters.lock_contention)}"
    yield [(f"{front_end}, layout {heap.layout or '-'} ({heap.trust.value})", "")]
    lock = snapshot.locks.get(heap.index)
    if lock is not None and lock.section.owner is not None:
        yield [(lock_sentence(lock).removeprefix(f"heap {heap.address:#x} is "), "red" if lock.hangs else "yellow")]
    if count:
        busy = f"{text.plural(count.busy_blocks, 'busy block')} with {text.size(count.busy_bytes)}"
        free = f"{text.size(count.free_bytes)} free in {text.plural(count.free_blocks, 'block')}"
        verified = f"{text.exact_share(count.integrity)} of {text.plural(count.headers, 'header')} verified"
        yield [(f"{busy}, {free}, {verified}", "")]
    yield verdict_line(snapshot, snapshot.verdict([heap]), ("check", "--heap", f"{heap.address:#x}"))
