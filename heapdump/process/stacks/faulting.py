"""The instruction at which a thread failed, and the pointers that it went through.

In: the registers and the code at the exception. Out: the instruction, and for each pointer behind the failed access the
register or stack slot that held it. A pointer that was read from memory is followed back through plain moves, and
believed only where the memory still holds the value that the register has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from heapdump.memory.space import AddressSpace
from heapdump.process.model import Process, View
from heapdump.process.stacks.disassembly import (
    LONGEST_INSTRUCTION,
    Instruction,
    MemoryOperand,
    TracedInstruction,
    instruction_at,
    instructions_before,
)
from heapdump.process.stacks.frames import exception_registers
from heapdump.process.stacks.registers import Registers

_CODE_BEFORE = 48
_MOST_LOADS = 4
"""Moves that are followed back."""

_FRAME_REGISTERS = ("rsp", "esp", "rbp", "ebp", "rip")


@dataclass(frozen=True, slots=True)
class PointerUsed:
    """A pointer that the failed access used.

    Attributes:
        holder: register or stack slot that held it: `rcx`, `[ebp+0x8]`.
        value: the pointer.
        displacement: bytes from the pointer to the address that was read through it.
        steps: number of loads between it and the failed access; 0 for a register of the faulting instruction.
    """

    holder: str
    value: int
    displacement: int
    steps: int


@dataclass(frozen=True, slots=True)
class FaultingInstruction:
    """The instruction that failed.

    Attributes:
        address: of the instruction.
        text: the instruction, as text.
        operand: its operand in memory, as text.
        bytes: bytes that it reads or writes there.
        base: base register of the operand; "" for none.
        base_value: value of that register.
        pointers: the pointers that the access used, innermost first. Empty where the operand does not lead to the
            address that failed: then other code may have run.
    """

    address: int
    text: str
    operand: str
    bytes: int
    base: str
    base_value: int
    pointers: tuple[PointerUsed, ...]


def faulting_instruction(process: Process) -> FaultingInstruction | None:
    """The instruction at the exception; None without one, and where its code or registers are not in the dump."""
    if process.exception is None:
        return None
    for view in reversed(process.views):
        registers = exception_registers(process, view)
        code = _code(view.space, registers.ip, LONGEST_INSTRUCTION) if registers is not None else b""
        found = instruction_at(code, registers.ip, view.pointer_bytes) if registers is not None and code else None
        if registers is not None and found is not None and any(found.data):
            return _faulting(process, view, registers, found)
    return None


def _faulting(process: Process, view: View, registers: Registers, found: Instruction) -> FaultingInstruction:
    memory = found.memory
    if memory is None:
        return FaultingInstruction(found.address, found.text, "", 0, "", 0, ())
    values = registers.values
    if not _is_accessed(process, view, memory, values):
        return FaultingInstruction(found.address, found.text, str(memory), memory.size, "", 0, ())
    pointers = [
        PointerUsed(name, values[name], memory.displacement if name == memory.base else 0, 0)
        for name in (memory.base, memory.index)
        if name in values
    ]
    if memory.base in values:
        before = _before(view, registers.ip)
        pointers += _followed(view.space, registers, before, memory.base)
    base_value = values.get(memory.base, 0)
    return FaultingInstruction(
        found.address, found.text, str(memory), memory.size, memory.base, base_value, tuple(pointers)
    )


def _is_accessed(process: Process, view: View, memory: MemoryOperand, values: Mapping[str, int]) -> bool:
    """True where the operand is at the address of the access violation; of a non-canonical one Windows says -1."""
    raised = process.exception
    if raised is None or len(raised.parameters) < 2 or memory.segment:
        return False
    mask = (1 << 8 * view.pointer_bytes) - 1
    address = values.get(memory.base, 0) + values.get(memory.index, 0) * memory.scale + memory.displacement & mask
    return raised.parameters[1] == (1 << 64) - 1 or 0 <= raised.parameters[1] - address < max(memory.size, 1)


def _before(view: View, ip: int) -> list[TracedInstruction]:
    for size in range(_CODE_BEFORE, 0, -8):
        code = view.space.try_read(ip - size, size)
        if code is not None:
            return instructions_before(code, ip, view.pointer_bytes)
    return []


def _followed(
    space: AddressSpace, registers: Registers, before: Sequence[TracedInstruction], register: str
) -> tuple[PointerUsed, ...]:
    """The pointers that `register` was read through, innermost first.

    The loads are followed back until one begins at a register that still has its value: then the memory gives the
    value of `register` again.
    """
    loads: list[MemoryOperand] = []
    wanted = register
    for found in reversed(before):
        if wanted not in found.written:
            continue
        memory = found.instruction.memory
        if found.loads != wanted or memory is None or memory.index or not memory.base or len(loads) == _MOST_LOADS:
            break
        loads.insert(0, memory)
        wanted = memory.base
        pointers = _evaluated(space, registers, loads, registers.values[register])
        if pointers:
            return pointers
    return ()


def _evaluated(
    space: AddressSpace, registers: Registers, loads: Sequence[MemoryOperand], wanted: int
) -> tuple[PointerUsed, ...]:
    """The pointers of these loads, oldest load first, innermost pointer first; () where they do not give `wanted`."""
    holder, value = loads[0].base, registers.values.get(loads[0].base)
    pointers: list[PointerUsed] = []
    for number, load in enumerate(loads):
        if value is None:
            return ()
        if holder not in _FRAME_REGISTERS:
            pointers.insert(0, PointerUsed(holder, value, load.displacement, len(loads) - number))
        value = space.try_pointer(value + load.displacement)
        holder = str(MemoryOperand(holder, "", 1, load.displacement, 0, ""))
    return tuple(pointers) if value == wanted else ()


def _code(space: AddressSpace, address: int, size: int) -> bytes:
    """At most `size` bytes of code, as many as the dump has."""
    for length in range(size, 0, -1):
        data = space.try_read(address, length)
        if data is not None:
            return data
    return b""
