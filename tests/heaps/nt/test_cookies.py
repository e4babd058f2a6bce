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
