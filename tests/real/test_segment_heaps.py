"""Segment heaps that the ntdlls of several Windows builds laid out, against what the program did."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest

import heapdump
from heapdump import cli
from heapdump.analyses.memory.reconciliation import reconcile
from heapdump.blocks.kind import BlockKind, HeapKind
from heapdump.trust import Trust
from tests.recordings import Recorded, builds, dumps, load_truth, scenarios, truth_of

pytestmark = pytest.mark.real
CASES = scenarios("*/segment*")


def busy_blocks(snapshot: heapdump.snapshot.Snapshot) -> dict[int, tuple[int, int]]:
    """User address → (requested bytes, handle) of the program's busy blocks in segment heaps."""
    table, heaps = snapshot.walk.table, snapshot.heaps
    rows = np.flatnonzero(table.is_busy & ~table.is_internal)
    indices = {heap.index for heap in heaps if heap.kind is HeapKind.SEGMENT}
    return {b.address: (b.size, heaps[b.heap].address) for b in table.blocks(rows) if b.heap in indices}


@pytest.mark.parametrize(("build", "scenario"), CASES)
def test_every_live_block_of_a_segment_heap_is_found_and_nothing_freed(build, scenario, recorded: Recorded):
    truth = truth_of(recorded, build, scenario)
    with heapdump.open_dump(recorded(f"oracle/{build}/{scenario}.dmp.xz"), use_index=False) as snapshot:
        segment_heaps = {heap.address: heap for heap in snapshot.heaps if heap.kind is HeapKind.SEGMENT}
        found = busy_blocks(snapshot)
        counts = [snapshot.walk.counts[heap.index] for heap in segment_heaps.values()]
        assert [count.integrity for count in counts] == [1.0] * len(segment_heaps)
        assert all(check.holds for count in counts for check in count.checks)
        assert {(heap.trust, heap.is_fully_walked) for heap in segment_heaps.values()} == {(Trust.EXACT, True)}
        assert not snapshot.walk.gaps
    live = {
        int(b["ptr"], 16): (b["size"], int(b["heap"], 16))
        for b in truth["blocks"]
        if int(b["heap"], 16) in segment_heaps
    }
    assert {address: found[address] for address in found if found[address][1] in {h for _, h in live.values()}} == live


@pytest.mark.parametrize(("build", "scenario"), CASES)
def test_committed_memory_is_explained_to_the_byte(build, scenario, recorded: Recorded):
    with heapdump.open_dump(recorded(f"oracle/{build}/{scenario}.dmp.xz"), use_index=False) as snapshot:
        items = {item.item.words: item.bytes for item in reconcile(snapshot.usage, snapshot.heaps, snapshot.walk)}
        table = snapshot.process.regions
        assert sum(items.values()) == int(table.size[table.state == 0x1000].sum())
        assert "heap segments: not walked" not in items
        assert {"heap segments: busy blocks", "heap segments: overhead"} <= items.keys()


@pytest.mark.parametrize("build", builds("segment-ust"))
def test_allocation_stacks_stand_behind_the_blocks(build, recorded: Recorded):
    truth = truth_of(recorded, build, "segment-ust")
    low = int(truth["image_base"], 16)
    with heapdump.open_dump(recorded(f"oracle/{build}/segment-ust.dmp.xz"), use_index=False) as snapshot:
        heap = next(heap for heap in snapshot.heaps if heap.kind is HeapKind.SEGMENT)
        table = snapshot.walk.table
        rows = np.flatnonzero((table.heap == heap.index) & table.is_busy & ~table.is_internal)
        numbers = snapshot.stacks.numbers(rows).tolist()
        found = {int(a): snapshot.stacks.frames(heap, n) for a, n in zip(table.address[rows], numbers, strict=True)}
    wanted = {
        int(b["ptr"], 16): [int(a, 16) for a in b["stack"]]
        for b in truth["blocks"]
        if int(b["heap"], 16) == heap.address
    }
    assert wanted
    for address, stack in wanted.items():
        own = [frame for frame in found[address] if low <= frame < low + 0x100000]
        assert own == [frame for frame in stack if low <= frame < low + 0x100000]


def test_the_second_answer_names_the_stacks_that_the_first_one_names(recorded: Recorded, tmp_path, monkeypatch):
    """Three large blocks of 15063 have their stacks behind the padding, which a walk alone can tell.

    Exit code 4: the bitmap of an LFH subsegment is damaged, six of its busy blocks are missing.
    """
    monkeypatch.setenv("HEAPDUMP_CACHE", str(tmp_path))
    path = str(recorded("damaged/silent-59160111820140.dmp.xz"))
    answers = []
    for _ in range(2):
        with redirect_stdout(StringIO()) as out:
            assert cli.run(["leaks", path, "--group-by", "stack", "--json"]) == 4
        answers.append(out.getvalue())
    assert answers[0] == answers[1]
    (without,) = [group for group in json.loads(answers[0])["data"] if group["key"] == "no stack recorded"]
    assert (without["count"], without["max_size"]) == (5, 2056)


@pytest.mark.parametrize("build", builds("corrupt-segment"))
def test_an_overflow_leaves_a_guess_and_is_found_at_the_header_it_destroyed(build, recorded: Recorded):
    truth = truth_of(recorded, build, "corrupt-segment")
    damage = truth["damage"][0]
    with heapdump.open_dump(recorded(f"oracle/{build}/corrupt-segment.dmp.xz"), use_index=False) as snapshot:
        found, findings = busy_blocks(snapshot), snapshot.walk.findings
        handles = {heap.address for heap in snapshot.heaps if heap.kind is HeapKind.SEGMENT}
        table, gaps = snapshot.walk.table, snapshot.walk.gaps
        guesses = {
            b.address for b in table.blocks(np.flatnonzero(table.kind == BlockKind.VS)) if b.trust is Trust.GUESS
        }
    live = {
        int(b["ptr"], 16): (b["size"], int(b["heap"], 16)) for b in truth["blocks"] if int(b["heap"], 16) in handles
    }
    assert found == live
    assert (
        int(damage["victim"], 16) in guesses and len(guesses) <= 2 and len(gaps) == 1
    )  # the culprit's size may be one
    assert [finding.kind for finding in findings] == ["vs_chunk"]
    assert int(damage["address"], 16) <= findings[0].address < int(damage["address"], 16) + damage["length"]


def test_kinds_of_blocks_by_the_part_of_the_heap_that_holds_them(recorded: Recorded):
    with heapdump.open_dump(recorded("oracle/19041.804-x86/segment.dmp.xz"), use_index=False) as snapshot:
        index = next(heap.index for heap in snapshot.heaps if heap.kind is HeapKind.SEGMENT)
        busy_by_kind = {kind.kind: kind.busy_blocks for kind in snapshot.walk.counts[index].kinds}
    assert busy_by_kind == {BlockKind.LFH: 928, BlockKind.VS: 492, BlockKind.LARGE: 8, BlockKind.PAGES: 10}


@pytest.mark.parametrize("name", dumps("hard/*/seg*"))
def test_every_live_block_of_a_long_life_is_found(name, recorded: Recorded):
    truth = load_truth(recorded(f"{name}.truth.json.xz"))
    with heapdump.open_dump(recorded(f"{name}.dmp.xz"), use_index=False) as snapshot:
        handles = {heap.address for heap in snapshot.heaps if heap.kind is HeapKind.SEGMENT}
        found = busy_blocks(snapshot)
        assert not snapshot.walk.gaps and not snapshot.walk.findings
    live = {int(b["ptr"], 16): (b["size"], int(b["heap"], 16)) for b in truth["blocks"]}
    assert found == {address: block for address, block in live.items() if block[1] in handles}
