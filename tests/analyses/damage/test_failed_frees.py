"""Frees that ntdll refused: the pointer decides which bug it was, and where the record of it lies."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from heapdump import cli
from heapdump.analyses.damage import verdict
from heapdump.analyses.damage.incidents import Incident
from heapdump.snapshot import Snapshot
from tests.builders import BuiltDump, NtHeapBuilder, ProcessBuilder
from tests.heaps.test_crt import header as crt_header
from tests.patching import peek, poke

HEAP, OTHER = 0x20000000000, 0x21000000000
NTDLL_DATA = 0x1F5000 - 0x1000
"""Offset of ntdll's writable section in built processes."""

RECORD_AT = NTDLL_DATA + 0x400
BLOCK_NOT_BUSY, ENTRY_CORRUPTION, BUFFER_OVERRUN = 8, 3, 6
TID = 99


def record(kind: int, heap: int, entry: int, frames: Sequence[int], *, version: int = 2, size: int = 0x6D0) -> bytes:
    """_HEAP_FAILURE_INFORMATION of x64, 1809 and later: the stack lies at 0x58."""
    head = struct.pack("<IIIIQQ", version, size, kind, 0, heap, entry) + bytes(0x28)
    return head.ljust(0x58, b"\0") + struct.pack(f"<{len(frames)}Q", *frames)


def process_with(*heaps: NtHeapBuilder, build: int = 19041, stack: bytes = b"") -> ProcessBuilder:
    process = ProcessBuilder(build=build)
    for heap in heaps:
        process.heap(heap.build())
    return process.thread(TID, content=stack)


def failed(process: ProcessBuilder, kind: int, heap: int, entry: int) -> BuiltDump:
    """The process ended by ntdll with its record, and the exception that names it."""
    place = process.plan.ntdll + RECORD_AT
    process.dump.exception(TID, 0xC0000374, process.plan.ntdll + 0x2000, (place,))
    return poke(process.build(), (place, record(kind, heap, entry, [process.plan.ntdll + 0x1234])))


def only(snapshot: Snapshot) -> Incident:
    (incident,) = snapshot.incidents
    assert incident.is_error
    assert {one.bug for one in incident.findings} == {incident.bug}
    return incident


def test_a_second_free_of_a_block(open_built):
    heap = NtHeapBuilder(base=HEAP)
    heap.busy(40)
    free = heap.free(8) + 16
    heap.busy(40)
    with open_built(failed(process_with(heap), BLOCK_NOT_BUSY, HEAP, free - 16)) as snapshot:
        incident = only(snapshot)
        assert (incident.bug, incident.address, incident.heap) == ("double-free", free, HEAP)
        assert [one.finding.kind for one in incident.findings] == ["failure_record", "exception"]
        assert incident.block is not None and incident.block.address == free
        assert (
            f"the block at {free:#x} of heap {HEAP:#x} is free already: freed twice" in incident.leading.finding.message
        )


@pytest.mark.parametrize("headers", [20_000, 0], ids=["checked", "walked only"])
def test_a_summary_names_the_bug_before_any_other_word_on_heaps(
    headers: int, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Above the tables stood "no damage found", and the double free in none of the lines."""
    monkeypatch.setattr(verdict, "_QUICK_HEADERS", headers)
    heap = NtHeapBuilder(base=HEAP)
    free = heap.free(8) + 16
    heap.busy(40)
    path = tmp_path / "failed.dmp"
    path.write_bytes(failed(process_with(heap), BLOCK_NOT_BUSY, HEAP, free - 16).data)
    monkeypatch.setenv("COLUMNS", "300")
    assert cli.run(["summary", str(path), "--no-cache"]) == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("heap:") or "other damage" in line]
    assert lines[0].startswith(
        f"heap: double-free at {free:#x}: the block at {free:#x} of heap {HEAP:#x} is free already"
    )
    assert [line.partition(" → ")[2] for line in lines] == ["", f"heapdump check {path}"]


def test_a_free_of_a_pointer_into_the_middle_of_a_block(open_built):
    heap = NtHeapBuilder(base=HEAP)
    block = heap.busy(200)
    heap.busy(40)
    with open_built(failed(process_with(heap), BLOCK_NOT_BUSY, HEAP, block + 0x40 - 16)) as snapshot:
        incident = only(snapshot)
        assert (incident.bug, incident.address) == ("bad-free", block + 0x40)
        assert incident.block is not None and incident.block.address == block
        assert (
            f"{block + 0x40:#x} lies +0x40 in the busy 200-byte block at {block:#x}" in incident.leading.finding.message
        )


def test_a_free_of_a_debug_crt_pointer_by_another_crt(open_built):
    heap = NtHeapBuilder(base=HEAP)
    content = crt_header(("x64", "ucrt"), (0, 0), 0, 0, 1, 40, 77) + bytes(40) + b"\xfd" * 4
    block = heap.busy(len(content), content)
    heap.busy(40)
    with open_built(failed(process_with(heap), BLOCK_NOT_BUSY, HEAP, block + 0x30 - 16)) as snapshot:
        incident = only(snapshot)
        assert incident.bug == "bad-free"
        assert "the user pointer of debug-CRT block #77, freed by another CRT" in incident.leading.finding.message


def test_a_free_of_a_variable_on_a_stack(open_built):
    heap = NtHeapBuilder(base=HEAP)
    heap.busy(40)
    process = process_with(heap, stack=bytes(0x80))
    pointer = process.plan.stacks + 0x100000 - 0x400 + 0x20
    with open_built(failed(process, BLOCK_NOT_BUSY, HEAP, pointer - 16)) as snapshot:
        incident = only(snapshot)
        assert (incident.bug, incident.address, incident.block) == ("bad-free", pointer, None)
        assert f"it lies on the stack of thread {TID:#x}" in incident.leading.finding.message


def test_a_free_of_a_global_variable(open_built):
    heap = NtHeapBuilder(base=HEAP)
    heap.busy(40)
    process = process_with(heap)
    pointer = process.plan.exe + 0xB010
    with open_built(failed(process, BLOCK_NOT_BUSY, HEAP, pointer - 16)) as snapshot:
        assert only(snapshot).bug == "bad-free"
        assert "it lies in an image, app.exe+0xb010" in only(snapshot).leading.finding.message


def test_a_free_to_another_heap_is_proved_by_the_key_of_that_heap(open_built):
    own, other = NtHeapBuilder(base=HEAP, seed=1), NtHeapBuilder(base=OTHER, seed=2, index=1)
    own.busy(40)
    block = own.busy(64)
    own.busy(40)
    other.busy(40)
    process = process_with(own, other)
    built = failed(process, ENTRY_CORRUPTION, OTHER, block - 16)
    key = peek(built, OTHER + 0x88, 8)
    plain = bytearray((peek(built, block - 8, 8) ^ key & 0xFFFFFFFFFFFF).to_bytes(8, "little"))
    plain[3] = plain[0] ^ plain[1] ^ plain[2]
    checked = (int.from_bytes(plain, "little") ^ key & 0xFFFFFFFFFFFF).to_bytes(8, "little")
    with open_built(poke(built, (block - 8, checked))) as snapshot:
        incident = only(snapshot)
        assert (incident.bug, incident.address) == ("heap-mismatch", block)
        assert {one.finding.kind for one in incident.findings} >= {"failure_record", "exception"}
        message = incident.leading.finding.message
        assert f"belongs to heap {HEAP:#x} and was freed to heap {OTHER:#x}" in message
        assert "the checksum of its header was made with the key of that heap" in message


def test_a_free_of_a_block_with_a_damaged_header_is_the_overrun_that_damaged_it(open_built):
    heap = NtHeapBuilder(base=HEAP)
    first = heap.busy(40)
    block = heap.busy(64)
    heap.busy(40)
    built = failed(process_with(heap), BUFFER_OVERRUN, HEAP, block - 16)
    with open_built(poke(built, (first + 40, b"Z" * (block - first - 40)))) as snapshot:
        incident = only(snapshot)
        assert (incident.bug, incident.address) == ("heap-buffer-overflow", first + 40)
        assert incident.culprit is not None and incident.culprit.address == first
        assert len(incident.findings) == 3


@pytest.mark.parametrize("build", [7601, 9600, 17763, 26100])
def test_the_record_is_found_in_ntdlls_data_at_a_breakpoint_of_a_debugger(open_built, build):
    """Windows 7 and 8.1 leave version and size 0, and have a second encoded entry before the stack."""
    heap = NtHeapBuilder(base=HEAP if build >= 9600 else 0x20000000, build=build)
    heap.busy(40)
    free = heap.free(8) + 16
    heap.busy(40)
    process = process_with(heap, build=build)
    place, base = process.plan.ntdll + RECORD_AT, free & ~0xFFFFF
    frame = process.plan.ntdll + 0x1234
    made = record(BLOCK_NOT_BUSY, base, free - 16, [frame])
    if build < 10000:
        made = record(BLOCK_NOT_BUSY, base, free - 16, [0, 0, frame], version=0, size=0)
    process.dump.exception(TID, 0x80000003, process.plan.ntdll + 0x2000, (0,))
    with open_built(poke(process.build(), (place, made))) as snapshot:
        incident = only(snapshot)
        assert (incident.bug, incident.address) == ("double-free", free)
        assert snapshot.report_context.failure is not None and snapshot.report_context.failure.witness.startswith(
            "ntdll's data (ntdll.dll+0x"
        )


def test_a_record_in_ntdlls_data_alone_is_a_warning_as_the_process_went_on(open_built):
    heap = NtHeapBuilder(base=HEAP)
    heap.busy(40)
    free = heap.free(8) + 16
    heap.busy(40)
    process = process_with(heap)
    made = record(BLOCK_NOT_BUSY, HEAP, free - 16, [process.plan.ntdll + 0x1234])
    with open_built(poke(process.build(), (process.plan.ntdll + RECORD_AT, made))) as snapshot:
        (incident,) = snapshot.incidents
        assert (incident.bug, incident.is_error, incident.address) == ("double-free", False, free)
        assert incident.leading.finding.message.endswith("; the process went on")


def test_the_exception_record_on_a_stack_leads_to_the_record(open_built):
    heap = NtHeapBuilder(base=HEAP)
    heap.busy(40)
    free = heap.free(8) + 16
    heap.busy(40)
    place = ProcessBuilder().plan.ntdll + RECORD_AT
    raised = bytes(0x60) + struct.pack("<IIQQIIQ", 0xC0000374, 1, 0, place, 1, 0, place)
    process = process_with(heap, stack=raised)
    made = record(BLOCK_NOT_BUSY, HEAP, free - 16, [process.plan.ntdll + 0x1234])
    with open_built(poke(process.build(), (place, made))) as snapshot:
        incident = only(snapshot)
        assert incident.bug == "double-free"
        assert snapshot.report_context.failure is not None and snapshot.report_context.failure.thread_id == TID
        assert "on the stack" in incident.leading.finding.message


def test_a_record_that_is_not_in_the_dump_is_named_with_the_capture_that_holds_it(open_built):
    heap = NtHeapBuilder(base=HEAP)
    heap.busy(40)
    process = process_with(heap)
    process.dump.exception(TID, 0xC0000374, process.plan.ntdll + 0x2000, (process.plan.ntdll + 0x2000,))
    with open_built(process.build()) as snapshot:
        assert only(snapshot).bug == "heap-corruption"
        message = only(snapshot).leading.finding.message
        assert "ntdll's failure record at ntdll.dll+0x2000 is not in the dump" in message
        assert "procdump -ma" in message


def test_the_record_is_no_root_that_holds_a_block(open_built):
    heap = NtHeapBuilder(base=HEAP)
    block = heap.busy(200)
    heap.busy(40)
    built = failed(process_with(heap), BLOCK_NOT_BUSY, HEAP, block + 0x40 - 16)
    with open_built(built) as snapshot:
        assert snapshot.report_context.failure is not None
        kinds = [area.kind for area in snapshot.roots.areas if snapshot.report_context.failure.address in area.span]
        assert kinds == []
        assert any(snapshot.report_context.failure.span.end + 8 in area.span for area in snapshot.roots.areas)


def test_addresses_of_heaps_in_ntdlls_data_are_no_record(open_built):
    heap = NtHeapBuilder(base=HEAP)
    heap.busy(40)
    process = process_with(heap)
    place = process.plan.ntdll + RECORD_AT
    data = struct.pack("<4Q", 8, HEAP, HEAP, process.plan.ntdll + 0x1234) * 8
    with open_built(poke(process.build(), (place, data))) as snapshot:
        assert snapshot.incidents == ()
