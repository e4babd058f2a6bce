"""Damage to VS chunks of segment heaps: where it is found, and that it costs no chunk beside it."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump.heaps.segment.vs_chunks import VsChunks
from heapdump.kernels.vs_chain import ChunkCoding
from heapdump.snapshot import Snapshot
from tests.builders import ProcessBuilder, SegmentHeapBuilder
from tests.builders.dump_truth import BuiltDump
from tests.builders.segment_heap import SegmentTruth
from tests.heaps.segment.test_walk import blocks
from tests.patching import peek, poke, without_memory, without_stream, word

BASE = 0x20000000000


def one_subsegment(chunks: int = 900, size: int = 40) -> tuple[BuiltDump, SegmentTruth]:
    """A heap of 19041 with one VS subsegment of equal chunks, and its truth."""
    heap = SegmentHeapBuilder(base=BASE, seed=1)
    heap.segment(BASE + 0x400000)
    heap.chunks([size] * chunks)
    built = heap.build()
    return built.add_to(ProcessBuilder(build=19041)).build(), built.truth


def trusts(snapshot: Snapshot) -> dict[int, str]:
    """Trust of all rows that are not exact, by user address."""
    table = snapshot.walk.table
    return {b.address: b.trust.value for b in table.blocks(np.arange(len(table))) if b.trust != "exact"}


@pytest.mark.parametrize("place", [6, 7])
def test_a_busy_byte_that_can_be_none_costs_one_finding_there(open_built, place):
    dump, truth = one_subsegment()
    for victim in (truth.headers[300], truth.headers[898], truth.headers[-1]):
        with open_built(poke(dump, (victim + place, bytes([peek(dump, victim + place, 1) ^ 0x5A])))) as snapshot:
            (finding,) = snapshot.walk.findings
            assert (finding.kind, finding.severity) == ("vs_chunk", "error")
            assert victim + 6 <= finding.address <= victim + place < finding.address + finding.length <= victim + 8
            assert finding.expected != finding.found
            assert {**blocks(snapshot), victim + 16: None} == {**truth.busy, victim + 16: None}
            assert trusts(snapshot)[victim + 16] == "guess"
            assert any("state" in gap for gap in snapshot.walk.gaps)


def test_a_busy_byte_that_can_be_none_in_every_subsegment_hides_nothing(open_built):
    heap = SegmentHeapBuilder(base=BASE, seed=1)
    heap.segment(BASE + 0x400000)
    for _ in range(14):
        heap.chunks([40] * 900)
    built = heap.build()
    dump = built.add_to(ProcessBuilder(build=19041)).build()
    victims = [header for header in built.truth.headers if header + 16 in built.truth.busy][7::80]
    with open_built(poke(dump, *((at + 7, b"\xee") for at in victims))) as snapshot:
        assert len(snapshot.walk.findings) == len(victims)
        assert blocks(snapshot) == built.truth.busy


@pytest.mark.parametrize("bit", range(16, 32))
def test_a_chunk_that_lies_about_its_size_is_read_at_its_true_end(open_built, bit):
    """Size, flags and unused bytes as they are; the trust says that the size is the neighbour's word."""
    dump, truth = one_subsegment()
    for victim in (truth.headers[300], truth.headers[899]):
        at = victim + bit // 8
        with open_built(poke(dump, (at, bytes([peek(dump, at, 1) ^ 1 << bit % 8])))) as snapshot:
            (finding,) = snapshot.walk.findings
            assert finding.address <= at < finding.address + finding.length
            assert blocks(snapshot) == truth.busy
            assert trusts(snapshot)[victim + 16] == "derived"
            assert not snapshot.walk.gaps


@pytest.mark.parametrize("number", [0, 1, 5])
def test_one_of_the_first_headers_of_the_only_subsegment_does_not_hide_the_key(open_built, number):
    """The segment's signature tells it, and headers in a row anywhere in the chain prove it."""
    dump, truth = one_subsegment()
    victim = truth.headers[number]
    with open_built(poke(dump, (victim, b"A" * 16))) as snapshot:
        (finding,) = snapshot.walk.findings
        assert victim <= finding.address < victim + 16
        assert set(blocks(snapshot)) == set(truth.busy)


def test_two_pages_that_are_absent_leave_guesses_and_no_more(open_built):
    """A chunk behind the first one is derived, and where its last bytes lie in the second one it is a guess."""
    dump, truth = one_subsegment()
    sub = truth.subsegments[0]
    with open_built(without_memory(dump, (sub + 0x2000, sub + 0x3000), (sub + 0x5000, sub + 0x6000))) as snapshot:
        table = snapshot.walk.table
        trusts = {b.trust for b in table.blocks(np.arange(len(table))) if sub < b.entry < sub + 0x10000}
        assert trusts == {"exact", "derived", "guess"}
        assert snapshot.walk.gaps and not snapshot.walk.findings


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_chunks_wait_to_be_freed_where_their_list_is_as_long_as_it_says(open_built, depth):
    """A stray pointer in the head frees nothing."""
    dump, truth = one_subsegment()
    head, nodes = truth.address + 0x280 + 0x40, [truth.headers[i] + 16 for i in (7, 90)]
    links = [(head, word(depth, 2)), (head + 8, word(nodes[0])), (nodes[0], word(nodes[1])), (nodes[1], word(0))]
    with open_built(poke(dump, *links)) as snapshot:
        free = set(truth.busy) - set(blocks(snapshot))
        assert free == (set(nodes) if depth == 2 else set())
        assert [finding.address for finding in snapshot.walk.findings] == ([] if depth == 2 else [head])


def test_absent_pages_inside_a_free_chunk_make_nothing_doubtful(open_built):
    """Without a memory map they may as well not be committed; of a free chunk only its header counts."""
    dump, truth = one_subsegment(chunks=100)
    sub = truth.subsegments[0]
    assert truth.headers[-1] < sub + 0x8000
    with open_built(without_memory(without_stream(dump, 16), (sub + 0x9000, sub + 0x10000))) as snapshot:
        assert trusts(snapshot) == {} and not snapshot.walk.gaps
        assert blocks(snapshot) == truth.busy


def former_life() -> tuple[BuiltDump, SegmentTruth, int, int, int]:
    """(dump, truth, a chunk, the one behind it, a stale header inside it, which names the chunk as the one before)."""
    heap = SegmentHeapBuilder(arch="x64", build=19041, base=BASE, seed=4)
    heap.segment(BASE + 0x400000)
    heap.chunks([200] * 40)
    heap.chunks([*[200] * 4, 8000, 300, 300])
    made = heap.build()
    dump, truth = made.add_to(ProcessBuilder(build=19041)).build(), made.truth
    last = sorted(header for header in truth.headers if header > truth.subsegments[1])
    large, following = last[4], last[5]
    sizes = (following - large) // 16 << 16 | (large - last[3]) // 16 << 32 | 1 << 48
    key = peek(dump, large) ^ large ^ sizes  # bits 0 to 15 are no sizes
    free = last[-1]
    end = free + ((peek(dump, free) ^ free ^ key) >> 16 & 0xFFFF) * 16
    stale = large + 0x800
    old = (end - stale) // 16 << 16 | (stale - large) // 16 << 32
    return poke(dump, (stale, word(old ^ stale ^ key))), truth, large, following, stale


def test_a_header_of_a_former_life_does_not_hide_the_chunk_behind(open_built):
    """Two headers name the damaged chunk as the one before: the one with the longer chain ends it, and that is in doubt."""
    dump, truth, large, following, stale = former_life()
    with open_built(poke(dump, (large + 2, word(0x1357, 2)))) as snapshot:
        assert blocks(snapshot) == truth.busy
        assert [finding.address & ~0xF for finding in snapshot.walk.findings] == [large]
        assert any(f"ends at {stale:#x} or {following:#x} is in doubt" in gap for gap in snapshot.walk.gaps)


def test_a_damaged_header_behind_one_of_a_former_life_hides_no_chunk(open_built):
    """The damaged header names its own size as the next one does; no chunk of the former life ends there."""
    dump, truth, _, following, _ = former_life()
    with open_built(poke(dump, (following + 4, bytes.fromhex("43c6288b")))) as snapshot:
        assert blocks(snapshot) == truth.busy
        assert [finding.address & ~0xF for finding in snapshot.walk.findings] == [following]


def test_a_chain_that_begins_where_the_subsegment_ends_reads_nothing():
    chunks = VsChunks(np.zeros(4, np.int64), 0, 2, ChunkCoding(2, 0, 0))
    assert [chunks.chain_length(at) for at in (2, 3)] == [1, 0]


@pytest.mark.parametrize(
    ("headers", "missing", "expected"),
    [
        ({2: (3, 2, 1), 5: (6, 3, 1)}, (), True),  # the second chunk reaches over granule 8
        ({2: (3, 2, 1), 5: (3, 3, 1)}, (), False),  # it ends there
        ({2: (3, 2, 1), 5: (6, 3, 1)}, (5,), False),  # its header is not in the dump
        ({2: (3, 2, 1), 5: (6, 4, 1)}, (), False),  # its header names another size before it
        ({2: (3, 2, 1), 5: (6, 3, 2)}, (), False),  # busy can only be 0 or 1
        ({2: (3, 2, 1)}, (), False),  # zeros are no header
    ],
)
def test_only_headers_that_hold_reach_over_a_granule(headers, missing, expected):
    words = np.zeros(24, np.int64)
    for at, (size, before, busy) in headers.items():
        words[2 * at] = (size << 16 | before << 32 | busy << 48) ^ (16 * at)
    for at in range(12):
        words[2 * at] = words[2 * at] or 16 * at
    chunks = VsChunks(words, 0, 12, ChunkCoding(2, 0, 0))
    assert chunks.passes_over(2, 8, missing.__contains__) is expected
