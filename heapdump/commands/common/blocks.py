"""Blocks as JSON records and as columns of tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.render import text
from heapdump.render.view import Column, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from heapdump.analyses.allocated.crt import CrtBlock
    from heapdump.blocks.heap import Heap
    from heapdump.blocks.table import Block
    from heapdump.snapshot import Snapshot

_BATCH = 4096
"""Rows whose stacks are read together."""

_TOGETHER = 512
"""The same for single blocks: so few that a damaged header of the CRT is told as that of one block (`heaps.crt`)."""

_STATE_STYLES = {"busy": "", "free": "dim"}


class BlockRecorder:
    """Makes the JSON records of blocks (interface.md)."""

    def __init__(self, snapshot: Snapshot) -> None:
        """One for all blocks of a dump."""
        from heapdump.analyses.blocks.locate import Owners
        from heapdump.analyses.blocks.page_heap import is_free_stack
        from heapdump.analyses.blocks.select import flag_words

        self._snapshot = snapshot
        self._heaps = [hex(heap.address) for heap in snapshot.heaps]
        self._flag_words, self._is_free_stack = flag_words, is_free_stack
        self.owners = Owners(snapshot.heaps)
        self._known: dict[int, Record] = {}

    def of(self, rows: NDArray[np.int64]) -> Iterator[Record]:
        """The records of table rows, one after the other."""
        for batch in self.batches(rows):
            yield from self.records(*batch)

    def batches(
        self, rows: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint64], dict[int, Record]]]:
        """(some of the rows, the stack number of each, row → record of the CRT's debug header), one after the other."""
        for first in range(0, len(rows), _BATCH):
            batch = rows[first : first + _BATCH]
            yield batch, self._snapshot.stacks.numbers(batch), crt_records(self._snapshot, batch)

    def records(
        self, rows: NDArray[np.int64], stacks: NDArray[np.uint64], crt: Mapping[int, Record]
    ) -> Iterator[Record]:
        """The records of one of the `batches`."""
        for block, number in zip(self._snapshot.walk.table.blocks(rows), stacks.tolist(), strict=True):
            more = crt.get(block.row)
            yield self.record(block, number) | ({"crt": more} if more else {})

    def expect(self, rows: Iterable[int]) -> None:
        """Makes the records of these rows together, which is quicker; they replace those that were expected before."""
        import numpy as np

        wanted = np.array(sorted(set(rows)), np.int64)
        self._known = {}
        for first in range(0, len(wanted), _TOGETHER):
            batch = wanted[first : first + _TOGETHER]
            self._known.update(zip(batch.tolist(), self.of(batch), strict=True))

    def __call__(self, block: Block) -> Record:
        """The record of one block."""
        import numpy as np

        known = self._known.get(block.row)
        return known if known is not None else next(self.of(np.array([block.row], np.int64)))

    def record(self, block: Block, stack: int) -> Record:
        """The record of a block whose stack number is known (0: none)."""
        segment = self.owners.segment(block)
        return {
            "address": hex(block.address),
            "entry": hex(block.entry),
            "heap": self._heaps[block.heap],
            "segment": None if segment is None else hex(segment),
            "kind": block.kind.word,
            "state": block.state,
            "size": block.size,
            "entry_size": block.entry_size,
            "flags": self._flag_words(block),
            "stack": None if self._is_free_stack(block) else stack or None,
            "trust": block.trust.value,
            **({"free_stack": stack or None} if self._is_free_stack(block) else {}),
        }


def crt_blocks(snapshot: Snapshot, rows: NDArray[np.int64]) -> dict[int, CrtBlock]:
    """Row → the header of the CRT's debug heap, for the rows that are blocks of it."""
    from heapdump.analyses.allocated.crt import describe

    found = snapshot.crt.blocks(rows)
    return dict(zip(found.row.tolist(), describe(snapshot.process.space, found), strict=True)) if len(found) else {}


def crt_records(snapshot: Snapshot, rows: NDArray[np.int64]) -> dict[int, Record]:
    """Row → the header of the CRT's debug heap as a JSON record, for the rows that are blocks of it."""
    return {
        row: {
            "address": hex(block.address), "size": block.size, "file": block.file, "line": block.line,
            "request": block.request, "use": block.use, "subtype": block.subtype, "damage": list(block.damage),
        }
        for row, block in crt_blocks(snapshot, rows).items()
    }  # fmt: skip


_TRUST_SIGNS = {"exact": "", "derived": "~", "guess": "?"}


def block_columns(heaps: Sequence[Heap]) -> tuple[Column[Block], ...]:
    """The table's columns."""
    from heapdump.analyses.blocks.select import flag_words

    return (
        Column("Address", lambda b: f"{b.address:#x}", "what the program got; of a free block where it would start", right=True),
        Column("Entry", lambda b: f"{b.entry:#x}", "its entry header", right=True, rank=5),
        Column("Heap", lambda b: f"{heaps[b.heap].address:#x}", "handle of its heap", right=True, rank=2, folds=True),
        Column("Kind", lambda b: b.kind.word, "backend, lfh, virtual (a reservation of its own), lookaside or page; of segment heaps vs, lfh, pages (whole page ranges) or large", folds=True),
        Column("State", lambda b: b.state + _TRUST_SIGNS[b.trust.value], "busy or free; ~ = behind damage, or with a damaged header; ? = state or size is a guess; of LFH blocks in segment heaps the bitmap alone tells", style=lambda b: _STATE_STYLES[b.state], folds=True),
        Column("Size", lambda b: text.count(b.size), "bytes the program asked for (entry size minus unused bytes, of which in segment heaps nothing else tells)", right=True),
        Column("EntrySize", lambda b: text.count(b.entry_size), "bytes it occupies, header included", right=True, rank=4),
        Column("Flags", lambda b: " ".join(flag_words(b)), "flags of the entry header", rank=6),
    )  # fmt: skip
