"""`page-heap`: the page heaps, their blocks, or one block in depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from heapdump.commands.common.addresses import address_in, heap_in
from heapdump.commands.common.block_words import BlockWords, word_columns
from heapdump.commands.common.blocks import BlockRecorder, block_columns
from heapdump.commands.common.frames import frame_record, frames_of, stack_lines
from heapdump.commands.common.gaps import walk_gaps
from heapdump.commands.common.next_command import command_text
from heapdump.commands.common.options import BLOCK_STATES, option
from heapdump.commands.common.page_block import page_detail, page_lines, page_record
from heapdump.commands.common.request import Request, dump_command
from heapdump.errors import WrongUsage
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, Table, size_column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heapdump.analyses.blocks.page_heap import PageHeapRoot
    from heapdump.blocks.table import Block
    from heapdump.snapshot import Snapshot

ROOTS: tuple[Column[PageHeapRoot], ...] = (
    Column("PageHeap", lambda r: f"{r.heap.address:#x}", "the handle; its root lies in the page behind it", right=True, style="bold"),
    Column("Role", lambda r: r.heap.role, "process = PEB.ProcessHeap, else the class bits of the root's flags", rank=2),
    Column("Mode", lambda r: r.mode, "full: blocks with pages of their own; light: blocks in the ordinary heap behind it"),
    Column("NormalHeap", lambda r: "-" if r.heap.normal_heap is None else f"{r.heap.normal_heap:#x}", "_DPH_HEAP_ROOT.NormalHeap", right=True, rank=3),
    Column("Busy", lambda r: text.count(r.busy_blocks), "blocks of the busy tree (a list before Vista), and light ones", right=True),
    size_column("BusyBytes", lambda r: r.busy_bytes, "bytes the program asked for in them"),
    Column("Freed", lambda r: text.count(r.freed_blocks), "freed blocks that are still kept inaccessible, or filled", right=True),
    size_column("Virtual", lambda r: r.virtual_bytes, "address space of the blocks with pages of their own, guard pages included", rank=1),
    size_column("Committed", lambda r: r.committed_bytes, "of the page heap's reservations, and its light blocks"),
    Column("Cost", lambda r: "-" if r.cost is None else f"{r.cost:.1f}x", "committed / requested bytes", right=True),
    Column("Stacks", lambda r: "-" if r.heap.stack_traces is None else "yes" if r.heap.stack_traces else "no", "_DPH_HEAP_ROOT.ExtraFlags & 2", rank=4),
)  # fmt: skip


@option("--heap", metavar="ADDR|INDEX", help="The blocks of this page heap.")
@option(
    "--state",
    type=BLOCK_STATES,
    help="The blocks in this state, of all page heaps or of --heap.",
)
@dump_command("page-heap", takes_address="perhaps")
def command(
    request: Request, address: str | None, heap: str | None, state: Literal["busy", "free", "all"] | None
) -> int:
    """Page heap and Application Verifier: blocks, as !heap -p.

    \b
    heapdump page-heap crash.dmp
    heapdump page-heap crash.dmp --heap 0x244518b0000 --state free
    heapdump page-heap crash.dmp 0x24451991ec0  one block: stamps, fills, stacks
    """
    with request.open() as snapshot:
        if address is not None:
            return request.emit(snapshot, _one(request, snapshot, address_in(request, snapshot, address)))
        if heap is not None or state is not None:
            return request.emit(
                snapshot,
                _blocks(request, snapshot, heap_in(request, snapshot, heap), state or "busy"),
            )
        return request.emit(snapshot, _roots(request, snapshot))


def _roots(request: Request, snapshot: Snapshot) -> Answer:
    from heapdump.analyses.blocks.page_heap import page_heap_roots

    found = page_heap_roots(snapshot.heaps, snapshot.walk, [snapshot.page_nodes(heap) for heap in snapshot.heaps])
    rows = request.rows(found, _root_record)

    def page() -> list[PageItem]:
        """The table and what it sums to."""
        shown, hidden = request.shown(rows)
        table = Table(ROOTS, shown, hidden=hidden, empty=_absence(snapshot))
        return [table, *([Lines([[(_total(rows), "")]])] if rows else [])]

    return Answer(
        "page-heap",
        data=lambda: [_root_record(row) for row in rows],
        records=lambda: (_root_record(row) for row in rows),
        page=page,
        gaps=walk_gaps(snapshot),
    )


def _absence(snapshot: Snapshot) -> str:
    """Why there is no page heap to show."""
    if not snapshot.heaps:
        return "whether page heap is on is not known: no heap is known in this dump"
    return "page heap is off; to switch it on: gflags /p /enable app.exe /full"


def _total(rows: Sequence[PageHeapRoot]) -> str:
    busy, blocks = sum(row.busy_bytes for row in rows), sum(row.busy_blocks for row in rows)
    committed = [row.committed_bytes for row in rows if row.committed_bytes is not None]
    cost = f", {text.size(sum(committed))} committed" if committed else ""
    requested = f"{text.plural(blocks, 'busy block')} with {text.size(busy)} requested"
    return f"{text.plural(len(rows), 'page heap')}: {requested}{cost}"


def _root_record(row: PageHeapRoot) -> Record:
    heap = row.heap
    return {
        "address": hex(heap.address),
        "index": heap.index,
        "role": heap.role,
        "mode": row.mode,
        "normal_heap": None if heap.normal_heap is None else hex(heap.normal_heap),
        "busy_blocks": row.busy_blocks,
        "busy_bytes": row.busy_bytes,
        "freed_blocks": row.freed_blocks,
        "freed_bytes": row.freed_bytes,
        "virtual_bytes": row.virtual_bytes,
        "committed_bytes": row.committed_bytes,
        "reserved_bytes": heap.reserved_bytes,
        "cost": row.cost,
        "stack_traces": heap.stack_traces,
    }


def _blocks(request: Request, snapshot: Snapshot, heap: int | None, state: Literal["busy", "free", "all"]) -> Answer:
    from heapdump.analyses.blocks.select import Filter, select

    found = select(snapshot.walk.table, snapshot.heaps, Filter(heap=heap, state=state, kind="page"))
    recorder = BlockRecorder(snapshot)
    rows = request.rows(list(snapshot.walk.table.blocks(found)), recorder)

    def page() -> list[PageItem]:
        """The table of blocks."""
        shown, hidden = request.shown(rows)
        words = BlockWords(request, snapshot, (block.row for block in shown))
        return [
            Table(
                (*block_columns(snapshot.heaps), *word_columns(words)), shown, hidden=hidden,
                empty="no matching blocks under page heap",
            )
        ]  # fmt: skip

    return Answer(
        "page-heap", data=lambda: [recorder(row) for row in rows], records=lambda: (recorder(row) for row in rows),
        page=page, gaps=walk_gaps(snapshot), question="page-heap --state",
    )  # fmt: skip


def _one(request: Request, snapshot: Snapshot, address: int) -> Answer:
    from heapdump.analyses.blocks.locate import locate
    from heapdump.analyses.blocks.page_heap import is_free_stack

    request.refuse_sorting("page-heap ADDRESS")
    found = locate(snapshot.walk.table, snapshot.process.space, address)
    detail = page_detail(snapshot, found.block) if found.block else None
    if found.block is None or detail is None:
        raise WrongUsage(
            f"{address:#x} is in no page heap block; what else is there: {command_text(snapshot, ('block', f'{address:#x}'))}"
        )
    block = found.block

    def record() -> Record:
        """The JSON record of the block."""
        frames = [frame_record(frame) for frame in frames_of(request, snapshot, block)]
        is_free = is_free_stack(block)
        more = {"offset": found.offset, "relation": found.relation, "frames": [] if is_free else frames}
        return (
            BlockRecorder(snapshot)(block)
            | more
            | {"free_frames": frames if is_free else [], "page": page_record(detail)}
        )

    return Answer(
        "page-heap", data=record, records=lambda: [record()],
        page=lambda: _one_page(request, snapshot, block, address), gaps=walk_gaps(snapshot),
    )  # fmt: skip


def _one_page(request: Request, snapshot: Snapshot, block: Block, address: int) -> list[PageItem]:
    detail, heap = page_detail(snapshot, block), snapshot.heaps[block.heap]
    title = f"{block.state} block of {text.plural(block.size, 'byte')} at {block.address:#x}"
    mode = "light" if detail is None or detail.virtual_block is None else "full"
    lines = [
        [(title, "bold"), (f", {address:#x} is at offset {address - block.address:+#x}", "")],
        [(f"page heap #{heap.index} {heap.address:#x} ({heap.role}), {mode}", "")],
        *(page_lines(detail) if detail else []),
        *stack_lines(request, snapshot, block),
    ]
    return [Lines(lines)]
