"""Random damage to the metadata of built NT heaps: no block lost without a word, none invented, no wrong size exact.

`make fuzz` draws more, and prints the counts. A byte that nothing witnesses is left alone: that of a header which alone
says how many bytes were asked for, and before Vista the flags.
"""

from __future__ import annotations

import os
import random
from functools import cache

import pytest

from tests.builders import BuiltDump, BuiltHeap, NtHeapBuilder
from tests.builders.nt_heap_layout import heap_layout
from tests.builders.nt_heap_lfh_layout import lfh_layout
from tests.heaps.nt.damage import NEW, Known, Place, Tally, compare, program_blocks
from tests.heaps.nt.plans import Generation, process_of
from tests.patching import peek, poke

ROUNDS = int(os.environ.get("HEAPDUMP_FUZZ", "1"))
GENERATIONS = [
    Generation("x86", 2600), Generation("x64", 6002), Generation("x86", 7601), Generation("x64", 7601), Generation("x86", 9200),
    Generation("x64", 9600), Generation("x86", 19041), Generation("x64", 26100),
]  # fmt: skip


def built_heap(generation: Generation) -> BuiltHeap:
    """A heap with two segments, subsegments of the LFH, free blocks, uncommitted ranges and large blocks."""
    draw = random.Random(f"{generation}")
    heap = NtHeapBuilder(
        arch=generation.arch, build=generation.build, base=generation.base, reserve=0x80000, flags=0x1002,
        seed=5, front_end="lfh",
    )  # fmt: skip
    for part in range(2):
        if part:
            heap.uncommitted(0x3000)
            heap.segment(generation.base + 0x200000, 0x80000)
        for i in range(40):
            heap.busy(draw.choice([8, 24, 100, 300, 700, 3000]))
            if i % 5 == 4:
                heap.free(draw.randrange(2, 60))
            if i % 13 == 6:
                units = draw.choice([4, 6, 9])
                most = units * (16 if generation.arch == "x64" else 8) - 8
                heap.subsegment(units, [draw.choice([-1, most, most - 3]) for _ in range(30)])
    for i in range(3):
        heap.virtual(generation.base + 0x1000000 + i * 0x400000, 0x80000 + i * 100)
    return heap.build()


def metadata(generation: Generation, heap: BuiltHeap) -> list[Place]:
    """Headers of heap, segments, entries and blocks, subsegments and user data headers, links, large blocks."""
    layout, truth = heap_layout(generation.arch, generation.build), heap.truth
    # before Vista nothing witnesses flags and unused bytes
    code, length, granule = layout.code, 4 if generation.is_classic else 7, layout.granule
    places = [Place(truth.address, layout.size, "_HEAP")] * 10
    places += [Place(start, 8 * layout.pointer, "segment") for start, _ in truth.segments[1:]] * 10
    for block in truth.large:
        places += [Place(block.list_entry, 4 * layout.pointer, "large block")] * 3
        places.append(Place(block.user - granule + code, length, "header of a large block"))
    entries = [block.entry for block in (*truth.busy, *truth.internal)] + [block.entry for block in truth.free]
    places += [Place(entry + code, length, "entry header") for entry in entries]
    places += [Place(entry.entry + granule, granule, "free links") for entry in truth.free]
    size = lfh_layout(generation.arch, generation.build).subsegment_bytes
    for sub in truth.lfh:
        places += [Place(sub.user_blocks, sub.blocks[0].entry - sub.user_blocks, "user blocks")] * 8
        places += [Place(sub.address, size, "subsegment")] * 8
        places += [Place(block.entry + code, length, "header of an LFH block") for block in sub.blocks[::4]]
    return places


@cache
def built(generation: Generation) -> tuple[BuiltDump, BuiltHeap]:
    heap = built_heap(generation)
    return process_of(generation, heap).build(), heap


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("generation", GENERATIONS, ids=str)
def test_random_damage_loses_no_block_silently_and_invents_none(open_built, record_property, generation, number):
    dump, heap = built(generation)
    draw, tally = random.Random(f"{generation} {number} {ROUNDS}"), Tally()
    with open_built(dump) as snapshot:
        assert not snapshot.explained_findings
        known: Known = program_blocks(snapshot)
    for place in draw.choices(metadata(generation, heap), k=ROUNDS):
        start = draw.randrange(place.length)
        new = draw.choice((*NEW, draw.randbytes(8)))[: min(draw.choice((1, 2, 4, 8)), place.length - start)]
        address = place.address + start
        if new == peek(dump, address, len(new)).to_bytes(len(new), "little"):
            continue
        with open_built(poke(dump, (address, new))) as snapshot:
            what = f"{place.what}+{start:#x} at {address:#x} = {new.hex()}"
            compare(tally, what, snapshot, known, range(address, address + len(new)), needs_gap=True)
    tally.record(record_property)
    tally.assert_none()
