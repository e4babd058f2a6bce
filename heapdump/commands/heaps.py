"""`heaps`: every heap of the process, what its header says and what its lists hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heapdump.commands._shared import Request, dump_command, heap_gaps
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, Record, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heapdump.blocks.records import Heap

BLOCKS_NOTE = "block-level numbers (free and busy blocks, integrity) are not computed by this version: null"


def heap_record(heap: Heap) -> Record:
    """The JSON record of a heap; block counts are null until blocks are walked."""
    from heapdump.analyses import fragmentation
    return {
        "address": hex(heap.address),
        "index": heap.index,
        "view": heap.view,
        "kind": heap.kind.value,
        "role": heap.role,
        "flags": None if heap.flags is None else hex(heap.flags),
        "flag_names": heap.flag_names,
        "segments": len(heap.segments) if heap.segments else None,
        "reserved_bytes": heap.reserved_bytes,
        "committed_bytes": heap.committed_bytes,
        "free_bytes": heap.free_bytes,
        "free_blocks": None,
        "busy_bytes": None,
        "busy_blocks": None,
        "uncommitted_ranges": heap.uncommitted_ranges if heap.segments else None,
        "virtual_blocks": None if heap.large_blocks is None else len(heap.large_blocks),
        "virtual_bytes": heap.large_committed_bytes,
        "lock_contention": heap.stated.lock_contention,
        "front_end": heap.front_end,
        "stack_traces": heap.stack_traces,
        "external_fragmentation": fragmentation.external(heap),
        "virtual_fragmentation": fragmentation.virtual(heap),
        "integrity": None,
        "trust": heap.trust.value,
        "layout": heap.layout,
        "stated": {
            "reserved_bytes": heap.stated.reserved_bytes,
            "committed_bytes": heap.stated.committed_bytes,
            "virtual_bytes": heap.stated.virtual_bytes,
            "segments": heap.stated.segments,
            "uncommitted_ranges": heap.stated.uncommitted_ranges,
        },
        "notes": list(heap.notes),
    }


def _kind(heap: Heap) -> str:
    return heap.kind.value + ("" if heap.trust.value == "exact" else "~")


def _flags(heap: Heap) -> str:
    return "-" if heap.flags is None else f"{heap.flags:#x} {' '.join(heap.flag_names)}"


def _blocks(heap: Heap) -> str:
    return text.count(None if heap.large_blocks is None else len(heap.large_blocks))


def _share(value: float | None) -> str:
    return text.share(value) or "-"


VIEW: tuple[Column[Heap], ...] = (
    Column("#", lambda h: str(h.index), "place in the heap lists, as !heap numbers them", right=True, rank=5),
    Column("Heap", lambda h: f"{h.address:#x}", "the handle: address of the heap's header", right=True, style="bold"),
    Column("Kind", _kind, "nt, segment, page or unknown, by signatures and a second witness; ~ = layout of a neighbouring build"),
    Column("Role", lambda h: h.role, "process = PEB.ProcessHeap, else the class bits of _HEAP.Flags"),
    Column("Segs", lambda h: text.count(len(h.segments) or None), "segments on _HEAP.SegmentList (Segments[] before Vista)", right=True, rank=4),
    Column("Reserved", lambda h: text.size(h.reserved_bytes), "bytes of all segments (NumberOfPages); large blocks are apart", right=True, rank=3),
    Column("Committed", lambda h: text.size(h.committed_bytes), "reserved minus the segments' uncommitted ranges (UCRSegmentList)", right=True),
    Column("Free", lambda h: text.size(h.free_bytes), "_HEAP.TotalFreeSize × granularity, Windows' own count ; before Vista plus the blocks that lookaside lists hold", right=True),
    Column("UCR", lambda h: text.count(h.uncommitted_ranges if h.segments else None), "uncommitted ranges on the segments' lists", right=True, rank=6),
    Column("Large", _blocks, "entries on _HEAP.VirtualAllocdBlocks, each with a reservation of its own", right=True),
    Column("LargeBytes", lambda h: text.size(h.large_committed_bytes), "sum of their CommitSize", right=True, style="cyan"),
    Column("Front", lambda h: h.front_end or "-", "_HEAP.FrontEndHeapType: none, lookaside or lfh", rank=2),
    Column("LockCont", lambda h: text.count(h.stated.lock_contention), "_HEAP.Counters.LockCollisions (before Vista the lock's ContentionCount)", right=True, rank=7),
    Column("Stacks", lambda h: "-" if h.stack_traces is None else "yes" if h.stack_traces else "no", "allocation stacks are recorded: flag 0x08000000 (before Vista NtGlobalFlag 0x1000)", rank=6),
    Column("Flags", _flags, "_HEAP.Flags", rank=8, flexible=16, style="dim"),
)  # fmt: skip

FRAGMENTATION: tuple[Column[Heap], ...] = (
    Column("Heap", lambda h: f"{h.address:#x}", "the handle", right=True, style="bold"),
    Column("ExternalFragmentation", lambda h: _share(_external(h)), "free / committed bytes, as !heap -s prints it", right=True),
    Column("VirtualFragmentation", lambda h: _share(_virtual(h)), "(virtual - committed) / virtual, virtual = reserved minus Counters.TotalMemoryLargeUCR", right=True),
)  # fmt: skip


def _external(heap: Heap) -> float | None:
    from heapdump.analyses import fragmentation

    return fragmentation.external(heap)


def _virtual(heap: Heap) -> float | None:
    from heapdump.analyses import fragmentation

    return fragmentation.virtual(heap)


@dump_command("heaps")
def command(request: Request) -> int:
    """Every heap of the process and what it holds.

    All heaps of the heap lists, of both halves of a WOW64 process, each verified by its signatures: kind, flags,
    segments, reserved and committed bytes, large blocks, and what Windows itself counted.

    \b
    heapdump heaps crash.dmp --sort virtual_bytes --reverse
    heapdump heaps crash.dmp --explain        how each number is computed, and fragmentation
    """
    with request.open() as snapshot:
        rows = request.rows(snapshot.heaps, heap_record)
        answer = Answer(
            "heaps",
            data=lambda: [heap_record(heap) for heap in rows],
            records=lambda: (heap_record(heap) for heap in rows),
            parts=lambda: _parts(request, rows),
            gaps=(*snapshot.gaps, *heap_gaps(snapshot.heaps)),
            notes=(BLOCKS_NOTE,),
            nested={"stated": ("reserved_bytes", "committed_bytes", "virtual_bytes", "segments", "uncommitted_ranges")},
        )
        return request.emit(snapshot, answer)


def _parts(request: Request, rows: Sequence[Heap]) -> list[Table[Any] | Lines]:
    shown, hidden = request.shown(rows)
    parts: list[Table[Any] | Lines] = [Table(VIEW, shown, hidden=hidden, empty="no heap is known in this dump")]
    if rows:
        parts.append(Lines([[(_totals(rows), "")]]))
    if any(heap.trust.value != "exact" for heap in rows):
        parts.append(Lines([[("~ not exact: damaged, or verified with the layout of a neighbouring Windows build", "dim")]]))
    problems = [[(finding.message, "red")] for heap in rows for finding in heap.findings]
    if problems:
        kept, more = request.shown(problems)
        parts.append(Lines([*kept, *([[(f"… {more:,} more", "dim")]] if more else [])]))
    if request.explain and rows:
        parts.append(Table(FRAGMENTATION, shown, title="Fragmentation"))
    return parts


def _totals(rows: Sequence[Heap]) -> str:
    committed = sum(heap.committed_bytes or 0 for heap in rows if heap.segments)
    large = sum(heap.large_committed_bytes or 0 for heap in rows)
    blocks = sum(len(heap.large_blocks or ()) for heap in rows)
    total = f"{text.plural(len(rows), 'heap')}: {text.size(committed)} committed in segments"
    return f"{total}, {text.size(large)} in {text.plural(blocks, 'large block')}" if blocks else total
