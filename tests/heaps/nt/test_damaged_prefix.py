"""Damage between a block and its recorded stack: the second header, whose mark and count stand before the user data."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump import kernels
from heapdump.snapshot import Snapshot
from tests.heaps.nt.lfh_plans import Plan
from tests.heaps.nt.plans import Generation, heap_of, process_of
from tests.patching import poke

TRACE = 0x5000010
EACH = pytest.mark.parametrize(
    "generation", [Generation("x64", 7601), Generation("x64", 26100), Generation("x86", 19041)], ids=str
)


def size_and_trust(snapshot: Snapshot, user: int) -> tuple[int, str]:
    """Of the busy block with that user address."""
    table = snapshot.walk.table
    (block,) = [b for b in table.blocks(np.arange(len(table))) if b.address == user and b.state == "busy"]
    return block.size, block.trust.value


@EACH
@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("length", [1, 2, 4, 8])
def test_an_underrun_is_found_and_leaves_a_guess(open_built, monkeypatch, generation, is_compiled, length):
    if is_compiled:
        monkeypatch.setattr(kernels, "WORTH_COMPILING", 0)
    heap = heap_of(generation, [("busy", 1)], flags=0x08001002)
    users = [heap.busy(size, trace=TRACE) for size in (100, 64, 3000, 13)]
    built = process_of(generation, heap.build()).build()
    with open_built(poke(built, (users[1] - length, b"A" * length))) as snapshot:
        (found,) = snapshot.explained_findings
        assert (found.finding.kind, found.finding.severity) == ("front_prefix", "error")
        assert found.bug == "heap-buffer-underflow"
        assert found.finding.address <= users[1] - length and found.finding.length == 8
        sizes = [size_and_trust(snapshot, user) for user in users]
        assert [s for i, s in enumerate(sizes) if i != 1] == [(100, "exact"), (3000, "exact"), (13, "exact")]
        assert sizes[1][0] >= 64 and sizes[1][1] == "guess"


@EACH
def test_an_underrun_of_an_lfh_block_is_found_and_leaves_a_guess(open_built, generation):
    plan = Plan(generation, (("traced", 9, 40), ("busy", 50, 0)), seed=5)
    heap = plan.heap()
    block = next(b for b in heap.truth.lfh[0].blocks if b.size)
    with open_built(poke(plan.process(heap).build(), (block.user - 4, b"AAAA"))) as snapshot:
        (finding,) = snapshot.walk.findings
        assert (finding.kind, finding.address) == ("front_prefix", block.user - 8)
        assert size_and_trust(snapshot, block.user)[1] == "guess"


@EACH
def test_a_destroyed_header_of_an_lfh_block_keeps_the_address(open_built, generation):
    """The second header tells where the user data begin, and how many bytes were asked for."""
    plan = Plan(generation, (("traced", 9, 40), ("busy", 50, 0)), seed=5)
    heap = plan.heap()
    block = next(b for b in heap.truth.lfh[0].blocks if b.size)
    word = block.entry + (8 if generation.arch == "x64" else 0)
    with open_built(poke(plan.process(heap).build(), (word, b"ABCDEFG\xbb"))) as snapshot:
        assert [f.kind for f in snapshot.walk.findings] == ["lfh_subsegment"]
        assert size_and_trust(snapshot, block.user) == (block.size, "guess")


@EACH
@pytest.mark.parametrize("is_compiled", [False, True])
def test_a_count_behind_a_block_that_cannot_be_is_found(open_built, monkeypatch, generation, is_compiled):
    """UnusedBytes 0x3F: the count lies in the last word."""
    if is_compiled:
        monkeypatch.setattr(kernels, "WORTH_COMPILING", 0)
    heap = heap_of(generation, [("busy", 1)])
    user = heap.busy(64)
    heap.busy(200)
    built = process_of(generation, heap.build())
    pointer, granule = (8, 16) if generation.arch == "x64" else (4, 8)
    byte = user - 1
    units = -(-(64 + 8) // granule)
    place = user - granule + units * granule - (0 if pointer == 8 else 4)
    with open_built(poke(built.build(), (byte, b"\x3f"), (place, b"\xff" * pointer))) as snapshot:
        (found,) = snapshot.explained_findings
        assert (found.finding.kind, found.finding.address) == ("entry_header", place)
        assert size_and_trust(snapshot, user)[1] == "guess"
