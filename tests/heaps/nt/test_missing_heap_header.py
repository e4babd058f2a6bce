"""Large blocks tell their heap where the dump lacks its header and its entries are too few for the key."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump.blocks.kind import BlockKind, HeapKind
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.heaps.nt.damage import program_blocks
from tests.heaps.nt.plans import Generation, heap_of, process_of
from tests.patching import peek, poke, without_memory, word

GENERATIONS = [Generation("x64", 19041), Generation("x64", 7601), Generation("x86", 7601), Generation("x86", 19041)]
PAGE = 0x1000


@pytest.mark.parametrize("generation", GENERATIONS, ids=str)
def test_large_blocks_that_link_to_a_heap_without_header_are_guesses_of_it(open_built, generation):
    """Their sizes are encoded with a key that is not known."""
    heap = heap_of(generation, [("busy", 40), ("virtual", 0x80000), ("busy", 50), ("virtual", 0x91234)]).build()
    dump = process_of(generation, heap).build()
    start, users = heap.truth.address, {block.user for block in heap.truth.large}
    with open_built(dump) as snapshot:
        known = {address: size for address, (size, _) in program_blocks(snapshot).items() if address in users}
    with open_built(without_memory(dump, (start, start + PAGE))) as snapshot:
        (found,) = snapshot.heaps
        table = snapshot.walk.table
        rows = list(table.blocks(np.flatnonzero(table.kind == BlockKind.VIRTUAL)))
        assert found.kind is HeapKind.NT and not found.is_fully_walked and found.reserved_bytes is None
        assert {block.address for block in rows} == set(known) and {block.trust for block in rows} == {"guess"}
        assert all(known[block.address] <= block.size < known[block.address] + 2 * PAGE for block in rows)
        assert not snapshot.damage.findings and sum("is a guess" in gap for gap in snapshot.walk.gaps) == len(users)


@pytest.mark.parametrize("generation", GENERATIONS, ids=str)
def test_memory_that_does_not_link_to_the_heap_proves_none(open_built, generation):
    heap = heap_of(generation, [("busy", 40), ("virtual", 0x80000)]).build()
    dump, pointer = process_of(generation, heap).build(), 8 if generation.arch == "x64" else 4
    node, start = heap.truth.large[0].list_entry, heap.truth.address
    wrong = [(node + at, word(peek(dump, node + at, pointer) + 0x100, pointer)) for at in (0, pointer)]
    with open_built(without_memory(poke(dump, *wrong), (start, start + PAGE))) as snapshot:
        (found,) = snapshot.heaps
        assert found.kind is HeapKind.UNKNOWN and not len(snapshot.walk.table)


@pytest.mark.parametrize("handle", [0xFFFFFFFFFFFFFFF0, 0xFFFFFFFFFFFFFF00, 0xFFFFFFFFFFFF0000])
@pytest.mark.parametrize("build", [7601, 9600, 19041, 26100])
def test_a_handle_at_the_end_of_the_address_space_ends_nothing(open_built, build, handle):
    heap = NtHeapBuilder(base=0x28A65B00000, build=build)
    users = [heap.busy(40) for _ in range(9)]
    process = ProcessBuilder(build=build).heap(heap.build()).heap_handle(handle)
    with open_built(process.build()) as snapshot:
        assert len(snapshot.heaps) >= 1
        assert len(snapshot.walk.table) >= len(users)
