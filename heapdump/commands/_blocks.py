"""Records and columns of blocks, for every command that shows some."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.render import text
from heapdump.render.view import Column, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from heapdump.blocks.records import Heap
    from heapdump.blocks.table import Block
    from heapdump.commands._shared import Request
    from heapdump.process.symbols import Frame
    from heapdump.session import Snapshot

_BATCH = 4096
STATES = {"busy": "", "free": "dim"}


class Recorder:
    """Makes the JSON records of blocks (interface.md)."""

    def __init__(self, snapshot: Snapshot) -> None:
        """One for all blocks of a dump."""
        from heapdump.analyses.blocks import KIND_NAMES, Owners, flag_words

        self._snapshot = snapshot
        self._heaps = [hex(heap.address) for heap in snapshot.heaps]
        self._kinds, self._flag_words = KIND_NAMES, flag_words
        self.owners = Owners(snapshot.heaps)

    def of(self, rows: NDArray[np.int64]) -> Iterator[Record]:
        """The records of table rows, one after the other."""
        for first in range(0, len(rows), _BATCH):
            batch = rows[first : first + _BATCH]
            numbers = self._snapshot.stacks.numbers(batch).tolist()
            yield from map(self.record, self._snapshot.walk.table.blocks(batch), numbers)

    def __call__(self, block: Block) -> Record:
        """The record of one block."""
        return self.record(block, stack_number(self._snapshot, block))

    def record(self, block: Block, stack: int) -> Record:
        """The record of a block whose stack number is known (0: none)."""
        segment = self.owners.segment(block)
        return {
            "address": hex(block.address),
            "entry": hex(block.entry),
            "heap": self._heaps[block.heap],
            "segment": None if segment is None else hex(segment),
            "kind": self._kinds[block.kind],
            "state": block.state,
            "size": block.size,
            "entry_size": block.entry_size,
            "flags": self._flag_words(block) if block.flags & ~1 or block.is_internal else [],
            "stack": stack or None,
            "trust": block.trust.value,
        }


def stack_number(snapshot: Snapshot, block: Block) -> int:
    """The number of the stack that allocated the block, 0 where none is recorded."""
    import numpy as np

    return int(snapshot.stacks.numbers(np.array([block.row], np.int64))[0])


def frame_record(frame: Frame) -> Record:
    """A frame (interface.md, F)."""
    return {
        "address": hex(frame.address),
        "module": frame.module,
        "symbol": frame.symbol,
        "offset": frame.offset,
        "file": frame.file,
        "line": frame.line,
        "trust": frame.trust,
        **({"note": frame.note} if frame.note else {}),
    }


def frames_of(request: Request, snapshot: Snapshot, block: Block) -> list[Frame]:
    """The frames of the stack that allocated the block, innermost first; none where none is recorded."""
    stack = stack_number(snapshot, block)
    namer = snapshot.namer(request.image_path, request.symbol_path)
    addresses = snapshot.stacks.frames(snapshot.heaps[block.heap], stack)
    return [frame for address in addresses for frame in namer.frames(address)]


def columns(heaps: Sequence[Heap]) -> tuple[Column[Block], ...]:
    """The table's columns."""
    from heapdump.analyses.blocks import flag_words

    return (
        Column("Address", lambda b: f"{b.address:#x}", "what the program got; of a free block where it would start", right=True),
        Column("Entry", lambda b: f"{b.entry:#x}", "its entry header", right=True, rank=3),
        Column("Heap", lambda b: f"{heaps[b.heap].address:#x}", "handle of its heap", right=True, rank=1),
        Column("Kind", lambda b: b.kind.name.lower(), "backend, lfh, virtual (a reservation of its own) or lookaside; of segment heaps vs, lfh, pages (whole page ranges) or large"),
        Column("State", lambda b: b.state + ("" if b.trust.value == "exact" else "~"), "busy or free; ~ = behind damage, or with a damaged header", style=lambda b: STATES[b.state]),
        Column("Size", lambda b: text.count(b.size), "bytes the program asked for (entry size minus unused bytes)", right=True),
        Column("EntrySize", lambda b: text.count(b.entry_size), "bytes it occupies, header included", right=True, rank=2),
        Column("Flags", lambda b: " ".join(flag_words(b)), "flags of the entry header", rank=4),
    )  # fmt: skip


def walk_gaps(snapshot: Snapshot) -> tuple[str, ...]:
    """Everything that keeps the block list from being whole."""
    from heapdump.commands._shared import heap_gaps

    return (*snapshot.gaps, *heap_gaps(snapshot.heaps), *snapshot.walk.gaps)
