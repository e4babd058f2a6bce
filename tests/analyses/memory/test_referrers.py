"""Who refers to memory that nothing names, and how it is said."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from heapdump.analyses.memory.pointers_into import pointers_into
from heapdump.analyses.memory.referrers import ReferredMemory, ReferrerKind, ReferrerQuestion, referrers_of
from heapdump.analyses.memory.unnamed import largest_unnamed, unnamed_at
from heapdump.analyses.memory.writable import windows, writable_rows
from heapdump.snapshot import Snapshot
from heapdump.spans import Span
from tests.asking import ask
from tests.builders import BuiltDump, NtHeapBuilder, ProcessBuilder
from tests.patching import poke

ARENA, OTHER, MIB = 0x28A70000000, 0x28B00000000, 1 << 20
ENGINE, ENGINE_BYTES = 0x7FF700000000, 0x10000
DATA = ENGINE + ENGINE_BYTES - 0x2000
HEAP = 0x20000000000
MANY = 1 << 40


def built() -> tuple[BuiltDump, int]:
    """An arena of 1 MiB to which a module's data, three of four stacks and one block point; and that block."""
    process = ProcessBuilder(build=19041)
    process.module(ENGINE, ENGINE_BYTES, r"C:\acme\engine.dll")
    heap = NtHeapBuilder(base=HEAP)
    for _ in range(8):
        heap.busy(64)
    made = heap.build()
    process.heap(made)
    for i in range(4):
        process.thread(100 + i, content=struct.pack("<3Q", 1, ARENA + 0x500 + i, 2) if i < 3 else b"")
    words = struct.pack("<4Q", DATA + 0x100, 0, ARENA + 0x40, 7)
    process.region(ARENA, MIB).memory(ARENA, words.ljust(MIB, b"\0"))
    process.region(OTHER, 0x1000).memory(OTHER, struct.pack("<2Q", ARENA - 8, ARENA + MIB).ljust(0x1000, b"\0"))
    block = made.truth.busy[2].user
    patches = [(DATA + 0x40, struct.pack("<Q", ARENA)), (DATA + 0x48, struct.pack("<Q", ARENA + MIB - 8))]
    patches.append((block + 8, struct.pack("<Q", ARENA + 0x123)))
    return poke(process.build(), *patches), block


def asked(
    snapshot: Snapshot, spans: list[Span], most: int = MANY, done: list[int] | None = None
) -> tuple[ReferredMemory, ...]:
    question = ReferrerQuestion(spans, snapshot.heaps, snapshot.walk.table, most)
    return referrers_of(snapshot.usage, question, lambda at, _: done.append(at) if done is not None else None)


def answer(path: Path, *words: str) -> Any:
    return json.loads(ask(path.parent / "index", [*words, "--json"]).stdout)["data"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    out = tmp_path / "arena.dmp"
    out.write_bytes(built()[0].data)
    return out


def test_words_of_modules_stacks_and_heaps_are_counted_once_each(open_built):
    dump, block = built()
    with open_built(dump) as snapshot:
        (found,) = asked(snapshot, [Span(ARENA, ARENA + MIB)])
        module, *threads, heap = found.places
    assert (module.kind, module.number, module.first, module.words) == (ReferrerKind.MODULE, ENGINE, DATA + 0x40, 2)
    assert [(one.kind, one.number, one.words) for one in threads] == [(ReferrerKind.THREAD, i, 1) for i in range(3)]
    assert (heap.kind, heap.number, heap.first, heap.words) == (ReferrerKind.HEAP, 0, block + 8, 1)
    assert found.is_whole


def test_words_of_free_blocks_and_headers_are_no_referrers(open_built):
    heap = NtHeapBuilder(arch="x86", base=0x1000000)
    heap.busy(100)
    process = ProcessBuilder(arch="x86").heap(heap.build())
    process.thread(8).region(0x40000000, MIB)
    with open_built(process) as snapshot:
        (found,) = asked(snapshot, [Span(0x40000000, 0x40000000 + MIB)])
    assert found.places == ()


def test_a_region_whose_size_is_damaged_costs_what_the_dump_holds_of_it(open_built):
    process = ProcessBuilder(build=19041)
    process.region(ARENA, 1 << 40).memory(ARENA, struct.pack("<2Q", OTHER + 8, 0).ljust(0x1000, b"\0"))
    process.region(OTHER + (1 << 41), 0x1000)
    with open_built(process) as snapshot:
        table = snapshot.process.regions
        (row,) = (i for i in writable_rows(table).tolist() if table.start[i] == ARENA)
        region = Span(ARENA, int(table.end[row]))
        assert [*windows(snapshot.process.space.mapped, region)] == [Span(ARENA, ARENA + 0x1000)]
        target, done = Span(OTHER, OTHER + 0x1000), list[int]()
        assert pointers_into(snapshot.process, [target], 3) == [(ARENA,)]
        (found,) = asked(snapshot, [target], done=done)
        assert [place.first for place in found.places] == [ARENA]
        assert not found.is_whole
        assert len(done) < 50


def test_several_spans_are_searched_at_once(open_built):
    with open_built(built()[0]) as snapshot:
        spans = [Span(OTHER, OTHER + 0x1000), Span(ARENA, ARENA + MIB)]
        other, arena = asked(snapshot, spans)
    assert other.places == ()
    assert len(arena.places) == 5


def test_a_search_that_is_too_large_ends_and_says_so(open_built):
    with open_built(built()[0]) as snapshot:
        done: list[int] = []
        spans = [Span(ARENA, ARENA + MIB)]
        (found,) = asked(snapshot, spans, 0x1000, done)
    assert not found.is_whole
    assert sum(place.words for place in found.places) < 6
    assert done == sorted(done)
    assert max(done, default=0) <= 0x1000


def test_the_largest_unnamed_allocations_come_first(open_built):
    with open_built(built()[0]) as snapshot:
        found = [one.span for one in largest_unnamed(snapshot.usage, 8)]
        assert found[0] == Span(ARENA, ARENA + MIB)
        assert Span(OTHER, OTHER + 0x1000) in found
        assert unnamed_at(snapshot.usage, HEAP) is None
        assert unnamed_at(snapshot.usage, 0x10) is None


def test_regions_block_and_triage_name_who_refers(path):
    said = "referenced from engine.dll!.data+0x40 and 1 more word there, 3 threads (stack of ~0 tid 0x64, rsp+0x8)"
    _, block = built()
    for words in (["regions", str(path), "--at", hex(ARENA + 0x800)], ["block", str(path), hex(ARENA + 0x800)]):
        page = ask(path.parent / "index", words).stdout
        assert said in page.replace("\n", " ")
        assert f"heap #0 (1 word, the first in busy block {block:#x}+0x8, 64 bytes" in page.replace("\n", " ")
        first = "first words: 0x7ff70000e100 (engine.dll!.data+0x100), 0x0, 0x28a70000040 (its own +0x40), 0x7"
        assert first in page.replace("\n", " ")
    (region,) = answer(path, "regions", str(path), "--at", hex(ARENA))
    assert [one["kind"] for one in region["referenced_from"]] == ["module", "thread", "thread", "thread", "heap"]
    assert region["is_searched_whole"] is True
    assert answer(path, "block", str(path), hex(ARENA))["memory"]["referenced_from"] == region["referenced_from"]
    largest = answer(path, "triage", str(path))["memory"]["largest_unknown"][0]
    assert (largest["address"], largest["committed_bytes"]) == (hex(ARENA), MIB)
    assert largest["referenced_from"] == region["referenced_from"]
    assert f"unknown: {ARENA:#x}, 1.0 MB: {said}" in ask(path.parent / "index", ["triage", str(path)]).stdout


def test_every_thread_and_heap_that_refers_is_named_or_counted(tmp_path):
    process = ProcessBuilder(build=19041)
    blocks = []
    for i in range(5):
        heap = NtHeapBuilder(base=HEAP + i * 0x10000000, seed=i)
        heap.busy(64)
        made = heap.build()
        blocks.append(made.truth.busy[0].user)
        process.heap(made)
    for i in range(70):
        process.thread(100 + i, content=struct.pack("<3Q", 1, ARENA + 8 * i, 2))
    process.region(ARENA, MIB).memory(ARENA, bytes(MIB))
    path = tmp_path / "held.dmp"
    path.write_bytes(poke(process.build(), *((at, struct.pack("<Q", ARENA + 0x100)) for at in blocks)).data)
    (region,) = answer(path, "regions", str(path), "--at", hex(ARENA))
    assert [one["kind"] for one in region["referenced_from"]] == [*["thread"] * 70, *["heap"] * 5]
    assert region["is_searched_whole"] is True
    page = ask(path.parent / "index", ["regions", str(path), "--at", hex(ARENA)]).stdout.replace("\n", " ")
    assert "referenced from 70 threads" in page
    assert "heap #2 (1 word" in page
    assert "heap #3 (" not in page
    assert ", 2 more heaps" in page


def test_memory_that_a_structure_names_is_not_searched(path):
    (region,) = answer(path, "regions", str(path), "--at", hex(HEAP))
    assert "referenced_from" not in region
    assert "memory" not in answer(path, "block", str(path), hex(HEAP + 0x20))


def test_memory_that_nobody_refers_to_is_said_to_be(path):
    assert (
        "no word outside of it points into it"
        in ask(path.parent / "index", ["regions", str(path), "--at", hex(OTHER)]).stdout
    )
