"""Page heaps that XP's ntdll and 10's verifier.dll laid out, against what the program did."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump.blocks.kind import BlockKind, HeapKind
from heapdump.snapshot import open_dump
from tests.recordings import truth_of

pytestmark = pytest.mark.real
BUILDS = ["2600.5512", "19041.508", "19041.804-x86"]


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("scenario", ["pageheap", "pageheap-light"])
def test_every_block_busy_or_freed_with_size_and_stacks(recorded, build, scenario):
    truth = truth_of(recorded, build, scenario)
    with open_dump(recorded(f"oracle/{build}/{scenario}.dmp.xz")) as snapshot:
        pages = {heap.index: heap.address for heap in snapshot.heaps if heap.kind is HeapKind.PAGE}
        table = snapshot.walk.table
        rows = np.flatnonzero(np.isin(table.kind, [BlockKind.PAGE, BlockKind.LIGHT]))
        blocks = list(table.blocks(rows))
        live = {int(b["ptr"], 16): b for b in truth["blocks"] if int(b["heap"], 16) in pages.values()}
        busy = {(b.address, b.size, pages[b.heap]) for b in blocks if b.state == "busy"}
        assert busy == {(address, b["size"], int(b["heap"], 16)) for address, b in live.items()}
        freed = {int(b["ptr"], 16): b for b in truth["freed"]}
        assert {b.address for b in blocks if b.state == "free"} <= set(freed)
        for block, number in zip(blocks, snapshot.stacks.numbers(rows).tolist(), strict=True):
            record = live[block.address] if block.state == "busy" else freed[block.address]
            wanted = [
                int(a, 16) for a in record.get("stack" if block.state == "busy" else "free_stack") or [] if int(a, 16)
            ]
            frames = snapshot.stacks.frames(snapshot.heaps[block.heap], number)
            if record["by"] == "program" and wanted:
                assert set(wanted) <= set(frames)
        for heap in pages:
            assert snapshot.walk.counts[heap].integrity == 1.0
        assert not snapshot.walk.findings
        assert not snapshot.walk.gaps


@pytest.mark.parametrize("build", BUILDS[1:])
@pytest.mark.parametrize(("scenario", "bug"), [
    ("overrun", "heap-buffer-overflow"), ("uaf", "heap-use-after-free"), ("uafwrite", "heap-use-after-free"),
    ("stop-doublefree", "double-free"), ("stop-suffix", "heap-buffer-overflow"), ("stop-underrun", "heap-buffer-underflow"),
])  # fmt: skip
def test_the_crash_names_bug_and_block(recorded, build, scenario, bug):
    truth = truth_of(recorded, build, f"pageheap-{scenario}")
    with open_dump(recorded(f"oracle/{build}/pageheap-{scenario}.dmp.xz")) as snapshot:
        crash = snapshot.crash
        assert crash is not None
        assert (crash.bug, crash.block.address, crash.block.size) == (
            bug,
            int(truth["bug"]["ptr"], 16),
            truth["bug"]["size"],
        )
        stop = truth.get("verifier_stop")
        assert (crash.stop is not None) == (stop is not None)
        if stop is not None and crash.stop is not None:
            assert crash.stop.code == int(stop["code"], 16)
            assert list(crash.stop.parameters) == [int(p["value"], 16) for p in stop["parameters"]]
        number = int(snapshot.stacks.numbers(np.array([crash.block.row]))[0])
        assert snapshot.stacks.frames(snapshot.heaps[crash.block.heap], number)
