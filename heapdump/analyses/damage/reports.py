"""Reports of Windows: the exception, ntdll's failure record, a verifier stop, each with the block at fault."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from heapdump.analyses.blocks.locate import Relation, locate
from heapdump.analyses.damage.crash import ACCESS_VIOLATION, Crash
from heapdump.blocks.findings import BugKind, Finding, Severity
from heapdump.blocks.table import Block, BlockTable
from heapdump.process.model import Process, Thread
from heapdump.process.reports.failure_record import HEAP_CORRUPTION, FailureRecord, read_failure
from heapdump.process.reports.verifier_stop import STOP, VerifierStop, find_stop
from heapdump.process.stacks.frames import exception_registers

if TYPE_CHECKING:
    from heapdump.dump.streams import ExceptionRecord

_FAILURE_BUGS = {
    "buffer_overrun": BugKind.OVERFLOW, "buffer_underrun": BugKind.UNDERFLOW, "block_not_busy": BugKind.DOUBLE_FREE,
    "usage_after_free": BugKind.USE_AFTER_FREE, "cross_heap_operation": BugKind.BAD_FREE,
    "segment_lfh_double_free": BugKind.DOUBLE_FREE,
}  # fmt: skip
"""Type of a failure record → bug (heap-structures.md §7.1)."""

_FAILURE_WORDS = {
    "block_not_busy": "a block that is not busy was freed: freed twice, or its header is damaged",
    "buffer_overrun": "the header behind or of the block is overwritten",
    "entry_corruption": "the header of the block is overwritten",
    "virtual_block_corruption": "a large block's header is overwritten",
    "freelists_corruption": "the free lists are damaged", "listentry_corruption": "a link of a list is damaged",
    "usage_after_free": "a freed block was written to", "cross_heap_operation": "the block belongs to another heap",
}  # fmt: skip

_LOWEST, _NEAR = 0x10000, 0x20
"""The lowest value that can be a pointer, and bytes around damage in which a register counts as beside it."""

_NO_POINTERS = ("rip", "eip", "rsp", "esp", "cs", "ds", "es", "fs", "gs", "ss", "eflags")


@dataclass(frozen=True, slots=True)
class RegisterBlock:
    """A register of the thread that failed whose `value` points into a block, and where in it."""

    register: str
    value: int
    block: Block
    relation: Relation


@dataclass(frozen=True, slots=True)
class WindowsReport:
    """One report as a finding. `block`: the block at fault, None where it is not known.

    `frames`: return addresses that ntdll recorded, innermost first.
    """

    finding: Finding
    bug: BugKind | None
    block: Block | None
    frames: tuple[int, ...] = ()
    registers: tuple[RegisterBlock, ...] = ()


def windows_reports(
    process: Process, table: BlockTable, crash: Crash | None, damage: Sequence[Finding]
) -> Iterator[WindowsReport]:
    """Exception, failure record, verifier stop, as far as they exist; nothing in a dump without an exception.

    `damage`: the findings of the heaps, which registers may point at.
    """
    raised = process.exception
    if raised is None:
        return
    report = _exception(process, raised, table, crash)
    beside = "".join(_beside_damage(process, damage))
    yield replace(report, finding=replace(report.finding, message=report.finding.message + beside))
    record = read_failure(process)
    if record is not None:
        yield _failure(process, table, record)
    stop = crash.stop if crash is not None else find_stop(process)
    if stop is not None:
        yield _stopped(stop, crash, raised.address)


def _stopped(stop: VerifierStop, crash: Crash | None, place: int) -> WindowsReport:
    """The stop as a warning: the exception is the error; a stop that verifier.dll raised in time damaged nothing."""
    sentence = crash.sentence if crash is not None else f"Application Verifier stop {stop.code:#x} ({stop.words})"
    message = f"{sentence}; parameters {', '.join(hex(value) for value in stop.parameters)}"
    address = stop.block or place
    if crash is not None:
        address = crash.block.address if crash.address is None else crash.address
    finding = Finding("verifier_stop", "warning", 0, address, 1, message, "", f"stop {stop.code:#x}")
    return WindowsReport(finding, crash.bug if crash is not None else None, crash.block if crash is not None else None)


def _exception(process: Process, raised: ExceptionRecord, table: BlockTable, crash: Crash | None) -> WindowsReport:
    """An exception is an error where the heap raised it, or it hit a page heap or a freed block; else a warning."""
    registers = tuple(_register_blocks(process, table))
    is_access = raised.code == ACCESS_VIOLATION and len(raised.parameters) >= 2
    address = raised.parameters[1] if is_access else raised.address
    located = locate(table, process.space, address) if is_access else None
    block = crash.block if crash is not None else located.block if located is not None else None
    is_freed = block is not None and block.state == "free"
    is_of_heap = raised.code in (HEAP_CORRUPTION, STOP) or crash is not None or is_freed
    where = f"thread {raised.thread_id:#x}, at {process.where(raised.address)}"
    message = f"exception {raised.code:#010x}: {process.exception_words}, {where}"
    if crash is not None:
        message += f"; {crash.sentence}"
    elif block is not None:
        message += f"; {address - block.address:,} bytes into the {block.state} block at {block.address:#x}"
    message += "".join(f"; {_register_words(found)}" for found in registers)
    bug = crash.bug if crash is not None else BugKind.USE_AFTER_FREE if is_freed else None
    severity: Severity = "error" if is_of_heap else "warning"
    finding = Finding("exception", severity, 0, address, 1, message, "", f"{raised.code:#010x}")
    return WindowsReport(finding, bug, block, registers=registers)


def _register_words(found: RegisterBlock) -> str:
    offset = found.value - found.block.address
    place = "at the" if offset == 0 else f"{offset:+#x} into the"
    freed = "freed " if found.block.state == "free" else ""
    return f"{found.register} points {place} {freed}block at {found.block.address:#x}"


def _register_blocks(process: Process, table: BlockTable) -> Iterator[RegisterBlock]:
    for name, value in _registers(process):
        located = locate(table, process.space, value)
        if located.block is not None and not located.block.is_internal:
            yield RegisterBlock(name, value, located.block, located.relation)


def _beside_damage(process: Process, damage: Sequence[Finding]) -> Iterator[str]:
    """Registers that point beside damage: the block there may have no row because of the damage."""
    for name, value in _registers(process):
        near = next((finding for finding in damage if -_NEAR <= value - finding.address <= _NEAR), None)
        if near is not None:
            yield f"; {name} is {value:#x}, beside the damage at {near.address:#x}"


def _registers(process: Process) -> Iterator[tuple[str, int]]:
    """(name, value) of the general registers at the exception whose value may be a pointer."""
    raised = process.exception
    thread: Thread | None = next((t for t in process.threads if raised and t.id == raised.thread_id), None)
    recorded = (exception_registers(process, view) for view in reversed(process.views))
    registers = next((found for found in recorded if found is not None), None)
    if registers is None and thread is not None:
        registers = thread.registers32 or thread.registers
    for name, value in registers.values.items() if registers is not None else ():
        if name not in _NO_POINTERS and value >= _LOWEST:
            yield name, value


def _failure(process: Process, table: BlockTable, record: FailureRecord) -> WindowsReport:
    located = locate(table, process.space, record.block) if record.block else None
    block = located.block if located is not None else None
    name = record.names[0] if len(record.names) == 1 else ""
    bug = _FAILURE_BUGS.get(name)
    if block is not None and block.end <= record.block and bug is not BugKind.OVERFLOW:
        block = None  # it is the block before: its last 8 bytes lie in the header that failed
    words = f": {_FAILURE_WORDS[name]}" if name in _FAILURE_WORDS else ""
    places = [f"at {record.block:#x}"] * bool(record.block) + [f"of heap {record.heap:#x}"] * bool(record.heap)
    message = f"ntdll noted {record.words}{words}{', ' * bool(places)}{' '.join(places)}"
    address = record.block or record.address
    finding = Finding("failure_record", "error", record.heap, address, 1, message, "", f"type {record.type}")
    return WindowsReport(finding, bug, block, record.frames)
