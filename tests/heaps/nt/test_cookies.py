"""Header cookies of XP: SmallTagIndex = entry / 8 XOR the heap's cookie."""

from __future__ import annotations

import pytest

from tests.heaps.nt.plans import Generation, heap_of, process_of
from tests.patching import peek, poke

XP = Generation("x86", 2600)


@pytest.mark.parametrize("cookie", [0, 0x5A])
@pytest.mark.parametrize("what", ["busy", "virtual"])
def test_a_cookie_that_is_not_the_heap_s_is_found(open_built, cookie, what):
    """A header byte that was decremented is seen, too."""
    heap = heap_of(XP, [("busy", 40)] * 20 + [("virtual", 0x80000)]).build()
    user = heap.truth.busy[7].user if what == "busy" else heap.truth.large[0].list_entry + 0x20
    entries = [block.entry for block in heap.truth.busy]
    built = process_of(XP, heap).build()
    changes = [(entry + 4, bytes([entry >> 3 & 0xFF ^ cookie])) for entry in entries]
    built = poke(built, *changes, (heap.truth.large[0].list_entry + 0x1C, bytes([cookie])))
    with open_built(built) as snapshot:
        assert not snapshot.explained_findings
    place = user - 4
    with open_built(poke(built, (place, bytes([peek(built, place, 1) - 1 & 0xFF])))) as snapshot:
        (found,) = snapshot.explained_findings
        assert (found.finding.kind, found.finding.address) == ("entry_header", place)


def test_a_heap_without_cookies_has_none(open_built):
    """XP before SP2: SmallTagIndex is 0 or whatever was there."""
    heap = heap_of(XP, [("busy", 40)] * 20).build()
    changes = [(block.entry + 4, bytes([i * 37 & 0xFF])) for i, block in enumerate(heap.truth.busy)]
    with open_built(poke(process_of(XP, heap).build(), *changes)) as snapshot:
        assert not snapshot.explained_findings


@pytest.mark.parametrize("generation", [XP, Generation("x64", 3790)], ids=str)
def test_large_blocks_alone_do_not_give_a_heap_a_cookie(open_built, generation):
    """Their list entries lie on 64 KiB boundaries: the same byte in each of them tells nothing."""
    heap = heap_of(generation, [("busy", 40)] * 3 + [("virtual", 0x80000)] * 12).build()
    changes = [
        (block.entry + (12 if generation.arch == "x64" else 4), bytes([77 * i & 0xFF]))
        for i, block in enumerate(heap.truth.busy[:3])
    ]
    with open_built(poke(process_of(generation, heap).build(), *changes)) as snapshot:
        assert not snapshot.explained_findings


@pytest.mark.parametrize("shift", [3, 4])
def test_blocks_of_x64_decide_by_which_unit_their_cookie_counts(open_built, shift):
    generation = Generation("x64", 3790)
    heap = heap_of(generation, [("busy", 40)] * 30).build()
    changes = [(block.entry + 12, bytes([block.entry >> shift & 0xFF ^ 0x5A])) for block in heap.truth.busy]
    built = poke(process_of(generation, heap).build(), *changes)
    with open_built(built) as snapshot:
        assert not snapshot.explained_findings
    place = heap.truth.busy[9].entry + 12
    with open_built(poke(built, (place, bytes([peek(built, place, 1) ^ 0x10])))) as snapshot:
        (found,) = snapshot.explained_findings
        assert found.finding.address == place
