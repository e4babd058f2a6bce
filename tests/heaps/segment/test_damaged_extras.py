"""Marks around the user data of blocks: padding headers in front of it, and the extra that leads to the stack behind it."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tests.builders import ProcessBuilder, SegmentHeapBuilder
from tests.builders.dump_truth import BuiltDump
from tests.builders.nt_heap_layout import HeapArch
from tests.builders.segment_heap import SegmentTruth
from tests.heaps.segment.plans import BASES
from tests.heaps.segment.test_damaged_heaps import EACH, findings
from tests.heaps.segment.test_walk import blocks
from tests.patching import peek, poke, without_memory

RECORD = 0x5000000
PADDED = pytest.mark.parametrize("generation", [("x64", 19041), ("x86", 19041)], ids=str)


def heap_of(
    generation: tuple[HeapArch, int], *, trace: int = 0, padding: bool = False
) -> tuple[BuiltDump, SegmentTruth]:
    """A heap with VS chunks, and LFH blocks of four sizes."""
    arch, build = generation
    granule, heap = 16 if arch == "x64" else 8, SegmentHeapBuilder(
        arch=arch, build=build, base=BASES[arch], seed=3, trace=trace, padding=padding
    )  # fmt: skip
    heap.segment(BASES[arch] + 0x400000)
    heap.chunks([20 + 3 * i for i in range(60)])
    for granules in (5, 6, 7, 9):
        most = granules * granule - (2 * granule if trace else 0) - granule * padding
        heap.lfh_blocks(
            granules * granule, [most - i % granule for i in range(heap.most_lfh_blocks(granules * granule, 1))]
        )
    made = heap.build()
    process = made.add_to(ProcessBuilder(arch=arch, build=build))
    process.region(RECORD, 0x1000)
    word = "Q" if arch == "x64" else "I"
    record = struct.pack(f"<{word}II2{word}", 0, 7, 2, 0x66001000, 0x66002000)
    return process.memory(RECORD, record.ljust(0x1000, b"\0")).build(), made.truth


def trusts(snapshot) -> dict[int, str]:
    table = snapshot.walk.table
    return {b.address: b.trust.value for b in table.blocks(np.flatnonzero(table.is_busy & ~table.is_internal))}


def stack_of(snapshot, address: int) -> int:
    table = snapshot.walk.table
    rows = np.flatnonzero(table.addresses(np.arange(len(table))) == address)
    return int(snapshot.stacks.numbers(rows)[0])


@EACH
@pytest.mark.parametrize("kind", ["vs", "lfh"])
def test_an_overrun_that_reaches_the_stack_of_a_block_is_found(open_built, generation, kind):
    """The mark of the extra is gone: its address is no stack, and the size is a guess."""
    dump, truth = heap_of(generation, trace=RECORD)
    granule = 16 if generation[0] == "x64" else 8
    block, size = sorted((a, s) for a, (s, k) in truth.busy.items() if k == kind)[7]
    extra = -(-(block + size) // granule) * granule
    with open_built(dump) as snapshot:
        assert stack_of(snapshot, block) == RECORD and findings(snapshot) == []
    with open_built(poke(dump, (extra, b"AAAA"))) as snapshot:
        (finding,) = snapshot.walk.findings
        assert (finding.kind, finding.address, finding.length) == ("tail_fill", extra + 2, 2)
        assert (finding.expected, finding.found) == ("01 01", "41 41")
        assert blocks(snapshot) == truth.busy
        assert [address for address, trust in trusts(snapshot).items() if trust != "exact"] == [block]
        assert stack_of(snapshot, block) == 0
    with open_built(without_memory(dump, (extra, extra + 8))) as snapshot:
        assert snapshot.walk.findings == ()


@EACH
def test_each_of_many_overruns_is_a_finding(open_built, generation):
    dump, truth = heap_of(generation, trace=RECORD)
    granule = 16 if generation[0] == "x64" else 8
    overrun = sorted((a, s) for a, (s, k) in truth.busy.items() if k == "vs")[5:45]
    extras = [-(-(block + size) // granule) * granule for block, size in overrun]
    with open_built(poke(dump, *((extra, b"AAAA") for extra in extras))) as snapshot:
        assert [finding.address for finding in snapshot.walk.findings] == [extra + 2 for extra in extras]
        assert [address for address, trust in trusts(snapshot).items() if trust != "exact"] == [a for a, _ in overrun]


@EACH
@pytest.mark.parametrize("kind", ["vs", "lfh"])
def test_a_block_that_lost_the_bit_of_its_count_keeps_size_and_stack(open_built, generation, kind):
    """The extra behind it is left, and its last bytes lead there."""
    dump, truth = heap_of(generation, trace=RECORD)
    granule = 16 if generation[0] == "x64" else 8
    block = sorted(a for a, (_, k) in truth.busy.items() if k == kind)[0 if kind == "lfh" else 7]
    sub = max(a for a in truth.subsegments if a < block)
    lay_bitmap = {("x64", 26100): 0x40}.get(generation, 0x30 if generation[0] == "x64" else 0x20)
    at = block - granule + granule // 2 + 1 if kind == "vs" else sub + lay_bitmap + (4 if generation[1] == 26100 else 0)
    flipped = peek(dump, at, 1) & ~(1 if kind == "vs" or generation[1] == 26100 else 2)
    with open_built(poke(dump, (at, bytes([flipped])))) as snapshot:
        (finding,) = snapshot.walk.findings
        assert "lost the bit" in finding.message
        assert blocks(snapshot) == truth.busy and stack_of(snapshot, block) == RECORD
        assert [address for address, trust in trusts(snapshot).items() if trust == "guess"] == [block]


@PADDED
@pytest.mark.parametrize("kind", ["vs", "lfh"])
def test_an_underrun_into_the_padding_of_a_block_is_found(open_built, generation, kind):
    dump, truth = heap_of(generation, padding=True)
    granule = 16 if generation[0] == "x64" else 8
    block = sorted(a for a, (_, k) in truth.busy.items() if k == kind)[7]
    with open_built(dump) as snapshot:
        assert findings(snapshot) == [] and blocks(snapshot) == truth.busy
    with open_built(poke(dump, (block - granule, b"AAAA"))) as snapshot:
        (finding,) = snapshot.walk.findings
        assert (finding.kind, finding.address) == ("front_padding", block - granule)
        assert blocks(snapshot) == truth.busy
        assert [address for address, trust in trusts(snapshot).items() if trust == "guess"] == [block]
