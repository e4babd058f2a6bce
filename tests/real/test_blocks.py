"""The block walk against recorded truth: every live block with its exact size and heap, nothing freed called busy."""

from __future__ import annotations

import numpy as np
import pytest

import heapdump
from heapdump.blocks.kind import BlockKind
from tests.recordings import Recorded, builds, truth_of

BUILDS = builds("basic")


@pytest.mark.real
@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("scenario", ["basic", "lfh", "large", "ust-tailcheck", "uservalue", "tailcheck-validate"])
def test_every_live_block_is_found_and_nothing_freed(build: str, scenario: str, recorded: Recorded) -> None:
    path = recorded(f"oracle/{build}/{scenario}.dmp.xz")
    truth = truth_of(recorded, build, scenario)
    with heapdump.open_dump(path) as snapshot:
        walk, heaps = snapshot.walk, snapshot.heaps
        rows = np.flatnonzero(walk.table.is_busy & ~walk.table.is_internal)
        found = {b.address: (b.size, heaps[b.heap].address) for b in walk.table.blocks(rows)}
        assert all(count.integrity == 1.0 for count in walk.counts.values())
        assert all(walk.counts[h.index].free_bytes >= (h.counters.free_bytes or 0) for h in heaps)
        assert bool((walk.table.entry[1:] >= walk.table.entry[:-1]).all())
    assert found == {int(b["ptr"], 16): (b["size"], int(b["heap"], 16)) for b in truth["blocks"]}


@pytest.mark.real
@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("scenario", ["basic", "lfh"])
def test_busy_and_free_blocks_are_those_of_windows_own_walk(build: str, scenario: str, recorded: Recorded) -> None:
    """XP's lists its front end's own blocks as busy; 8 and later say which blocks the front end serves."""
    says = truth_of(recorded, build, scenario)["ntdll_says"]["walks"]
    rows = [
        (int(address, 16), size, overhead, int(flags, 16))
        for walk in says
        for address, size, overhead, _, flags, *_ in walk["rows"]
    ]
    with heapdump.open_dump(recorded(f"oracle/{build}/{scenario}.dmp.xz")) as snapshot:
        table = snapshot.walk.table
        blocks = list(table.blocks(np.arange(len(table))))
    busy = {address: size for address, size, _, flags in rows if flags & 1}
    own = {b.address for b in blocks if b.is_internal} if build == "2600.5512" else set()
    assert {b.address: b.size for b in blocks if b.state == "busy" and not b.is_internal} == {
        address: size for address, size in busy.items() if address not in own
    }
    if int(build.split(".")[0]) >= 9200:
        lfh = {address for address, _, _, flags in rows if flags & 0x8001 == 0x8001}
        assert {b.address for b in blocks if b.kind is BlockKind.LFH and b.state == "busy"} == lfh
    uncommitted = 0x1000 if int(build.split(".")[0]) >= 9200 else 0x100
    free = {
        (address - overhead, size + overhead)
        for address, size, overhead, flags in rows
        if not flags & (uncommitted | 3)
    }
    got = {(b.entry, b.entry_size) for b in blocks if b.state == "free"}
    assert got == free


@pytest.mark.real
def test_front_ends_are_told_apart(recorded: Recorded) -> None:
    with heapdump.open_dump(recorded("oracle/2600.5512/basic.dmp.xz")) as snapshot:
        block_kinds = set(snapshot.walk.table.kind.tolist())
    assert block_kinds == {BlockKind.BACKEND, BlockKind.LOOKASIDE}
    with heapdump.open_dump(recorded("oracle/19041.508/lfh.dmp.xz")) as snapshot:
        block_kinds = set(snapshot.walk.table.kind.tolist())
    assert block_kinds == {BlockKind.BACKEND, BlockKind.LFH}
