"""`heaps`: every heap of the process, what its header says and what its lists hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from heapdump.commands.common.gaps import heap_gaps
from heapdump.commands.common.locks import lock_record, lock_words
from heapdump.commands.common.request import Request, dump_command
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, Table, size_column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heapdump.blocks.heap import Heap
    from heapdump.blocks.walk import HeapCount, KindCount, Walk
    from heapdump.snapshot import Snapshot


def heap_record(snapshot: Snapshot, heap: Heap) -> Record:
    """The JSON record of a heap; the counts of its blocks are null where its kind is not walked."""
    from heapdump.analyses.memory import fragmentation

    count = snapshot.walk.counts.get(heap.index)
    return {
        "address": hex(heap.address),
        "index": heap.index,
        "view": heap.view,
        "kind": heap.kind,
        "role": heap.role,
        "flags": None if heap.flags is None else hex(heap.flags),
        "flag_names": heap.flag_names,
        "segments": len(heap.segments) if heap.segments else None,
        "reserved_bytes": heap.reserved_bytes,
        "committed_bytes": heap.committed_bytes,
        "free_bytes": count.free_bytes if count else None,
        "free_blocks": count.free_blocks if count else None,
        "busy_bytes": count.busy_bytes if count else None,
        "busy_blocks": count.busy_blocks if count else None,
        "lfh_free_blocks": count.lfh_free_blocks if count else None,
        "lfh_free_bytes": count.lfh_free_bytes if count else None,
        "overhead_bytes": count.overhead_bytes if count else None,
        "by_kind": [_kind_record(kind) for kind in count.kinds] if count else None,
        "uncommitted_ranges": heap.uncommitted_ranges if heap.segments else None,
        "virtual_blocks": None if heap.large_blocks is None else len(heap.large_blocks),
        "virtual_bytes": heap.large_committed_bytes,
        "lock_contention": heap.counters.lock_contention,
        "lock": lock_record(snapshot.locks.get(heap.index)),
        "front_end": heap.front_end,
        "stack_traces": heap.stack_traces,
        "external_fragmentation": fragmentation.external(heap),
        "virtual_fragmentation": fragmentation.virtual(heap),
        "integrity": count.integrity if count else None,
        "trust": heap.trust.value,
        "layout": heap.layout,
        "normal_heap": None if heap.normal_heap is None else hex(heap.normal_heap),
        "stated": {
            "free_bytes": heap.free_bytes,
            "reserved_bytes": heap.counters.reserved_bytes,
            "committed_bytes": heap.counters.committed_bytes,
            "virtual_bytes": heap.counters.virtual_bytes,
            "segments": heap.counters.segments,
            "uncommitted_ranges": heap.counters.uncommitted_ranges,
        },
        "notes": list(heap.notes),
    }


_LOCK = ("owner", "owner_exists", "waiters", "recursion", "waiting")
_COUNTERS = ("free_bytes", "reserved_bytes", "committed_bytes", "virtual_bytes", "segments", "uncommitted_ranges")
"""Members of `lock`; of `stated`, Windows' counters in the JSON."""


def _kind_record(kind: KindCount) -> Record:
    return {
        "kind": kind.kind.word,
        "busy_blocks": kind.busy_blocks,
        "busy_bytes": kind.busy_bytes,
        "busy_entry_bytes": kind.busy_entry_bytes,
        "free_blocks": kind.free_blocks,
        "free_bytes": kind.free_bytes,
    }


def _kind(heap: Heap) -> str:
    return heap.kind + ("" if heap.trust.value == "exact" else "~")


def _flags(heap: Heap) -> str:
    return "-" if heap.flags is None else f"{heap.flags:#x} {' '.join(heap.flag_names)}"


def _blocks(heap: Heap) -> str:
    return text.count(None if heap.large_blocks is None else len(heap.large_blocks))


def _fragmentation(heap: Heap, kind: Literal["external", "virtual"]) -> str:
    from heapdump.analyses.memory import fragmentation

    share = fragmentation.external(heap) if kind == "external" else fragmentation.virtual(heap)
    return text.exact_share(share) or "-"


def _verified(count: HeapCount | None) -> str:
    return text.exact_share(count.integrity if count else None) or "-"


def total_bytes(heap: Heap) -> int | None:
    """Committed bytes of the segments and of the large blocks; None where neither is known."""
    known = [part for part in (heap.committed_bytes, heap.large_committed_bytes) if part is not None]
    return sum(known) if known else None


_BAR = 16


def view(snapshot: Snapshot, heaps: Sequence[Heap]) -> tuple[Column[Heap], ...]:
    """The columns of the table; block counts come from the walk. The lock of a heap is shown where one is held."""
    walk = snapshot.walk
    most = max((total_bytes(heap) or 0 for heap in heaps), default=0)

    def count(heap: Heap, name: str) -> int | None:
        """A number of the heap's count, None where its kind is not walked."""
        counted = walk.counts.get(heap.index)
        return getattr(counted, name) if counted else None

    lock: Column[Heap] = Column(
        "Lock",
        lambda h: lock_words(snapshot.locks.get(h.index)),
        "thread that holds the heap's critical section, and how many wait for it",
        style="red",
    )
    return (
        Column("#", lambda h: str(h.index), "place in the heap lists, as !heap numbers them", right=True),
        Column("Heap", lambda h: f"{h.address:#x}", "the handle: address of the heap's header", right=True, style="bold"),
        Column("Kind", _kind, "nt, segment, page or unknown, by signatures and a second witness; ~ = layout of a neighbouring build", folds=True),
        Column("Role", lambda h: h.role, "process = PEB.ProcessHeap, else the class bits of _HEAP.Flags", rank=1),
        Column("Segs", lambda h: text.count(len(h.segments) or None), "segments on _HEAP.SegmentList (Segments[] before Vista); of segment heaps those of both contexts", right=True, rank=7),
        size_column("Total", total_bytes, "committed bytes of its segments and of its large blocks together"),
        Column("", lambda h: text.bar(total_bytes(h) or 0, most, _BAR), "total, relative to the largest heap", rank=1, style="cyan"),
        size_column("Busy", lambda h: count(h, "busy_bytes"), "bytes the program asked for in its busy blocks, large ones too"),
        Column("Blocks", lambda h: text.count(count(h, "busy_blocks")), "busy blocks of the program, of every kind", right=True),
        size_column("Segments", lambda h: h.committed_bytes, "committed bytes of its segments: reserved minus uncommitted ranges (UCRSegmentList; of segment heaps by the memory map)", rank=2),
        size_column("Reserved", lambda h: h.reserved_bytes, "bytes of all segments (NumberOfPages; of segment heaps and their own structures); large blocks are apart", rank=5),
        size_column("Free", lambda h: count(h, "free_bytes"), "free entries of the back end, as walked; a healthy heap's TotalFreeSize × granularity is the same", rank=3),
        size_column("LfhFree", lambda h: count(h, "lfh_free_bytes"), "free blocks of the low fragmentation heap", rank=6),
        size_column("Overhead", lambda h: count(h, "overhead_bytes"), "headers, bytes behind the requested ones, and what the allocator keeps for itself", rank=6),
        Column("Verified", lambda h: _verified(walk.counts.get(h.index)), "share of walked headers that verified (integrity)", right=True, rank=5, folds=True),
        Column("UCR", lambda h: text.count(h.uncommitted_ranges if h.segments else None), "uncommitted ranges on the segments' lists", right=True, rank=6),
        size_column("LargeBytes", lambda h: h.large_committed_bytes, "sum of CommitSize of its large blocks", rank=1),
        Column("Large", _blocks, "entries on _HEAP.VirtualAllocdBlocks (of segment heaps in LargeAllocMetadata), each with a reservation of its own", right=True, rank=2),
        Column("Front", lambda h: h.front_end or "-", "_HEAP.FrontEndHeapType: none, lookaside or lfh", rank=5, folds=True),
        Column("LockCont", lambda h: text.count(h.counters.lock_contention), "_HEAP.Counters.LockCollisions (before Vista the lock's ContentionCount)", right=True, rank=7),
        *((lock,) if any(lock.text(heap) for heap in heaps) else ()),
        Column("Stacks", lambda h: "-" if h.stack_traces is None else "yes" if h.stack_traces else "no", "allocation stacks are recorded: flag 0x08000000 (before Vista NtGlobalFlag 0x1000)", rank=6, folds=True),
        Column("Flags", _flags, "_HEAP.Flags", rank=8, flexible=16, style="dim"),
    )  # fmt: skip


KINDS: tuple[Column[KindCount], ...] = (
    Column("Kind of block", lambda k: k.kind.name.lower(), "backend: segments; lfh: front end; virtual: large blocks; lookaside: freed, on a lookaside list of XP; page: pages of their own under page heap; light: page heap's, inside blocks of an ordinary heap"),
    Column("Busy", lambda k: text.count(k.busy_blocks), "busy blocks of the program", right=True),
    size_column("BusyBytes", lambda k: k.busy_bytes, "bytes it asked for in them"),
    size_column("Occupied", lambda k: k.busy_entry_bytes, "bytes they occupy, headers included"),
    Column("Free", lambda k: text.count(k.free_blocks), "free blocks, of the back end and of the LFH", right=True),
    size_column("FreeBytes", lambda k: k.free_bytes, "bytes they occupy"),
)  # fmt: skip


FRAGMENTATION: tuple[Column[Heap], ...] = (
    Column("Heap", lambda h: f"{h.address:#x}", "the handle", right=True, style="bold"),
    Column("ExternalFragmentation", lambda h: _fragmentation(h, "external"), "free / committed bytes, as !heap -s prints it", right=True),
    Column("VirtualFragmentation", lambda h: _fragmentation(h, "virtual"), "(virtual - committed) / virtual, virtual = reserved minus Counters.TotalMemoryLargeUCR", right=True),
)  # fmt: skip


@dump_command("heaps")
def command(request: Request) -> int:
    """Every heap of the process and what it holds.

    Every heap on the heap list of the process (on both lists of a WOW64 process), verified by its signatures: kind, flags,
    segments, reserved and committed bytes, large blocks, and what Windows itself counted.

    \b
    heapdump heaps crash.dmp --sort virtual_bytes
    heapdump heaps crash.dmp --explain        how numbers are computed
    """
    with request.open() as snapshot:

        def record(heap: Heap) -> Record:
            """The JSON record of a heap."""
            return heap_record(snapshot, heap)

        rows = request.rows(snapshot.heaps, record)
        answer = Answer(
            "heaps",
            data=lambda: [record(heap) for heap in rows],
            records=lambda: (record(heap) for heap in rows),
            page=lambda: _page(request, snapshot, rows if request.sort else _largest_first(rows, request.reverse)),
            gaps=(*snapshot.gaps, *heap_gaps(snapshot.heaps), *snapshot.walk.gaps),
            nested={"stated": _COUNTERS, "lock": _LOCK},
            shown=request.shown(_messages(rows, snapshot.walk))[0],
        )
        return request.emit(snapshot, answer)


def _largest_first(rows: Sequence[Heap], is_reversed: bool) -> list[Heap]:
    return sorted(rows, key=lambda heap: total_bytes(heap) or 0, reverse=not is_reversed)


def _page(request: Request, snapshot: Snapshot, rows: Sequence[Heap]) -> list[PageItem]:
    from heapdump.analyses.blocks.kind_counts import by_kind

    walk = snapshot.walk
    shown, hidden = request.shown(rows)
    page: list[PageItem] = [Table(view(snapshot, rows), shown, hidden=hidden, empty="no heap is known in this dump")]
    if rows:
        page.append(Lines([[(_totals(rows), "")]]))
        if counted := by_kind(rows, walk):
            page.append(Table(KINDS, counted))
    if any(heap.trust.value != "exact" for heap in rows):
        inexact = "~ not exact: damaged, or verified with the layout of a neighbouring Windows build"
        page.append(Lines([[(inexact, "dim")]]))
    if messages := _messages(rows, walk):
        page.append(Lines(request.shown_lines([[(message, "red")] for message in messages])))
    if request.explain and rows:
        page.append(Table(FRAGMENTATION, shown, title="Fragmentation"))
    return page


def _messages(rows: Sequence[Heap], walk: Walk) -> list[str]:
    """A line for each damaged place that the lists and the walk met."""
    return [finding.message for heap in rows for finding in heap.findings] + [one.message for one in walk.findings]


def _totals(rows: Sequence[Heap]) -> str:
    committed = sum(heap.committed_bytes or 0 for heap in rows if heap.segments)
    paged = [heap for heap in rows if heap.kind == "page" and heap.committed_bytes]
    large = sum(heap.large_committed_bytes or 0 for heap in rows)
    blocks = sum(len(heap.large_blocks or ()) for heap in rows)
    known = (
        f"{text.size(committed)} committed in segments"
        if any(heap.segments for heap in rows)
        else "committed bytes not known"
    )
    total = f"{text.plural(len(rows), 'heap')}: {known}"
    if paged:
        pages = sum(heap.committed_bytes or 0 for heap in paged)
        total = f"{total}, {text.size(pages)} in {text.plural(len(paged), 'page heap')}"
    return f"{total}, {text.size(large)} in {text.plural(blocks, 'large block')}" if blocks else total
