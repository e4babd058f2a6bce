"""Locks of heaps: who owns one, who waits, owners that ended, deadlocks, and what the commands say of them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from heapdump.analyses.locks import heap_locks, worst_hang
from heapdump.cli import run
from heapdump.snapshot import Snapshot
from tests.builders import BuiltDump, NtHeapBuilder, ProcessBuilder
from tests.conftest import OpenBuilt
from tests.patching import peek, poke, without_memory, word

MAIN, OTHER = 0x20000000000, 0x21000000000
LOCK_AT = {("x64", 19041): 0x160, ("x64", 7601): 0x168, ("x86", 2600): 0x578}
"""_HEAP.LockVariable by hand."""

Capture = pytest.CaptureFixture[str]


def process(arch: str = "x64", build: int = 19041, *, heaps: int = 2) -> ProcessBuilder:
    """A process with one or two heaps."""
    made = ProcessBuilder(arch=arch, build=build)  # type: ignore[arg-type]
    for base in (MAIN, OTHER)[:heaps] if arch == "x64" else (0x150000,):
        heap = NtHeapBuilder(arch=arch, build=build, base=base)  # type: ignore[arg-type]
        heap.busy(40)
        made.heap(heap.build())
    return made


def lock_of(built: BuiltDump, heap: int, arch: str = "x64", build: int = 19041) -> int:
    """Address of a heap's critical section."""
    return peek(built, heap + LOCK_AT[arch, build], 8 if arch == "x64" else 4)


def held(section: int, count: int, recursion: int, owner: int, size: int = 8) -> tuple[int, bytes]:
    """LockCount, RecursionCount, OwningThread behind DebugInfo."""
    return section + size, struct.pack("<ii", count, recursion) + word(owner, size)


def waiting(made: ProcessBuilder, thread: int, section: int, at: int = 0x60) -> None:
    """A thread that stands in ntdll, with the address of a section above its stack pointer."""
    made.thread(thread, ip=made.plan.ntdll + 0x1010, content=bytes(at) + word(section) + bytes(8))


def test_a_lock_that_nobody_owns(open_built: OpenBuilt) -> None:
    with open_built(process().build()) as snapshot:
        locks = heap_locks(snapshot.process, snapshot.heaps)
        assert [(lock.section.owner, lock.section.waiters, lock.owner_exists) for lock in locks.values()] == [
            (None, 0, None),
            (None, 0, None),
        ]
        assert worst_hang(snapshot.process, locks) is None


def hung(path: Path, *, owner: int = 8, waiters: int = 2) -> None:
    """Thread 8 owns the second heap's lock, twice; the threads 9 and 10 wait for it."""
    plain = process().build()
    section = lock_of(plain, OTHER)
    made = process()
    made.thread(8, ip=made.plan.exe + 0x20)
    for thread in (9, 10):
        waiting(made, thread, section)
    built = poke(made.build(), held(section, -2 - 4 * waiters, 2, owner))
    path.write_bytes(built.data)


def ask(capfd: Capture, code: int, *words: str) -> Any:
    assert run([*words, "--json", "-q"]) == code
    return json.loads(capfd.readouterr().out)["data"]


def test_threads_wait_for_a_heap_lock_that_a_thread_holds(tmp_path: Path, capfd: Capture) -> None:
    hung(path := tmp_path / "hung.dmp")
    page = ask(capfd, 0, "triage", str(path))
    assert page["crash"] is None
    assert {key: page["hang"][key] for key in ("heap", "owner", "owner_exists", "recursion", "waiters")} == {
        "heap": hex(OTHER), "owner": 8, "owner_exists": True, "recursion": 2, "waiters": [9, 10],
    }  # fmt: skip
    assert page["heap"]["incidents"] == []
    main, other = ask(capfd, 0, "heaps", str(path))
    assert main["lock"] == {"owner": None, "owner_exists": None, "waiters": 0, "recursion": 0, "waiting": []}
    assert other["lock"] == {"owner": 8, "owner_exists": True, "waiters": 2, "recursion": 2, "waiting": [9, 10]}
    assert ask(capfd, 0, "heap", str(path), hex(OTHER))["lock"] == other["lock"]
    threads = {thread["id"]: thread for thread in ask(capfd, 0, "threads", str(path))}
    assert threads[8]["holds"] == [{"heap": hex(OTHER), "recursion": 2, "waiters": 2}]
    assert [threads[thread]["waits_for"] for thread in (8, 9, 10)] == [None, {"heap": hex(OTHER)}, {"heap": hex(OTHER)}]
    assert run(["triage", str(path), "-q"]) == 0
    out = capfd.readouterr().out
    said = f"HANG     heap {OTHER:#x} is locked by thread 0x8 (entered twice); 2 threads wait for it (0x9, 0xa)"
    assert said in out
    assert "thread 0x8 is at app.exe+0x20" in out
    assert "RUNNING" not in out
    assert run(["summary", str(path), "-q"]) == 0
    assert said.removeprefix("HANG").strip() in capfd.readouterr().out


def test_an_owner_that_ended_left_its_lock_behind(tmp_path: Path, capfd: Capture) -> None:
    hung(path := tmp_path / "orphaned.dmp", owner=0x999, waiters=0)
    page = ask(capfd, 0, "triage", str(path))
    assert (page["hang"]["owner"], page["hang"]["owner_exists"], page["hang"]["waiters"]) == (0x999, False, [])
    assert "orphaned (TerminateThread?)" in page["hang"]["text"]


def test_a_lock_held_in_passing_is_no_hang(tmp_path: Path, capfd: Capture) -> None:
    hung(path := tmp_path / "busy.dmp", waiters=0)
    assert ask(capfd, 0, "triage", str(path))["hang"] is None
    assert ask(capfd, 0, "heaps", str(path))[1]["lock"]["owner"] == 8


def test_waiters_that_were_not_found_are_a_number(tmp_path: Path, capfd: Capture) -> None:
    hung(path := tmp_path / "hung.dmp", waiters=5)
    hang = ask(capfd, 0, "triage", str(path))["hang"]
    assert hang["waiters"] == 5
    assert "5 threads wait for it (0x9, 0xa)" in hang["text"]


def test_two_threads_that_wait_for_each_others_heaps_are_a_deadlock(tmp_path: Path, capfd: Capture) -> None:
    plain = process().build()
    first, second = lock_of(plain, MAIN), lock_of(plain, OTHER)
    made = process()
    waiting(made, 8, second)
    waiting(made, 9, first)
    built = poke(made.build(), held(first, -6, 1, 8), held(second, -6, 1, 9))
    (path := tmp_path / "deadlock.dmp").write_bytes(built.data)
    hang = ask(capfd, 0, "triage", str(path))["hang"]
    assert hang["deadlock"] is True
    assert [(wait["thread"], wait["owner"]) for wait in hang["chain"]] == [(8, 9), (9, 8)]
    assert "deadlock: none of them can go on" in hang["text"]


@pytest.mark.parametrize("debug", ["none", "whole", "of another section"])
def test_the_owner_of_a_heap_lock_waits_for_another_critical_section(open_built: OpenBuilt, debug: str) -> None:
    """Only a section with whole debug information is believed."""
    plain = process().build()
    lock, place = lock_of(plain, MAIN), 0x50000000
    about = {"none": (1 << 64) - 1}.get(debug, place + 0x100)
    section = word(about) + held(place, -6, 1, 9)[1] + bytes(16)
    described = word(0) + word(place if debug == "whole" else place + 8)
    made = process().region(place, 0x1000)
    made.memory(place, section.ljust(0x100, b"\0") + described.ljust(0xF00, b"\0"))
    waiting(made, 8, place)
    made.thread(9, ip=made.plan.exe + 0x20)
    with open_built(poke(made.build(), held(lock, -6, 1, 8))) as snapshot:
        hang = worst_hang(snapshot.process, heap_locks(snapshot.process, snapshot.heaps))
        assert hang is not None and not hang.is_deadlock
        found = [(wait.thread, wait.section.address, wait.section.owner, wait.heap) for wait in hang.chain]
        assert found == ([] if debug == "of another section" else [(8, place, 9, None)])


def test_windows_xp_counts_recursions_among_its_waiters(open_built: OpenBuilt) -> None:
    plain = process("x86", 2600).build()
    section = lock_of(plain, 0x150000, "x86", 2600)
    made = process("x86", 2600).thread(8)
    with open_built(poke(made.build(), held(section, 4, 2, 8, 4))) as snapshot:
        (lock,) = heap_locks(snapshot.process, snapshot.heaps).values()
        assert (lock.section.owner, lock.section.recursion, lock.section.waiters) == (8, 2, 3)


@pytest.mark.parametrize(
    ("count", "recursion", "owner"), [(-1, 1, 8), (-2, 0, 8), (-6, -5, 8), (5, 1, 8), (-2, 1, 1 << 40)]
)
def test_members_that_contradict_each_other_are_no_lock(
    open_built: OpenBuilt, count: int, recursion: int, owner: int
) -> None:
    section = lock_of(process().build(), MAIN)
    with open_built(poke(process().thread(8).build(), held(section, count, recursion, owner))) as snapshot:
        assert [lock.heap.address for lock in heap_locks(snapshot.process, snapshot.heaps).values()] == [OTHER]


def test_a_lock_that_is_not_in_the_dump_is_not_known(open_built: OpenBuilt) -> None:
    """The heap is not serialised, or the memory behind its header is missing."""
    heap = NtHeapBuilder(base=MAIN, flags=0x3)
    heap.busy(40)
    with open_built(ProcessBuilder().heap(heap.build()).build()) as snapshot:
        assert locks_of(snapshot) == {}
    built = process().build()
    section = lock_of(built, MAIN)
    with open_built(without_memory(built, (section, section + 0x28))) as snapshot:
        assert [*locks_of(snapshot)] == [1]


def locks_of(snapshot: Snapshot) -> dict[int, object]:
    return {**heap_locks(snapshot.process, snapshot.heaps)}
