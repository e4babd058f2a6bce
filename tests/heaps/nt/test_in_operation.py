"""Dumps that were taken while a thread worked on an entry: a sound heap, whatever its header looks like."""

from __future__ import annotations

import pytest

from tests.builders import BuiltDump, BuiltHeap, NtHeapBuilder
from tests.builders.nt_heap_records import Stopped
from tests.heaps.nt.plans import REPRESENTATIVES, Generation, process_of
from tests.patching import peek, poke, word

MODERN = [generation for generation in REPRESENTATIVES if not generation.is_classic]
OWNER = 0x2D98


def stopped(generation: Generation, *headers: Stopped, living: bool = True) -> tuple[BuiltHeap, BuiltDump]:
    """A heap whose entries 10, 11 … have such headers, in a process where a thread holds its lock."""
    heap = NtHeapBuilder(arch=generation.arch, build=generation.build, base=generation.base, flags=0x1002, seed=5)
    granule = 8 if generation.arch == "x86" else 16
    users = [heap.busy(size) for size in range(40, 1000, 16)]
    for number, header in enumerate(headers):
        heap.stop_at(users[10 + number] - granule, header, OWNER)
    built = heap.build()
    process = process_of(generation, built)
    if living:
        process.thread(OWNER)
    return built, process.build()


@pytest.mark.parametrize("generation", MODERN, ids=str)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_headers_that_ntdll_decoded_in_place_are_no_damage_and_cost_no_block(open_built, generation, count):
    plain: list[Stopped] = ["plain"]
    heap, built = stopped(generation, *plain * count)
    with open_built(built) as snapshot:
        table = snapshot.walk.table
        program = table.is_busy & ~table.is_internal
        assert table.address[program].tolist() == [block.user for block in heap.truth.busy]
        assert table.size[program].tolist() == [block.size for block in heap.truth.busy]
        assert not snapshot.explained_findings
        assert not snapshot.walk.gaps


@pytest.mark.parametrize("generation", MODERN, ids=str)
def test_a_plain_size_that_leads_elsewhere_is_damage(open_built, generation):
    """The bytes that a program wrote are not taken for a header that ntdll decoded, where no neighbour agrees."""
    heap, built = stopped(generation, "plain", living=False)
    entry = heap.truth.busy[10].entry + (8 if generation.arch == "x64" else 0)
    other = (peek(built, entry, 2) + 40) & 0xFFFF
    with open_built(poke(built, (entry, word(other, 2)))) as snapshot:
        assert {explained.finding.kind for explained in snapshot.explained_findings} == {"entry_header"}
        assert all(explained.finding.is_error for explained in snapshot.explained_findings)


@pytest.mark.parametrize("generation", MODERN, ids=str)
@pytest.mark.parametrize("living", [True, False], ids=["living", "gone"])
def test_a_header_that_is_not_written_yet_is_a_warning_while_a_living_thread_holds_the_lock(
    open_built, generation, living
):
    heap, built = stopped(generation, "unwritten", living=living)
    with open_built(built) as snapshot:
        (explained,) = snapshot.explained_findings
        assert explained.finding.severity == ("warning" if living else "error")
        assert (f"its lock is held by thread {OWNER:#x}" in explained.finding.message) is living
        assert heap.truth.busy[10].entry <= explained.finding.address < heap.truth.busy[10].user


def test_five_contradictions_are_more_than_one_operation_leaves(open_built):
    generation = Generation("x64", 19041)
    heap, built = stopped(generation, "unwritten")
    damaged = [(heap.truth.busy[number].entry + 8, word(-1)) for number in (20, 30, 40, 50)]
    with open_built(poke(built, *damaged)) as snapshot:
        assert [explained.finding.severity for explained in snapshot.explained_findings] == 5 * ["error"]
