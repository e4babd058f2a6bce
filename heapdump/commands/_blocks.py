"""Records and columns of blocks, for every command that shows some."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.render import text
from heapdump.render.view import Column, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heapdump.blocks.records import Heap
    from heapdump.blocks.table import Block
    from heapdump.session import Snapshot

STATES = {"busy": "", "free": "dim"}


class Recorder:
    """Makes the JSON records of blocks (interface.md)."""

    def __init__(self, snapshot: Snapshot) -> None:
        """One for all blocks of a dump."""
        from heapdump.analyses.blocks import KIND_NAMES, Owners, flag_words

        self._heaps = [hex(heap.address) for heap in snapshot.heaps]
        self._kinds, self._flag_words = KIND_NAMES, flag_words
        self.owners = Owners(snapshot.heaps)

    def __call__(self, block: Block) -> Record:
        """The record of one block; `stack` is null: stacks are not read by this version."""
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
            "stack": None,
            "trust": block.trust.value,
        }


def columns(heaps: Sequence[Heap]) -> tuple[Column[Block], ...]:
    """The table's columns."""
    from heapdump.analyses.blocks import flag_words

    return (
        Column("Address", lambda b: f"{b.address:#x}", "what the program got; of a free block where it would start", right=True),
        Column("Entry", lambda b: f"{b.entry:#x}", "its entry header", right=True, rank=3),
        Column("Heap", lambda b: f"{heaps[b.heap].address:#x}", "handle of its heap", right=True, rank=1),
        Column("Kind", lambda b: b.kind.name.lower(), "backend, lfh, virtual (a reservation of its own) or lookaside"),
        Column("State", lambda b: b.state + ("" if b.trust.value == "exact" else "~"), "busy or free; ~ = behind damage, or with a damaged header", style=lambda b: STATES[b.state]),
        Column("Size", lambda b: text.count(b.size), "bytes the program asked for (entry size minus unused bytes)", right=True),
        Column("EntrySize", lambda b: text.count(b.entry_size), "bytes it occupies, header included", right=True, rank=2),
        Column("Flags", lambda b: " ".join(flag_words(b)), "flags of the entry header", rank=4),
    )  # fmt: skip


def walk_gaps(snapshot: Snapshot) -> tuple[str, ...]:
    """Everything that keeps the block list from being whole."""
    from heapdump.commands._shared import heap_gaps

    return (*snapshot.gaps, *heap_gaps(snapshot.heaps), *snapshot.walk.gaps)
