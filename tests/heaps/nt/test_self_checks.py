"""The self-check against Windows' own counters, and how much of a damaged heap is still found."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from heapdump.blocks.walk import CheckKind
from heapdump.cli import cli
from tests.builders import NtHeapBuilder
from tests.builders.nt_heap_layout import heap_layout
from tests.heaps.nt.plans import REPRESENTATIVES, Generation, heap_of, process_of
from tests.patching import peek, poke, word

ACTIONS = [("busy", 40), ("free", 20), ("busy", 900), ("virtual", 0x100000), ("uncommitted", 3), ("busy", 7)]
MODERN = [generation for generation in REPRESENTATIVES if not generation.is_classic]
SEGMENT = 4  # words of Counters before TotalSegments


def places(generation: Generation, base: int) -> dict[CheckKind, tuple[int, int]]:
    """(address, bytes) of the counters that are checked, by the builder's own layout."""
    layout = heap_layout(generation.arch, generation.build)
    pointer, counters = layout.pointer, base + layout.counters
    return {
        CheckKind.FREE_BYTES: (base + layout.segment_reserve + 4 * pointer, pointer),
        CheckKind.SEGMENT_BYTES: (counters + pointer, pointer),
        CheckKind.LARGE_BYTES: (counters + 3 * pointer, pointer),
        CheckKind.SEGMENTS: (counters + SEGMENT * pointer, 4),
    }


@pytest.mark.parametrize("generation", MODERN, ids=str)
@pytest.mark.parametrize(
    "kind",
    [CheckKind.FREE_BYTES, CheckKind.SEGMENT_BYTES, CheckKind.LARGE_BYTES, CheckKind.SEGMENTS],
)
def test_a_counter_that_does_not_agree_is_said_and_lowers_the_integrity(open_built, write_dump, generation, kind):
    built = process_of(generation, heap_of(generation, ACTIONS).build()).build()
    address, size = places(generation, generation.base)[kind]
    counter = peek(built, address, size)
    # the bytes of large blocks may be counted too high, never too low
    changed = poke(built, (address, word(counter + (-1 if kind is CheckKind.LARGE_BYTES else 1), size)))
    with open_built(built) as snapshot:
        count = snapshot.walk.counts[0]
        assert count.integrity == 1.0 and all(check.holds for check in count.checks)
        assert {check.kind for check in count.checks if check.counted is not None} == set(places(generation, 0))
        assert snapshot.walk.gaps == ()
    with open_built(changed) as snapshot:
        count = snapshot.walk.counts[0]
        assert [check.kind for check in count.checks if not check.holds] == [kind]
        assert count.integrity is not None and 0 < count.integrity < 1
        assert any(kind.words in gap and "Windows counted" in gap for gap in snapshot.walk.gaps)
    shown = CliRunner().invoke(cli, ["heap", str(write_dump(changed)), hex(generation.base)]).stdout
    (line,) = (line for line in shown.splitlines() if line.endswith("differs"))
    assert line.startswith(kind.words)


@pytest.mark.property
@pytest.mark.parametrize("generation", [g for g in MODERN if g.build >= 7600], ids=str)
@given(damaged=st.dictionaries(st.integers(0, 59), st.binary(min_size=8, max_size=8), max_size=8))
def test_blocks_outside_the_damage_are_found_exactly(open_built, generation, damaged):
    """Three headers in a row are what the walk goes on at: of a run of as many whole ones none is lost."""
    heap = NtHeapBuilder(arch=generation.arch, build=generation.build, base=generation.base, seed=4)
    for i in range(60):
        heap.busy(24 + 16 * i)
    built = heap.build()
    blocks, word_offset = built.truth.busy, 8 if generation.arch == "x64" else 0
    changes = [(blocks[i].entry + word_offset, data) for i, data in damaged.items()]
    with open_built(poke(process_of(generation, built).build(), *changes)) as snapshot:
        table = snapshot.walk.table
        rows = table.blocks(np.flatnonzero(table.is_busy & ~table.is_internal))
        found = {(block.entry, block.address, block.size, block.entry_size) for block in rows}
        starts = sorted(entry for entry, *_ in found)
        ends = {entry: entry + size for entry, _, _, size in found}
        assert all(ends[a] <= b for a, b in pairwise(starts))
    run: list[int] = []
    for i in range(61):
        if i < 60 and i not in damaged:
            run.append(i)
            continue
        if len(run) >= 3:
            wanted = {(blocks[j].entry, blocks[j].user, blocks[j].size, blocks[j].entry_size) for j in run}
            assert wanted <= found
        run = []
