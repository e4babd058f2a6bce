"""`check` on built heaps: every change of a verified byte is found at that byte, user data never is, healthy ones are clean."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.analyses.damage.explained import ExplainedFinding
from heapdump.snapshot import Snapshot
from tests.builders import BuiltDump, ProcessBuilder
from tests.builders.page_heap import PageHeapBuilder
from tests.heaps.nt.plans import ACTIONS, FIXED, GENERATIONS, REPRESENTATIVES, Generation, heap_of, process_of
from tests.patching import poke, position, with_ranges, without_memory, word
from tests.process.symbols.test_namer import EXPORT_AT, directories, sections, tables

TEN = Generation("x64", 19041)
BUSY = [("busy", 40 + 24 * i) for i in range(60)] + [
    ("free", 20),
    ("busy", 90),
    ("free", 40),
    ("busy", 9),
    ("virtual", 0x100000),
]


def errors(snapshot: Snapshot) -> list[ExplainedFinding]:
    return [explained for explained in snapshot.explained_findings if explained.finding.severity == "error"]


def header_place(generation: Generation, entry: int) -> int:
    return entry + (8 if generation.arch == "x64" else 0)


@pytest.mark.parametrize("generation", GENERATIONS, ids=str)
@pytest.mark.parametrize("plan", range(len(FIXED)))
def test_healthy_heaps_of_every_generation_are_clean(open_built, generation, plan):
    with open_built(process_of(generation, heap_of(generation, FIXED[plan]).build())) as snapshot:
        assert not snapshot.explained_findings
        assert (snapshot.damage.findings, snapshot.damage.gaps) == ((), ())


@pytest.mark.property
@pytest.mark.parametrize("generation", REPRESENTATIVES, ids=str)
@given(actions=ACTIONS)
def test_random_healthy_heaps_are_clean(open_built, generation, actions):
    with open_built(process_of(generation, heap_of(generation, actions).build())) as snapshot:
        assert not snapshot.explained_findings


@pytest.mark.hostile
@pytest.mark.parametrize("generation", REPRESENTATIVES, ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_changed_header_bytes_are_found_where_they_are(open_built, generation, seed):
    """At least 95 % of changes of a byte that the heap's own structure determines."""
    rng = random.Random(seed)
    heap = heap_of(generation, BUSY).build()
    built = process_of(generation, heap).build()
    verified = (0, 1, 2, 3, 4, 5, 6) if not generation.is_classic else (0, 1, 2, 3, 7)
    tried = found = 0
    for _ in range(25):
        block = rng.choice(heap.truth.busy[1:-1])
        place = header_place(generation, block.entry) + rng.choice(verified)
        old = built.data[position(built, place)]
        new = rng.choice([value for value in range(256) if value != old])
        with open_built(poke(built, (place, bytes([new])))) as snapshot:
            tried += 1
            hits = [p for p in errors(snapshot) if p.finding.address <= place < p.finding.address + p.finding.length]
            found += bool(hits)
            assert len(errors(snapshot)) <= 3
            missing = {b.user for b in heap.truth.busy} - set(
                snapshot.walk.table.address[snapshot.walk.table.is_busy].tolist()
            )
            assert missing <= {block.user}
    assert found >= 0.95 * tried


@pytest.mark.parametrize("generation", REPRESENTATIVES, ids=str)
def test_overwritten_user_data_is_never_reported(open_built, generation):
    rng = random.Random(5)
    heap = heap_of(generation, BUSY).build()
    built = process_of(generation, heap).build()
    changes = [(block.user, rng.randbytes(block.size)) for block in heap.truth.busy]
    with open_built(poke(built, *changes)) as snapshot:
        assert not errors(snapshot)


@pytest.mark.parametrize("generation", REPRESENTATIVES, ids=str)
@pytest.mark.parametrize("count", [1, 3, 8])
def test_an_overrun_names_the_block_before_and_an_underrun_the_block_itself(open_built, generation, count):
    heap = heap_of(generation, BUSY).build()
    built = process_of(generation, heap).build()
    candidate, victim = heap.truth.busy[10], heap.truth.busy[11]
    header = header_place(generation, victim.entry)
    end = candidate.user + candidate.size
    run = b"Q" * (header - end + count)
    with open_built(poke(built, (end, run))) as snapshot:
        (explained,) = errors(snapshot)
        assert explained.finding.kind in ("entry_header", "size_chain")
        assert (explained.bug, explained.candidate and explained.candidate.address) == (
            "heap-buffer-overflow",
            candidate.user,
        )
        assert header <= explained.finding.address < header + count
    granule = 16 if generation.arch == "x64" else 8
    if victim.user - granule == victim.entry and header - end > 2:
        with open_built(poke(built, (header, bytes([0x10, 0, 0, 0, 0x20, 0, 0, 0])))) as snapshot:
            (explained,) = errors(snapshot)
            assert (explained.finding.kind, explained.bug) == ("entry_header", "heap-buffer-underflow")
            assert explained.culprit == explained.block  # before Vista the block is lost with its header
            assert "a write before its start" in explained.candidates[0].reason


@pytest.mark.parametrize("generation", REPRESENTATIVES, ids=str)
def test_free_list_links_that_were_overwritten_are_one_use_after_free(open_built, generation):
    heap = heap_of(generation, BUSY).build()
    built = process_of(generation, heap).build()
    size = 8 if generation.arch == "x64" else 4
    free = heap.truth.free[0]
    place = free.entry + 2 * size
    with open_built(poke(built, (place, b"\x41" * 2 * size))) as snapshot:
        (explained,) = errors(snapshot)
        assert (explained.finding.kind, explained.bug) == ("free_list", "heap-use-after-free")
        assert (explained.finding.address, explained.finding.length) == (place, 2 * size)
        assert explained.block is not None and explained.block.entry == free.entry
        assert "0x41 repeated" in explained.evidence.meaning


@pytest.mark.parametrize("generation", [g for g in REPRESENTATIVES if not g.is_classic], ids=str)
def test_counters_and_membership_that_contradict_the_walk(open_built, generation):
    heap = heap_of(generation, BUSY).build()
    built = process_of(generation, heap).build()
    with open_built(built) as snapshot:
        (nt,) = snapshot.heaps
        layout = next(layout for layout in snapshot.process.views[0].layouts if layout.name == nt.layout)
        total = generation.base + layout["_HEAP"].offset("TotalFreeSize")
    with open_built(poke(built, (total, word(7, 2)))) as snapshot:
        (explained,) = errors(snapshot)
        assert (explained.finding.kind, explained.finding.address) == ("free_list", total)


def test_a_held_lock_turns_contradicting_counters_into_a_warning(open_built):
    heap = heap_of(TEN, BUSY).build()
    process = process_of(TEN, heap)
    process.thread(0x1234)
    lock = 0x7000000
    process.region(lock, 0x1000).memory(
        lock, word(0) + word(0xFFFFFFFE, 4) + word(1, 4) + word(0x1234) + bytes(0x1000 - 24)
    )
    built = process.build()
    with open_built(built) as snapshot:
        layout = next(layout for layout in snapshot.process.views[0].layouts if layout.name == snapshot.heaps[0].layout)
    total, variable = (TEN.base + layout["_HEAP"].offset(name) for name in ("TotalFreeSize", "LockVariable"))
    with open_built(poke(built, (total, word(7, 2)), (variable, word(lock)))) as snapshot:
        (explained,) = snapshot.explained_findings
        assert explained.finding.severity == "warning"
        assert "its lock is held by thread 0x1234" in explained.finding.message


@pytest.mark.parametrize(("at", "severity"), [(0x2110, "warning"), (0x2010, "error")], ids=["RtlFreeHeap", "alloc"])
def test_a_thread_inside_a_heap_function_turns_contradicting_counters_into_a_warning(open_built, at, severity):
    process = process_of(TEN, heap_of(TEN, BUSY).build())
    ntdll = process.plan.ntdll
    process.thread(0x77, registers={"rip": ntdll + at, "rcx": TEN.base})
    process.memory(ntdll + EXPORT_AT, sections().replace(b"release".ljust(12, b"\0"), b"RtlFreeHeap\0"))
    built = poke(process.build(), (ntdll + directories("x64"), tables("x64")))
    with open_built(built) as snapshot:
        assert not snapshot.explained_findings
        layout = next(layout for layout in snapshot.process.views[0].layouts if layout.name == snapshot.heaps[0].layout)
    with open_built(poke(built, (TEN.base + layout["_HEAP"].offset("TotalFreeSize"), word(7, 2)))) as snapshot:
        (explained,) = snapshot.explained_findings
        assert explained.finding.severity == severity
        assert ("thread 0x77 is inside RtlFreeHeap, which may be changing it" in explained.finding.message) is (
            severity == "warning"
        )


@pytest.mark.hostile
@pytest.mark.parametrize("generation", REPRESENTATIVES, ids=str)
@given(data=st.data())
def test_missing_memory_is_never_counted_as_damage(open_built, generation, data):
    heap = heap_of(generation, [*BUSY[:30], ("uncommitted", 3), *BUSY[30:], ("segment", 0x80000), ("busy", 50)]).build()
    built = process_of(generation, heap).build()
    pages = [start + at for start, memory in heap.memory for at in range(0, len(memory), 0x1000)]
    holes = data.draw(st.lists(st.sampled_from(pages), min_size=1, max_size=4, unique=True))
    with open_built(without_memory(built, *((page, page + 0x1000) for page in holes))) as snapshot:
        assert not errors(snapshot)
        assert snapshot.walk.gaps or snapshot.damage.gaps or not all(heap.is_fully_walked for heap in snapshot.heaps)


def test_a_dump_without_the_heap_is_not_damaged(open_built):
    built = process_of(TEN, heap_of(TEN, BUSY).build()).build()
    with open_built(with_ranges(built, [])) as snapshot:
        assert not errors(snapshot)


def test_story_001_page_heap_tells_overrun_underrun_and_guard_page(open_built):
    """A library writes past its block: into the suffix, over the block information, into the guard page."""
    page = PageHeapBuilder(0x30000000, arch="x86", generation="xp")
    trace = page.trace(0x401000, 0x402000)
    suffix, header, guard = (page.block(size, trace=trace) for size in (45, 64, 61))
    process = ProcessBuilder(arch="x86", build=2600, revision=5512, nt_global_flag=0x02000000).heap(page.build())
    process.thread(99)
    process.dump.exception(99, 0xC0000005, 0x401000, (1, (guard + 64) & ~7))
    built = poke(process.build(), (suffix + 45, b"\0\0"), (header - 0x20, b"\x11" * 4), (header - 4, b"\x22" * 4))
    with open_built(built) as snapshot:
        reported = {(p.finding.kind, p.finding.address, p.bug, p.block and p.block.address) for p in errors(snapshot)}
        assert reported == {
            ("page_suffix", suffix + 45, "heap-buffer-overflow", suffix),
            ("page_header", header - 0x20, "heap-buffer-underflow", header),
            ("page_header", header - 4, "heap-buffer-underflow", header),
            ("exception", (guard + 64) & ~7, "heap-buffer-overflow", guard),
        }
        for explained in errors(snapshot):
            assert explained.candidate is not None
            number = int(snapshot.stacks.numbers(np.array([explained.candidate.row]))[0])
            assert snapshot.stacks.frames(snapshot.heaps[0], number) == (0x401000, 0x402000)


LISTS = [("busy", 40)] * 8 + [("busy", 500)]


def lookaside_heap(generation: Generation) -> tuple[BuiltDump, list[int], int]:
    """(a dump with three blocks of 40 bytes on their lookaside list, their user areas in order, that of a busy block)."""
    heap = heap_of(generation, LISTS, front_end="lookaside").build()
    built = process_of(generation, heap).build()
    users = [block.user for block in heap.truth.busy if block.size == 40][2:7:2]
    granule, record = (8, 0x30) if generation.arch == "x86" else (16, 0x40)
    header = users[0] - granule + (8 if generation.arch == "x64" else 0)
    number = int.from_bytes(built.data[position(built, header) :][:2], "little")
    list_head = heap.truth.internal[0].user + record * number
    wide = 8 if generation.arch == "x64" else 4
    first = users[0] >> 4 << 25 | 3 if wide == 8 else users[0] | 3 << 32
    links = [(user, word(after, wide)) for user, after in zip(users, [*users[1:], 0], strict=True)]
    return poke(built, (list_head, word(first)), *links), users, heap.truth.busy[-1].user


@pytest.mark.parametrize("generation", [Generation("x86", 2600), Generation("x64", 3790)], ids=str)
def test_a_healthy_lookaside_list_is_clean_and_a_broken_one_is_found(open_built, generation):
    built, users, other = lookaside_heap(generation)
    wide = 8 if generation.arch == "x64" else 4
    with open_built(built) as snapshot:
        assert not snapshot.explained_findings
        places = snapshot.walk.table
        assert not set(users) & set(places.address[places.is_busy].tolist())
    for place, value, why in [
        (users[1], users[0] + 0x10000000, "no block of this heap"), (users[1], users[2] + 4, "no block of this heap"),
        (users[1], users[0], "already"), (users[0], 0, "ends 2 blocks early"), (users[2], users[0] + 16, "beyond the count"),
        (users[0], other, "no block of its size"),
    ]:  # fmt: skip
        with open_built(poke(built, (place, word(value, wide)))) as broken:
            (explained,) = errors(broken)
            assert (explained.finding.kind, explained.finding.address, explained.finding.length) == (
                "free_list",
                place,
                wide,
            )
            assert why in explained.finding.message
