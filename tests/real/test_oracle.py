"""Heaps that the ntdlls of nine Windows builds laid out, against what the program did."""

from __future__ import annotations

from typing import Any

import pytest

from heapdump.blocks.heap import ExtentKind
from heapdump.blocks.kind import HeapKind
from heapdump.snapshot import open_dump
from heapdump.trust import Trust
from tests.recordings import truth_of

pytestmark = pytest.mark.real
BUILDS = [
    "2600.5512", "7601.17514", "9600.16384", "14393.447", "17763.475", "19041.508", "19041.804-x86", "22000.778", "26100.4061",
]  # fmt: skip


@pytest.fixture
def opened(recorded):
    snapshots = []

    def open_one(build: str, scenario: str):
        snapshots.append(open_dump(recorded(f"oracle/{build}/{scenario}.dmp.xz")))
        return snapshots[-1]

    yield open_one
    for snapshot in snapshots:
        snapshot.close()


def large_pointers(truth: dict[str, Any]) -> dict[int, list[int]]:
    """Heap → user pointers of live blocks above the threshold of 0xFF00 (x86: 0xFE00) granules, ascending."""
    wide = truth["arch"] == "amd64"
    granule, most = (16, 0xFF00) if wide else (8, 0xFE00)
    out: dict[int, list[int]] = {int(heap["handle"], 16): [] for heap in truth["heaps"]}
    for block in truth["blocks"]:
        size = int(block["size"], 16) if isinstance(block["size"], str) else block["size"]
        if (size + granule - 1) // granule + 1 > most:
            out[int(block["heap"], 16)].append(int(block["ptr"], 16))
    return {heap: sorted(pointers) for heap, pointers in out.items()}


def found_pointers(snapshot) -> dict[int, list[int]]:
    """Heap → user pointers of its large blocks: behind the entry of 8 pointers."""
    pointer = snapshot.process.views[0].pointer_bytes
    return {
        heap.address: sorted(block.list_entry + 8 * pointer for block in heap.large_blocks or ())
        for heap in snapshot.heaps
    }  # fmt: skip


@pytest.mark.parametrize("scenario", ["large", "heaps", "corrupt-valist"])
@pytest.mark.parametrize("build", BUILDS)
def test_the_heaps_are_exactly_those_that_were_created_and_not_destroyed(recorded, opened, build, scenario):
    truth = truth_of(recorded, build, scenario)
    snapshot = opened(build, scenario)
    assert {heap.address for heap in snapshot.heaps} == {int(heap["handle"], 16) for heap in truth["heaps"]}
    assert {heap.kind for heap in snapshot.heaps} == {HeapKind.NT}
    assert len(snapshot.heaps) == len(truth["heaps"])
    process = next(heap for heap in snapshot.heaps if heap.role == "process")
    assert process.address == int(truth["process_heap"], 16)


@pytest.mark.parametrize("scenario", ["large", "heaps"])
@pytest.mark.parametrize("build", BUILDS)
def test_healthy_heaps_are_exact_and_agree_with_what_windows_counted(opened, build, scenario):
    """From Windows 8 on the counters hold the LFH context's own reservation, too."""
    snapshot = opened(build, scenario)
    for heap in snapshot.heaps:
        assert (heap.trust, heap.findings, heap.is_fully_walked) == (Trust.EXACT, (), True)
        assert heap.reserved_bytes is not None and heap.committed_bytes is not None
        if heap.counters.committed_bytes is not None:
            front = [extent.span for extent in heap.extents if extent.kind is ExtentKind.FRONT_END]
            committed = sum(snapshot.process.regions.committed_bytes(span) for span in front)
            assert heap.counters.reserved_bytes == heap.reserved_bytes + sum(span.size for span in front)
            assert heap.counters.committed_bytes == heap.committed_bytes + committed
            assert heap.counters.virtual_bytes == heap.large_committed_bytes
            assert heap.counters.segments == len(heap.segments)


@pytest.mark.parametrize("scenario", ["large", "heaps"])
@pytest.mark.parametrize("build", BUILDS)
def test_large_blocks_are_those_the_program_allocated(recorded, opened, build, scenario):
    wanted = large_pointers(truth_of(recorded, build, scenario))
    assert sum(map(len, wanted.values())) > (10 if scenario == "large" else -1)
    assert found_pointers(opened(build, scenario)) == wanted


@pytest.mark.parametrize("build", BUILDS)
def test_a_broken_large_block_list_still_gives_every_block_and_a_finding_at_the_damage(recorded, opened, build):
    truth = truth_of(recorded, build, "corrupt-valist")
    snapshot = opened(build, "corrupt-valist")
    assert found_pointers(snapshot) == large_pointers(truth)
    (damage,) = truth["damage"]
    broken = [heap for heap in snapshot.heaps if heap.findings]
    assert [(f.kind, f.address) for heap in broken for f in heap.findings] == [
        ("virtual_list", int(damage["address"], 16))
    ]
    assert [heap.is_fully_walked for heap in broken] == [False]


@pytest.mark.parametrize("build", BUILDS)
def test_live_blocks_lie_in_the_extents_of_their_heap(recorded, opened, build):
    truth = truth_of(recorded, build, "heaps")
    heaps = {heap.address: heap for heap in opened(build, "heaps").heaps}
    assert truth["blocks"]
    for block in truth["blocks"]:
        pointer = int(block["ptr"], 16)
        assert any(pointer in extent.span for extent in heaps[int(block["heap"], 16)].extents), block["ptr"]


@pytest.mark.parametrize("build", BUILDS)
def test_the_process_is_named_by_its_modules_and_threads(recorded, opened, build):
    truth = truth_of(recorded, build, "heaps")
    process = opened(build, "heaps").process
    versions = {m["name"]: m["version"] for m in truth["modules"]}
    assert versions["ntdll.dll"].endswith(f".{process.windows.build}.{process.windows.revision}")
    assert {(m.name, m.span.start) for m in process.modules} == {
        (m["name"], int(m["base"], 16)) for m in truth["modules"]
    }
    assert [t.id for t in process.threads] == [t["tid"] for t in truth["threads"]]
    assert process.views[0].peb == int(truth["peb"], 16)
    assert process.pid == truth["pid"]
