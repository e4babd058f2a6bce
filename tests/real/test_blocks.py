"""The block walk against recorded truth: every live block with its exact size and heap, nothing freed called busy."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import heapdump
from heapdump.blocks.table import BlockKind

ORACLE = Path(__file__).parents[2].parent / "shared" / "dumps" / "oracle"
BUILDS = sorted(p.name for p in ORACLE.iterdir()) if ORACLE.is_dir() else ["no recorded dumps"]
Recorded = Callable[[str], Path]


@pytest.mark.real
@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("scenario", ["basic", "lfh", "large", "ust-tailcheck", "uservalue", "tailcheck-validate"])
def test_every_live_block_is_found_and_nothing_freed(build: str, scenario: str, recorded: Recorded) -> None:
    path = recorded(f"oracle/{build}/{scenario}.dmp.xz")
    truth = json.loads(lzma.decompress((ORACLE / build / f"{scenario}.truth.json.xz").read_bytes()))
    with heapdump.open_dump(path) as snapshot:
        walk, heaps = snapshot.walk, snapshot.heaps
        rows = np.flatnonzero(walk.table.is_busy & ~walk.table.is_internal)
        found = {b.address: (b.size, heaps[b.heap].address) for b in walk.table.blocks(rows)}
        assert all(count.integrity == 1.0 for count in walk.counts.values())
        assert all(walk.counts[h.index].free_bytes >= (h.stated.free_bytes or 0) for h in heaps)
    live = {int(b["ptr"], 16): (b["size"], int(b["heap"], 16)) for b in truth["blocks"]}
    assert {address: found.get(address) for address in live} == live
    freed = {int(b["ptr"], 16) for b in truth["freed"] if not b.get("reused")}
    assert not freed & found.keys() - live.keys()


@pytest.mark.real
def test_front_ends_are_told_apart(recorded: Recorded) -> None:
    with heapdump.open_dump(recorded("oracle/2600.5512/basic.dmp.xz")) as snapshot:
        kinds = set(snapshot.walk.table.kind.tolist())
    assert kinds == {BlockKind.BACKEND, BlockKind.LOOKASIDE}
    with heapdump.open_dump(recorded("oracle/19041.508/lfh.dmp.xz")) as snapshot:
        kinds = set(snapshot.walk.table.kind.tolist())
    assert kinds == {BlockKind.BACKEND, BlockKind.LFH}
