"""Overwritten metadata of recorded NT heaps: no block lost without a word, none invented, no wrong size that is exact.

`make fuzz` counts: silent losses, wrong sizes and false busy blocks with trust exact (none may be), and blocks that are
lost beyond the damaged bytes. A byte that nothing witnesses is left alone: the last one of a header word, which alone
says how many bytes were asked for.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from heapdump.blocks.kind import BlockKind
from heapdump.heaps.nt.context import heap_context
from heapdump.snapshot import Snapshot
from tests.heaps.nt.damage import Place
from tests.real.metadata_damage import tally_of_damages

pytestmark = pytest.mark.real
HEAPS = [
    ("oracle/19041.508", "lfh"), ("oracle/7601.17514", "threads"), ("oracle/26100.4061", "leak-ust"), ("hard/9600.16384", "life"),
    ("oracle/19041.804-x86", "lfh"), ("hard/9200.16578-x86", "life"), ("oracle/2600.5512", "lfh"),
]  # fmt: skip


def metadata(snapshot: Snapshot, rng: random.Random, count: int) -> list[Place]:
    """Headers of entries and blocks, user data headers, subsegments, heap headers, list entries of large blocks."""
    table, places = snapshot.walk.table, list[Place]()
    heaps = [heap for heap in snapshot.heaps if heap.kind == "nt" and heap.layout is not None]
    for heap in heaps:
        context = heap_context(snapshot.view_of(heap), heap)
        header, offset = context.layout["_HEAP_USERDATA_HEADER"], context.entry_format.word_offset
        places.append(Place(heap.address, context.layout["_HEAP"].size, "_HEAP"))
        places += [
            Place(block.list_entry + (0x38 if offset else 0x18), 7, "large") for block in heap.large_blocks or ()
        ]
        rows = np.flatnonzero((table.heap == heap.index) & (table.kind == BlockKind.BACKEND) & table.is_busy)
        for block in table.blocks(rows):
            signature = context.space.try_integer(block.address + header.offset("Signature"), 4)
            if signature == 0xF0E0D0C0:
                subsegment = context.space.try_pointer(block.address) or 0
                places.append(Place(block.address, header.size, "user blocks"))
                places.append(Place(subsegment, context.layout["_HEAP_SUBSEGMENT"].size, "subsegment"))
        others = np.flatnonzero((table.heap == heap.index) & (table.kind != BlockKind.VIRTUAL))
        # before Vista nothing witnesses flags and unused bytes
        length = 4 if context.entry_format.is_pre_vista else 7
        for block in table.blocks(others[:: max(1, len(others) // 60)]):
            places.append(Place(block.entry + offset, length, f"{block.kind} header"))
    return [rng.choice(places) for _ in range(count)]


@pytest.mark.parametrize(("folder", "scenario"), HEAPS)
def test_damaged_metadata_lose_no_block_silently_and_invent_none(
    recorded, record_property, tmp_path: Path, folder, scenario
):
    path = recorded(f"{folder}/{scenario}.dmp.xz")
    tally = tally_of_damages(path, f"{folder} {scenario}", metadata, tmp_path / "x.dmp")
    tally.record(record_property)
    tally.assert_none()
