"""The crash: the exception, the stack of its thread, the instruction, and what the registers that matter point to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from heapdump.analyses.by_hand.code import Code
from heapdump.analyses.by_hand.pointees import Pointee, PointeeKind
from heapdump.process.model import Process, View
from heapdump.process.reports.bad_pointer import pointer_words
from heapdump.process.reports.failure_record import HEAP_CORRUPTION, FailureRecord
from heapdump.process.stacks.disassembly import Instruction
from heapdump.process.stacks.frames import StackFrame, exception_registers
from heapdump.process.stacks.registers import Registers

_ACCESS_VIOLATION = 0xC0000005
_MOST_REGISTERS = 3
_NEAR = 0x1000
"""Bytes between the value of a register and the address of a failed access that was made through it."""

_NO_POINTERS = ("rsp", "esp", "rip", "eip", "cs", "eflags")


@dataclass(frozen=True, slots=True)
class RegisterValue:
    """A register at the exception.

    Attributes:
        name: of the register.
        value: its value.
        pointee: the thing that it points to; None where it is no pointer.
        meaning: the pointee, or the kind of a bad pointer, in words; "" where neither is known.
    """

    name: str
    value: int
    pointee: Pointee | None
    meaning: str


@dataclass(frozen=True, slots=True)
class CrashSection:
    """The exception of the dump, or the failure that ntdll recorded.

    Attributes:
        code: of the exception.
        words: the exception, for a person.
        thread: id of its thread; None where it is not known.
        address: of the instruction that raised it.
        frames: of that thread, innermost first; () where they are not known.
        instruction: as text; "" where the code is not known.
        registers: at most three, those of the instruction's operand first.
    """

    code: int
    words: str
    thread: int | None
    address: int
    frames: tuple[StackFrame, ...]
    instruction: str
    registers: tuple[RegisterValue, ...]


def crash_section(
    process: Process,
    frames: Sequence[StackFrame],
    code: Callable[[View], Code],
    pointees: Callable[[int], Pointee | None],
) -> CrashSection | None:
    """The crash; None for a dump without exception.

    `code` gives the code of a view. `pointees` names the thing at an address, None for none.
    """
    raised = process.exception
    if raised is None:
        return None
    instruction, registers = None, None
    for view in reversed(process.views):
        registers = exception_registers(process, view)
        if registers is not None:
            instruction = next(iter(code(view).after(registers.ip, 1)), None)
            break
    named = tuple(_registers(process, registers, instruction, pointees)) if registers else ()
    text = "" if instruction is None or not any(instruction.data) else instruction.text
    words = process.exception_words if named else process.exception_words + _bad_address(process)
    return CrashSection(
        raised.code, words, raised.thread_id, raised.address, tuple(frames), text,
        named[:_MOST_REGISTERS],
    )  # fmt: skip


def failed_section(failure: FailureRecord, frames: Sequence[StackFrame]) -> CrashSection:
    """The crash of a dump without exception: ntdll's record of a heap failure, and the frames of its thread."""
    address = failure.frames[0] if failure.frames else failure.address
    return CrashSection(HEAP_CORRUPTION, "heap corruption", failure.thread_id, address, tuple(frames), "", ())


def _registers(
    process: Process,
    registers: Registers,
    instruction: Instruction | None,
    pointees: Callable[[int], Pointee | None],
) -> Iterator[RegisterValue]:
    """Registers of the operand, else those near the address that failed; then those that point into blocks."""
    used = instruction.memory if instruction is not None else None
    values = {name: value for name, value in registers.values.items() if name not in _NO_POINTERS}
    names = [name for name in (used.base, used.index) if name in values] if used is not None else []
    names = names or [name for name, value in values.items() if _is_near(process, value)]
    for name in names:
        found = pointees(values[name])
        meaning = found.text if found is not None else pointer_words(values[name], 4 if registers.arch == "x86" else 8)
        yield RegisterValue(name, values[name], found, meaning)
    for name, value in values.items():
        found = pointees(value) if name not in names else None
        if found is not None and found.kind is PointeeKind.BLOCK:
            yield RegisterValue(name, value, found, found.text)


def _bad_address(process: Process) -> str:
    """The likeliest meaning of the address that an access failed at, where no register says it."""
    raised = process.exception
    if raised is None or raised.code != _ACCESS_VIOLATION or len(raised.parameters) < 2:
        return ""
    words = pointer_words(raised.parameters[1], process.views[-1].pointer_bytes)
    return f" ({words})" if words and words != "null" else ""


def _is_near(process: Process, value: int) -> bool:
    raised = process.exception
    if raised is None or raised.code != _ACCESS_VIOLATION or len(raised.parameters) < 2 or value < _NEAR:
        return False
    return abs(raised.parameters[1] - value) < _NEAR
