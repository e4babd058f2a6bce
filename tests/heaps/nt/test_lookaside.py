"""Blocks on lookaside lists before Vista: joined as RtlWalkHeap joins them, and told where a list is cut."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump.snapshot import Snapshot
from heapdump.trust import Trust
from tests.builders import BuiltDump
from tests.heaps.nt.plans import Generation, heap_of, process_of
from tests.heaps.test_check import lookaside_heap
from tests.patching import peek, poke, position, without_memory, word

EACH = pytest.mark.parametrize("generation", [Generation("x86", 2600), Generation("x64", 3790)], ids=str)


def free_rows(snapshot: Snapshot) -> list[tuple[int, int]]:
    """(entry, occupied bytes) of all free blocks."""
    table = snapshot.walk.table
    return [(block.entry, block.entry_size) for block in table.blocks(np.flatnonzero(~table.is_busy))]


@EACH
def test_neighbouring_free_entries_stay_apart(open_built, generation):
    """As those of a heap with HEAP_DISABLE_COALESCE_ON_FREE, or two that are too long together."""
    heap = heap_of(generation, [("busy", 40), ("free", 9), ("free", 12), ("busy", 40)], front_end="lookaside").build()
    with open_built(process_of(generation, heap).build()) as snapshot:
        assert free_rows(snapshot) == [(block.entry, block.entry_size) for block in heap.truth.free]


def on_lists(generation: Generation) -> tuple[BuiltDump, list[int]]:
    """A dump whose blocks 2 and 3 of 40 bytes, neighbours, are on their lookaside list; their addresses."""
    built, users, _ = lookaside_heap(generation)
    neighbour = users[0] + (users[1] - users[0]) // 2
    wide = 8 if generation.arch == "x64" else 4
    links = [(users[0], word(neighbour, wide)), (neighbour, word(users[2], wide))]
    return poke(built, *links), [users[0], neighbour]


@EACH
@pytest.mark.parametrize("flags", [0, 0x80])
def test_neighbours_on_a_list_are_one_free_block_where_the_heap_coalesces(open_built, generation, flags):
    built, (first, second) = on_lists(generation)
    place = generation.base + (0x14 if generation.arch == "x64" else 0x0C)  # _HEAP.Flags
    built = poke(built, (place, word(peek(built, place, 4) | flags, 4)))
    with open_built(built) as snapshot:
        granule = 16 if generation.arch == "x64" else 8
        entries = [entry for entry, _ in free_rows(snapshot)]
        assert first - granule in entries
        assert (second - granule in entries) is bool(flags)


@EACH
def test_blocks_on_the_lost_end_of_a_list_are_free_and_a_guess(open_built, generation):
    built, users, other = lookaside_heap(generation)
    wide = 8 if generation.arch == "x64" else 4
    assert position(built, users[0])
    with open_built(without_memory(built, (users[0], users[0] + wide))) as snapshot:
        table = snapshot.walk.table
        busy = set(table.address[table.is_busy].tolist())
        assert not busy & set(users)
        assert other in busy
        lost = {b.address: b.trust for b in table.blocks(np.flatnonzero(~table.is_busy)) if b.address in users}
        assert lost[users[1]] is lost[users[2]] is Trust.GUESS
        assert not [explained for explained in snapshot.explained_findings if explained.finding.is_error]


@EACH
@pytest.mark.parametrize("front_end", ["lookaside", "lfh"])
@pytest.mark.parametrize("bit", [4, 9])
def test_the_block_of_the_lists_is_internal_whatever_first_entry_says(open_built, generation, front_end, bit):
    heap = heap_of(generation, [("busy", 40), ("busy", 400)], front_end=front_end).build()
    wide = 8 if generation.arch == "x64" else 4
    built = process_of(generation, heap).build()
    place = peek(built, generation.base + (0x58 if wide == 4 else 0xA0), wide) + (0x20 if wide == 4 else 0x38)
    with open_built(built) as snapshot:
        expected = users(snapshot)
    with open_built(poke(built, (place, word(peek(built, place, wide) ^ 1 << bit, wide)))) as snapshot:
        assert users(snapshot) == expected
        assert [finding.address for finding in snapshot.heaps[0].findings] == [place]


def users(snapshot: Snapshot) -> list[int]:
    """Addresses of the busy blocks of the program."""
    table = snapshot.walk.table
    return [int(at) for at in table.address[table.is_busy & ~table.is_internal]]
