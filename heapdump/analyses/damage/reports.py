"""What Windows itself reported when the process died: the exception, ntdll's failure record, a verifier stop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from heapdump.analyses.blocks.select import locate
from heapdump.analyses.damage.crash import ACCESS_VIOLATION, Bug, Crash
from heapdump.blocks.findings import Finding
from heapdump.blocks.table import Block, BlockTable
from heapdump.process.model import Process, Thread
from heapdump.process.reports.failure_record import HEAP_CORRUPTION, FailureRecord, read_failure
from heapdump.process.reports.verifier_stop import STOP, VerifierStop, find_stop
from heapdump.process.stacks.frames import exception_registers

_FAILURE_BUGS: dict[str, Bug] = {
    "buffer_overrun": "heap-buffer-overflow", "buffer_underrun": "heap-buffer-underflow", "block_not_busy": "double-free",
    "usage_after_free": "heap-use-after-free", "cross_heap_operation": "bad-free", "segment_lfh_double_free": "double-free",
}  # fmt: skip
_FAILURE_WORDS = {
    "block_not_busy": "a block that is not busy was freed: freed twice, or its header is damaged",
    "buffer_overrun": "the header behind or of the block is overwritten",
    "entry_corruption": "the header of the block is overwritten",
    "virtual_block_corruption": "a large block's header is overwritten",
    "freelists_corruption": "the free lists are damaged", "listentry_corruption": "a link of a list is damaged",
    "usage_after_free": "a freed block was written to", "cross_heap_operation": "the block belongs to another heap",
}  # fmt: skip
REPORTED = ("exception", "failure_record", "verifier_stop")
"""Kinds of what Windows reported, as against damage that was found."""

_LOWEST, _NEAR = 0x10000, 0x20
_SKIPPED = ("rip", "eip", "rsp", "esp", "cs", "ds", "es", "fs", "gs", "ss", "eflags")


@dataclass(frozen=True, slots=True)
class RegisterBlock:
    """A register of the thread that failed which points at a block."""

    register: str
    value: int
    block: Block
    relation: str


@dataclass(frozen=True, slots=True)
class Report:
    """One report, with the block it is about where that is known; `frames`: return addresses that ntdll noted."""

    finding: Finding
    bug: Bug | None
    block: Block | None
    frames: tuple[int, ...] = ()
    registers: tuple[RegisterBlock, ...] = ()


def reports(process: Process, table: BlockTable, crash: Crash | None, damage: Sequence[Finding]) -> Iterator[Report]:
    """Nothing where the dump has no exception. `damage`: what is known to be damaged."""
    raised = process.exception
    if raised is None:
        return
    registers = tuple(_registers(process, table))
    report = _exception(process, table, crash, registers)
    beside = "".join(_beside_damage(process, damage))
    yield replace(report, finding=replace(report.finding, message=report.finding.message + beside))
    record = read_failure(process)
    if record is not None:
        yield _failure(process, table, record)
    stop = crash.stop if crash is not None else find_stop(process)
    if stop is not None:
        yield _stopped(stop, crash, raised.address)


def _stopped(stop: VerifierStop, crash: Crash | None, place: int) -> Report:
    """The exception is the error, the stop says why: one that verifier.dll caught in time has damaged nothing."""
    sentence = crash.sentence if crash is not None else f"Application Verifier stop {stop.code:#x} ({stop.words})"
    message = f"{sentence}; parameters {', '.join(hex(value) for value in stop.parameters)}"
    address = (
        (crash.block.address if crash.address is None else crash.address) if crash is not None else stop.block or place
    )
    finding = Finding("verifier_stop", "warning", 0, address, 1, message, "", f"stop {stop.code:#x}")
    return Report(finding, crash.bug if crash is not None else None, crash.block if crash is not None else None)


def _exception(
    process: Process, table: BlockTable, crash: Crash | None, registers: tuple[RegisterBlock, ...]
) -> Report:
    """An exception alone is an error where it is the heap's: heap corruption, a verifier stop, a page heap or freed block."""
    raised = process.exception
    assert raised is not None
    is_access = raised.code == ACCESS_VIOLATION and len(raised.parameters) >= 2
    address = raised.parameters[1] if is_access else raised.address
    located = locate(table, process.space, address) if is_access else None
    block = crash.block if crash is not None else located.block if located is not None else None
    freed = block is not None and block.state == "free"
    is_heaps = raised.code in (HEAP_CORRUPTION, STOP) or crash is not None or freed
    message = f"exception {raised.code:#010x}: {process.exception_words}, thread {raised.thread_id:#x}, at {process.where(raised.address)}"
    if crash is not None:
        message += f"; {crash.sentence}"
    elif located is not None and block is not None:
        message += f"; {address - block.address:,} bytes into the {block.state} block at {block.address:#x}"
    message += "".join(
        f"; {r.register} points {_place(r)} {'freed ' if r.block.state == 'free' else ''}block at {r.block.address:#x}"
        for r in registers
    )
    bug: Bug | None = crash.bug if crash is not None else "heap-use-after-free" if freed else None
    finding = Finding(
        "exception", "error" if is_heaps else "warning", 0, address, 1, message, "", f"{raised.code:#010x}"
    )
    return Report(finding, bug, block, registers=registers)


def _place(found: RegisterBlock) -> str:
    offset = found.value - found.block.address
    return "at the" if offset == 0 else f"{offset:+#x} into the"


def _registers(process: Process, table: BlockTable) -> Iterator[RegisterBlock]:
    """Registers of the thread that failed, at the exception, that point at blocks."""
    for name, value in _values(process):
        located = locate(table, process.space, value)
        if located.block is not None and not located.block.is_internal:
            yield RegisterBlock(name, value, located.block, located.relation)


def _beside_damage(process: Process, damage: Sequence[Finding]) -> Iterator[str]:
    """Registers that point beside damage, whose block may have no row for that very reason."""
    for name, value in _values(process):
        near = next((finding for finding in damage if -_NEAR <= value - finding.address <= _NEAR), None)
        if near is not None:
            yield f"; {name} is {value:#x}, beside the damage at {near.address:#x}"


def _values(process: Process) -> Iterator[tuple[str, int]]:
    """The general registers at the exception."""
    raised = process.exception
    thread: Thread | None = next((t for t in process.threads if raised and t.id == raised.thread_id), None)
    recorded = (exception_registers(process, view) for view in reversed(process.views))
    registers = next((found for found in recorded if found is not None), None)
    if registers is None and thread is not None:
        registers = thread.registers32 or thread.registers
    for name, value in registers.values.items() if registers is not None else ():
        if name not in _SKIPPED and value >= _LOWEST:
            yield name, value


def _failure(process: Process, table: BlockTable, record: FailureRecord) -> Report:
    located = locate(table, process.space, record.block) if record.block else None
    block = located.block if located is not None else None
    name = record.names[0] if len(record.names) == 1 else ""
    bug = _FAILURE_BUGS.get(name)
    if block is not None and block.end <= record.block and bug != "heap-buffer-overflow":
        block = None  # the one before, whose last bytes lie in the header that failed
    words = f": {_FAILURE_WORDS[name]}" if name in _FAILURE_WORDS else ""
    places = [f"at {record.block:#x}"] * bool(record.block) + [f"of heap {record.heap:#x}"] * bool(record.heap)
    message = f"ntdll noted {record.words}{words}{', ' * bool(places)}{' '.join(places)}"
    finding = Finding(
        "failure_record", "error", record.heap, record.block or record.address, 1, message, "", f"type {record.type}"
    )
    return Report(finding, bug, block, record.frames)
