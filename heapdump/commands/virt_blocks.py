"""`virt-blocks`: the large blocks, each with a reservation of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.addresses import heap_in
from heapdump.commands.common.block_words import BlockWords, word_columns
from heapdump.commands.common.blocks import BlockRecorder
from heapdump.commands.common.gaps import walk_gaps
from heapdump.commands.common.options import HEAP_OPTION
from heapdump.commands.common.request import Request, dump_command
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, Table, size_column

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from heapdump.analyses.blocks.select import SizeGroup
    from heapdump.blocks.heap import LargeBlock
    from heapdump.blocks.table import Block
    from heapdump.snapshot import Snapshot

    Row = tuple[Block, LargeBlock, int]

VIEW: tuple[Column[Row], ...] = (
    Column("ListEntry", lambda r: f"{_node(r[1]):#x}", "its node on _HEAP.VirtualAllocdBlocks, in segment heaps in the tree of large blocks", right=True, rank=5),
    Column("Address", lambda r: f"{r[0].address:#x}", "what the program got", right=True),
    size_column("Size", lambda r: r[0].size, "bytes the program asked for: CommitSize minus the header's unused count"),
    size_column("Commit", lambda r: r[1].commit_bytes, "_HEAP_VIRTUAL_ALLOC_ENTRY.CommitSize; of a segment heap its AllocatedPages", rank=2),
    size_column("Reserve", lambda r: r[1].reserve_bytes, "_HEAP_VIRTUAL_ALLOC_ENTRY.ReserveSize; of a segment heap by the memory map", rank=3),
    Column("Flags", lambda r: " ".join(_flags(r[0])) or "-", "flags of the entry header", rank=6),
)  # fmt: skip


def _node(large: LargeBlock) -> int:
    return large.list_entry if large.metadata is None else large.metadata


def _flags(block: Block) -> list[str]:
    from heapdump.analyses.blocks.select import flag_words

    return flag_words(block)


@HEAP_OPTION
@dump_command("virt-blocks", takes_expressions=True)
def command(request: Request, heap: str | None) -> int:
    """The large blocks, each with a reservation of its own.

    They are on the heap's VirtualAllocdBlocks list, which WinDbg's !heap -s leaves out of its sums. A broken list is
    followed from both of its ends. A segment heap has them in a tree.

    \b
    heapdump virt-blocks crash.dmp --heap 0x29fb0000
    heapdump virt-blocks crash.dmp --sort size
    """
    with request.open() as snapshot:
        record = _recorder(snapshot)
        rows = request.rows(_rows(snapshot, heap_in(request, snapshot, heap)), record)
        answer = Answer(
            "virt-blocks",
            data=lambda: [record(row) for row in rows],
            records=lambda: (record(row) for row in rows),
            page=lambda: _page(request, snapshot, rows),
            gaps=walk_gaps(snapshot),
        )
        return request.emit(snapshot, answer)


def _rows(snapshot: Snapshot, heap: int | None) -> list[Row]:
    import numpy as np

    from heapdump.analyses.blocks.locate import Owners
    from heapdump.analyses.blocks.select import Filter, select

    table = snapshot.walk.table
    rows = np.sort(
        np.concatenate([select(table, snapshot.heaps, Filter(heap=heap, kind=kind)) for kind in ("virtual", "large")])
    )
    owners, stacks = Owners(snapshot.heaps), snapshot.stacks.numbers(rows).tolist()
    found = ((block, owners.large_block(block), stack) for block, stack in zip(table.blocks(rows), stacks, strict=True))
    return [(block, large, stack) for block, large, stack in found if large is not None]


def _recorder(snapshot: Snapshot) -> Callable[[Row], Record]:
    recorder = BlockRecorder(snapshot)

    def record(row: Row) -> Record:
        """The JSON record of a large block."""
        block, large, stack = row
        return recorder.record(block, stack) | {
            "list_entry": hex(_node(large)),
            "commit_bytes": large.commit_bytes,
            "reserve_bytes": large.reserve_bytes,
        }

    return record


def _page(request: Request, snapshot: Snapshot, rows: Sequence[Row]) -> list[PageItem]:
    shown, hidden = request.shown(rows)
    words = BlockWords(request, snapshot, (row[0].row for row in shown))
    columns = (*VIEW, *word_columns(words, lambda row: row[0].row))
    page: list[PageItem] = [Table(columns, shown, hidden=hidden, empty="no large block")]
    if rows:
        requested, committed = sum(row[0].size for row in rows), sum(row[1].commit_bytes for row in rows)
        sizes = f"{text.size(requested)} requested, {text.size(committed)} committed"
        page.append(Lines([[(f"{text.plural(len(rows), 'large block')}: {sizes}", "")]]))
        page.append(_groups(request, rows))
    findings = [f for heap in snapshot.heaps for f in heap.findings if f.kind in ("virtual_list", "large_metadata")]
    if findings:
        page.append(Lines([[(finding.message, "red")] for finding in findings]))
    return page


def _groups(request: Request, rows: Sequence[Row]) -> Table[SizeGroup]:
    """A line for each size, most bytes first."""
    from collections import Counter

    from heapdump.analyses.blocks.select import SizeGroup
    from heapdump.commands.blocks import GROUPS

    total = sum(row[0].size for row in rows) or 1
    sizes = Counter(row[0].size for row in rows)
    groups = [SizeGroup(size, count, size * count, size * count / total) for size, count in sizes.items()]
    shown, hidden = request.shown(sorted(groups, key=lambda group: -group.bytes))
    return Table(GROUPS, shown, title="By size", hidden=hidden)
