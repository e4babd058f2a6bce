"""The free lists of the NT heap link exactly the free entries that the walk finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from heapdump.heaps.nt import free_lists
from heapdump.heaps.nt.context import heap_context
from heapdump.spans import Span
from tests.heaps.nt.plans import GENERATIONS, Generation, heap_of, process_of
from tests.patching import peek, poke, word

ACTIONS = [
    ("busy", 40),
    ("free", 20),
    ("busy", 9),
    ("free", 3),
    ("busy", 100),
    ("free", 700),
    ("busy", 5),
    ("free", 20),
    ("busy", 1),
]
TEN = Generation("x64", 19041)


@pytest.mark.parametrize("generation", GENERATIONS, ids=str)
def test_every_free_entry_is_linked(open_built, generation):
    built = heap_of(generation, ACTIONS).build()
    with open_built(process_of(generation, built)) as snapshot:
        lists = snapshot.free_lists(snapshot.heaps[0])
        assert lists is not None and lists.is_complete and lists.findings == ()
        linked = sorted(zip(lists.entry.tolist(), lists.size.tolist(), strict=True))
        assert linked == sorted((free.entry, free.entry_size) for free in built.truth.free)


def test_a_broken_link_is_a_finding_and_the_rest_is_reached_from_the_other_end(open_built):
    built = heap_of(TEN, ACTIONS).build()
    victim = sorted(built.truth.free, key=lambda free: free.entry_size)[1]
    data = poke(process_of(TEN, built).build(), (victim.entry + 16, word(0x4141414141414141)))
    with open_built(data) as snapshot:
        lists = snapshot.free_lists(snapshot.heaps[0])
        assert lists is not None and not lists.is_complete
        assert [(f.kind, f.address) for f in lists.findings] == [("free_list", victim.entry + 16)]
        assert sorted(lists.entry.tolist()) == sorted(free.entry for free in built.truth.free)


def test_lists_that_lead_into_each_other_end(open_built):
    built = heap_of(TEN, ACTIONS).build()
    first, second = (free.entry + 16 for free in built.truth.free[:2])
    data = poke(process_of(TEN, built).build(), (first, word(second)), (second, word(first)))
    with open_built(data) as snapshot:
        lists = snapshot.free_lists(snapshot.heaps[0])
        assert lists is not None and not lists.is_complete
        assert set(lists.entry.tolist()) <= {free.entry for free in built.truth.free}


@pytest.mark.parametrize("generation", GENERATIONS, ids=str)
def test_a_busy_entry_on_a_free_list_is_not_counted_and_the_lists_are_not_whole(open_built, generation):
    built = heap_of(generation, ACTIONS).build()
    victim = built.truth.free[1]
    header = victim.entry + (8 if generation.arch == "x64" else 0)
    dump = process_of(generation, built).build()
    # flags, and with them the checksum of the first three bytes; plain in a header before Vista
    flips = (2, 3) if generation.build >= 6000 else (5,)
    data = poke(dump, *((header + at, bytes([peek(dump, header + at, 1) ^ 1])) for at in flips))
    with open_built(data) as snapshot:
        lists = snapshot.free_lists(snapshot.heaps[0])
        assert lists is not None and not lists.is_complete
        linked = sorted(zip(lists.entry.tolist(), lists.size.tolist(), strict=True))
        assert linked == sorted((free.entry, free.entry_size) for free in built.truth.free if free != victim)


def test_a_heap_of_another_kind_has_none(open_built):
    built = heap_of(TEN, ACTIONS).build()
    with open_built(process_of(TEN, built)) as snapshot:
        assert snapshot.free_lists(replace(snapshot.heaps[0], layout=None)) is None


@pytest.mark.parametrize("bit", [None, 0, 5, 63])
def test_links_are_checked_some_nodes_at_a_time(open_built, monkeypatch, bit):
    """And the pages of the file that these lie in are given back."""
    built = heap_of(Generation("x64", 19041), [("busy", 40), ("free", 6)] * 20).build()
    dump, forgotten = process_of(Generation("x64", 19041), built).build(), list[Span]()
    monkeypatch.setattr(free_lists, "_BATCH", 4)
    if bit is not None:
        node = built.truth.free[7].entry + 16
        dump = poke(dump, (node, word(peek(dump, node) ^ 1 << bit)))
    with open_built(dump) as snapshot:
        context = heap_context(snapshot.process.views[0], snapshot.heaps[0])
        entries = np.array([entry.entry for entry in built.truth.free], np.int64)
        monkeypatch.setattr(type(context.space.mapped), "forget", lambda mapped, span: forgotten.append(span))
        assert free_lists.links_exactly(context, entries) == (bit is None)
        assert all(any(entry in span for span in forgotten) for entry in entries.tolist())
