"""Overwritten metadata of recorded segment heaps: no block lost without a word, none invented, no wrong size that is exact.

`make fuzz` counts, as for NT heaps (`test_fuzz_metadata`). What nothing witnesses is left alone: counts of unused bytes;
bitmaps of LFH subsegments on 26100, where free blocks are not counted, and elsewhere changes that leave as many busy bits
(docs/reference/heap-structures.md §6.5).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind, HeapKind
from heapdump.layouts import load
from heapdump.snapshot import Snapshot
from tests.heaps.nt.damage import Place
from tests.real.metadata_damage import tally_of_damages

pytestmark = pytest.mark.real
HEAPS = [
    ("oracle/14393.447", "segment-process"), ("hard/16299.15", "segment"), ("hard/17763.475", "seglife"),
    ("oracle/19041.508", "segment-ust"), ("hard/19041.804-x86", "seglife"), ("oracle/22000.778", "segment-process"),
    ("hard/26100.4061", "seglife"),
]  # fmt: skip
_MOST_OF_A_KIND = 40


def _of_subsegments(snapshot: Snapshot, heap: Heap) -> Iterator[Place]:
    """Headers of subsegments, bitmaps, headers of chunks and nodes of the tree of free ones."""
    table, layout = snapshot.walk.table, load(heap.layout or "")
    lfh, wide = layout["_HEAP_LFH_SUBSEGMENT"], snapshot.view_of(heap).pointer_bytes == 8
    own = np.flatnonzero((table.heap == heap.index) & table.is_internal)
    for block in table.blocks(own):
        low, high = (int(np.searchsorted(table.entry, at)) for at in (block.entry + 1, block.entry + block.entry_size))
        inside = np.arange(low, high)
        if not len(inside) or table.is_internal[inside].any():
            continue
        bitmap = lfh.offset("BlockBitmap")
        if table.kind[low] == BlockKind.LFH:
            yield Place(block.entry, bitmap, "LFH header")
            if "State" not in lfh:
                yield Place(block.entry + bitmap, max(1, len(inside) // 4), "LFH bitmap")
            continue
        yield Place(block.entry, layout["_HEAP_VS_SUBSEGMENT"].size, "VS header")
        for chunk in table.blocks(inside[:: max(1, len(inside) // _MOST_OF_A_KIND)]):
            # MemoryCost, bits 0-15 or 0, is the heap's own business
            yield Place(chunk.entry + (2 if wide else 0), 6 if wide else 4, "chunk header")
            if chunk.state == "free" and chunk.entry_size > 4 * snapshot.view_of(heap).pointer_bytes:
                yield Place(chunk.entry + snapshot.view_of(heap).pointer_bytes, 24 if wide else 12, "free chunk")


def metadata(snapshot: Snapshot, rng: random.Random, count: int) -> list[Place]:
    """Headers of heaps, contexts, segments, subsegments and chunks, page descriptors, bitmaps, nodes of large blocks."""
    kinds: dict[str, list[Place]] = {}
    for heap in snapshot.heaps:
        if heap.kind is not HeapKind.SEGMENT or heap.layout is None:
            continue
        layout, pointer = load(heap.layout), snapshot.view_of(heap).pointer_bytes
        found = [Place(heap.address, layout["_SEGMENT_HEAP"].size, "heap header")]
        for segment in heap.segments:
            found.append(Place(segment.address, 3 * pointer, "segment header"))
            struct = layout["_HEAP_PAGE_RANGE_DESCRIPTOR"]
            unused = struct.fields["UnusedBytes"].offset
            first = -(-256 * struct.size // (segment.span.size // 256))
            for at in range(segment.address + first * struct.size, segment.address + 256 * struct.size, struct.size):
                if any(snapshot.process.space.read(at, struct.size)):
                    found.append(Place(at, min(unused, 4), "descriptor"))
                    found.append(Place(at + struct.offset("RangeFlags"), 1, "descriptor"))
                    found.append(Place(at + struct.offset("UnitSize"), 1, "descriptor"))
        found += [Place(b.metadata or 0, 3 * pointer, "large node") for b in heap.large_blocks or ()]
        found += [
            Place((b.metadata or 0) + 3 * pointer + 2, pointer - 2, "large node") for b in heap.large_blocks or ()
        ]
        for place in (*found, *_of_subsegments(snapshot, heap)):
            kinds.setdefault(place.what, []).append(place)
    return [rng.choice(kinds[rng.choice(sorted(kinds))]) for _ in range(count)]


def busy_bits(bitmap: bytes) -> int:
    """Busy blocks by a part of a bitmap: every other bit."""
    return sum((byte & 0x55).bit_count() for byte in bitmap)


def is_witnessed(place: Place, old: bytes, new: bytes) -> bool:
    """A bitmap with as many busy blocks is as good as the right one."""
    return place.what != "LFH bitmap" or busy_bits(new) != busy_bits(old)


@pytest.mark.parametrize(("folder", "scenario"), HEAPS)
def test_damaged_metadata_lose_no_block_silently_and_invent_none(
    recorded, record_property, tmp_path: Path, folder, scenario
):
    path = recorded(f"{folder}/{scenario}.dmp.xz")
    tally = tally_of_damages(path, f"{folder} {scenario}", metadata, tmp_path / "x.dmp", is_witnessed)
    tally.record(record_property)
    tally.assert_none()
