"""Reports of Windows: the exception, ntdll's failure record, a verifier stop, each with the block at fault."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from heapdump.analyses.blocks.locate import guard_page
from heapdump.analyses.damage.asan import asan_findings
from heapdump.analyses.damage.crash import ACCESS_VIOLATION, Crash
from heapdump.analyses.damage.freed_pointer import judge_free
from heapdump.analyses.damage.report_context import ReportContext
from heapdump.analyses.damage.stops import explain_stop
from heapdump.analyses.damage.windows_report import Access, AccessKind, RegisterBlock, WindowsReport
from heapdump.blocks.findings import BugKind, Finding, Severity
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import Block
from heapdump.process.model import Process, Thread
from heapdump.process.reports.bad_pointer import is_freed_fill, pointer_words
from heapdump.process.reports.cpp_exception import thrown
from heapdump.process.reports.failure_record import HEAP_CORRUPTION, FailureRecord, missing_record
from heapdump.process.reports.fast_fail import FAST_FAIL, HEAP_METADATA, STACK_OVERRUNS
from heapdump.process.reports.verifier_stop import STOP, VerifierStop

if TYPE_CHECKING:
    from heapdump.dump.streams import ExceptionRecord
    from heapdump.process.stacks.faulting import FaultingInstruction

_FAILURE_BUGS = {
    "buffer_overrun": BugKind.OVERFLOW, "buffer_underrun": BugKind.UNDERFLOW,
    "usage_after_free": BugKind.USE_AFTER_FREE, "cross_heap_operation": BugKind.MISMATCH,
    "segment_lfh_double_free": BugKind.DOUBLE_FREE,
}  # fmt: skip
"""Type of a failure record → bug (heap-structures.md §7.1)."""

_FAILURE_WORDS = {
    "block_not_busy": "a block that is not busy was freed",
    "buffer_overrun": "the header of the block or of the next one was overwritten",
    "entry_corruption": "the header of the block was overwritten",
    "multiple_entries_corruption": "headers of neighbouring blocks do not fit each other",
    "virtual_block_corruption": "a large block's header was overwritten",
    "freelists_corruption": "the free lists are damaged", "listentry_corruption": "a link of a list is damaged",
    "usage_after_free": "a freed block was written to", "cross_heap_operation": "the block belongs to another heap",
}  # fmt: skip

_LOWEST, _NEAR = 0x10000, 0x20
"""The lowest value that can be a pointer, and bytes around damage in which a register counts as beside it."""

_NO_POINTERS = ("rip", "eip", "rsp", "esp", "cs", "ds", "es", "fs", "gs", "ss", "eflags")
_STACK_OVERFLOW = 0xC00000FD
_ACCESSES: dict[int, AccessKind] = {0: "read", 1: "write", 8: "execute"}


def windows_reports(context: ReportContext, crash: Crash | None, damage: Sequence[Finding]) -> Iterator[WindowsReport]:
    """Exception, failure record, verifier stop, AddressSanitizer's report, as far as they exist.

    `damage`: the findings of the heaps, which registers may point at.
    """
    raised = context.process.exception
    if raised is not None:
        report = _exception(context, raised, crash)
        beside = tuple(_beside_damage(context.process, damage))
        words = "".join(f"; {name} is {value:#x}, beside the damage at {at:#x}" for name, value, at in beside)
        message = report.finding.message + words + _missing_record(context.process)
        finding = replace(report.finding, message=message)
        yield replace(report, finding=finding, beside=tuple(at for *_, at in beside))
    if context.failure is not None:
        yield _failure(context, context.failure)
    if context.stop is not None and raised is not None:
        yield _stopped(context, context.stop, raised.address)
    yield from asan_findings(context)


def _missing_record(process: Process) -> str:
    """Where ntdll's record would be, in a dump that lacks it, and which capture holds it."""
    address = missing_record(process)
    if address is None:
        return ""
    capture = "a capture with data segments or full memory holds it (procdump -ma)"
    return f"; ntdll's failure record at {process.where(address)} is not in the dump: {capture}"


def _stopped(context: ReportContext, stop: VerifierStop, place: int) -> WindowsReport:
    """The stop as a warning: the exception is the error."""
    found = explain_stop(context, stop)
    message = f"{found.sentence}; {stop.parameter_words}"
    address = found.address or (found.block.address if found.block is not None else None) or stop.block or place
    heap = context.heaps[found.block.heap].address if found.block is not None else 0
    finding = Finding("verifier_stop", "warning", heap, address, 1, message, "", f"stop {stop.code:#x}")
    return WindowsReport(finding, found.bug, found.block, f"verifier stop {stop.code:#x}")


def _exception(context: ReportContext, raised: ExceptionRecord, crash: Crash | None) -> WindowsReport:
    """An exception is an error where the heap raised it, or it hit a page heap or a freed block; else a warning."""
    process = context.process
    access = _access(context, raised)
    located = context.locate(access.address) if access is not None else None
    block = crash.block if crash is not None else located.block if located is not None else None
    if block is not None and block.is_internal:
        block = None
    bug = crash.bug if crash is not None else _bug(context, raised, block)
    address = _address(context, raised, crash)
    where = f"thread {raised.thread_id:#x}, at {process.where(raised.address)}"
    message = f"exception {raised.code:#010x}: {process.exception_words}{_thrown(process)}, {where}"
    if crash is not None:
        message += "" if crash.stop is not None else f"; {crash.sentence}"  # a stop is a finding of its own
    elif block is not None and access is not None:
        message += f"; {access.address - block.address:,} bytes into the {block.state} block at {block.address:#x}"
    registers = tuple(_register_blocks(context))
    message += _pointer(context, access, crash) + "".join(f"; {_register_words(found)}" for found in registers)
    severity: Severity = "error" if _is_of_heap(raised, bug) else "warning"
    heap = context.heaps[block.heap].address if block is not None and bug is not None else 0
    finding = Finding("exception", severity, heap, address, 1, message, "", f"{raised.code:#010x}")
    is_likely = (crash is not None and crash.is_likely) or (bug is BugKind.USE_AFTER_FREE and block is None)
    witness = f"exception {raised.code:#x}"
    if block is not None and access is not None and _is_guard(block, access.address):
        witness = f"guard page ({witness})"
    sentence = crash.sentence if crash is not None else ""
    used = context.instruction.pointers if context.instruction is not None and access is not None else ()
    return WindowsReport(
        finding, bug, block, witness, registers=registers, access=access, used=tuple(one.value for one in used),
        is_likely=is_likely, sentence=sentence,
    )  # fmt: skip


def _is_guard(block: Block, address: int) -> bool:
    """True for an address in the guard page of a full page-heap block."""
    return block.kind == BlockKind.PAGE and guard_page(block).start <= address < guard_page(block).end


def _is_of_heap(raised: ExceptionRecord, bug: BugKind | None) -> bool:
    is_fast_fail = raised.code == FAST_FAIL and raised.parameters[:1] and raised.parameters[0] in HEAP_METADATA
    others = (BugKind.STACK_OVERRUN, BugKind.FAIL_FAST, BugKind.STACK_OVERFLOW)
    return bool(raised.code in (HEAP_CORRUPTION, STOP) or is_fast_fail or (bug is not None and bug not in others))


def _address(context: ReportContext, raised: ExceptionRecord, crash: Crash | None) -> int:
    """The first bad byte: of a crash that the heap explains its own, of an access its address, else the code's."""
    if crash is not None:
        return crash.block.address if crash.address is None else crash.address
    if raised.code == ACCESS_VIOLATION and len(raised.parameters) >= 2:
        return raised.parameters[1]
    if context.stop is not None and context.stop.block:
        return context.stop.block
    return raised.address


def _bug(context: ReportContext, raised: ExceptionRecord, block: Block | None) -> BugKind | None:
    """The bug of an exception that no crash at a block explains."""
    if raised.code == FAST_FAIL:
        code = raised.parameters[0] if raised.parameters else 0
        if code in HEAP_METADATA:
            return BugKind.CORRUPTION
        return BugKind.STACK_OVERRUN if code in STACK_OVERRUNS else BugKind.FAIL_FAST
    if raised.code == _STACK_OVERFLOW:
        return BugKind.STACK_OVERFLOW
    if block is not None and block.state == "free":
        return BugKind.USE_AFTER_FREE
    instruction = context.instruction
    if raised.code == ACCESS_VIOLATION and instruction is not None and instruction.base:
        pointer = context.process.views[-1 if instruction.base[0] == "e" else 0].pointer_bytes
        return BugKind.USE_AFTER_FREE if is_freed_fill(instruction.base_value, pointer) else None
    return None


def _access(context: ReportContext, raised: ExceptionRecord) -> Access | None:
    if raised.code != ACCESS_VIOLATION or len(raised.parameters) < 2:
        return None
    kind = _ACCESSES.get(raised.parameters[0])
    if kind is None:
        return None
    found = context.instruction
    is_operand = found is not None and found.bytes and kind != "execute"
    size = found.bytes if found is not None and is_operand else None
    return Access(kind, raised.parameters[1], size, raised.thread_id, found.text if found is not None else "")


def _pointer(context: ReportContext, access: Access | None, crash: Crash | None) -> str:
    """The pointer that led nowhere, read; "" where it says nothing, and where the heap explains the crash."""
    if access is None or (crash is not None and not crash.is_likely):
        return ""
    found = context.instruction
    pointer_bytes = context.process.views[-1].pointer_bytes
    if found is None or not found.base or access.kind == "execute":
        words = pointer_words(access.address, pointer_bytes) if access.address < (1 << 64) - 1 else ""
        return f"; {words}" if words and words != "null" else ""
    name, value, words = _worst(found, pointer_bytes)
    if crash is not None and words.startswith("null"):
        words = ""  # a small number out of freed memory
    return f"; {name} = {value:#x} in {found.text}" + (f": {words}" if words else "")


def _worst(found: FaultingInstruction, pointer_bytes: int) -> tuple[str, int, str]:
    """(register, value, its meaning): the one of the address that no address can have, else the base."""
    held = [(found.base, found.base_value), *((one.holder, one.value) for one in found.pointers if not one.steps)]
    read = [(name, value, pointer_words(value, pointer_bytes)) for name, value in held]
    return next((one for one in read if one[2] and not one[2].startswith("null")), read[0])


def _thrown(process: Process) -> str:
    found = thrown(process)
    return "" if found is None else f" {found.words}"


def _register_words(found: RegisterBlock) -> str:
    offset = found.value - found.block.address
    place = "at the" if offset == 0 else f"{offset:+#x} into the"
    freed = "freed " if found.block.state == "free" else ""
    return f"{found.register} points {place} {freed}block at {found.block.address:#x}"


def _register_blocks(context: ReportContext) -> Iterator[RegisterBlock]:
    for name, value in _registers(context.process):
        located = context.locate(value)
        if located.block is not None and not located.block.is_internal:
            yield RegisterBlock(name, value, located.block, located.relation)


def _beside_damage(process: Process, damage: Sequence[Finding]) -> Iterator[tuple[str, int, int]]:
    """Registers that point beside damage: the block there may have no row because of the damage."""
    for name, value in _registers(process):
        near = next((finding for finding in damage if -_NEAR <= value - finding.address <= _NEAR), None)
        if near is not None:
            yield name, value, near.address


def _registers(process: Process) -> Iterator[tuple[str, int]]:
    """(name, value) of the general registers at the exception whose value may be a pointer."""
    from heapdump.process.stacks.frames import exception_registers

    raised = process.exception
    thread: Thread | None = next((t for t in process.threads if raised and t.id == raised.thread_id), None)
    recorded = (exception_registers(process, view) for view in reversed(process.views))
    registers = next((found for found in recorded if found is not None), None)
    if registers is None and thread is not None:
        registers = thread.registers32 or thread.registers
    for name, value in registers.values.items() if registers is not None else ():
        if name not in _NO_POINTERS and value >= _LOWEST:
            yield name, value


def _failure_severity(process: Process, record: FailureRecord) -> Severity:
    """An error where the failure ended the process, or stands before it; a warning where the process went on.

    ntdll goes on where HeapEnableTerminationOnCorruption is off: then neither an exception nor its record on a stack
    is in the dump, and the record in ntdll's data may be old.
    """
    return "error" if process.exception is not None or record.thread_id is not None else "warning"


def _failure(context: ReportContext, record: FailureRecord) -> WindowsReport:
    heap = context.heap_at(record.heap)
    address = heap.address if heap is not None else record.heap
    witness = f"ntdll's failure record ({record.words})"
    source = f"; read from {record.witness}" if context.process.exception is None else ""
    severity = _failure_severity(context.process, record)
    if severity == "warning":
        source += "; the process went on"
    freed = judge_free(context, record)
    if freed is not None:
        message = f"{freed.sentence}; ntdll reported {record.words}{source}"
        finding = Finding("failure_record", severity, address, freed.pointer, 1, message, "", f"type {record.type}")
        return WindowsReport(finding, freed.bug, freed.block, witness, record.frames, entry=record.block)
    located = context.locate(record.block) if record.block else None
    block = located.block if located is not None else None
    name = record.names[0] if len(record.names) == 1 else ""
    bug = _FAILURE_BUGS.get(name)
    if block is not None and block.end <= record.block and bug is not BugKind.OVERFLOW:
        block = None  # it is the block before: its last 8 bytes lie in the header that failed
    words = f": {_FAILURE_WORDS[name]}" if name in _FAILURE_WORDS else ""
    places = [f"at {record.block:#x}"] * bool(record.block) + [f"of heap {address:#x}"] * bool(address)
    message = f"ntdll reported {record.words}{words}{source}{', ' * bool(places)}{' '.join(places)}"
    place = record.block or record.address
    finding = Finding("failure_record", severity, address, place, 1, message, "", f"type {record.type}")
    return WindowsReport(finding, bug, block, witness, record.frames, entry=record.block)
