"""Instructions through capstone: decoded ones, the code before an address, calls before return addresses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where it is used: most questions have no stack to unwind
    from capstone import Cs, CsInsn

CALL_BYTES = 7
"""Bytes of code before a return address in which its call is looked for."""

LONGEST_INSTRUCTION = 15
"""Bytes of the longest instruction of x86 and x64."""

_SHORTEST_CALL = 2
_DECODED = 1 << 12
"""Bytes that are decoded together: behind each byte that begins no instruction the others are copied."""

_SPACED = re.compile(r"\[[^]]*\]")


@cache
def _decoder(pointer_bytes: int) -> Cs:
    from capstone import CS_ARCH_X86, CS_MODE_32, CS_MODE_64, Cs

    decoder = Cs(CS_ARCH_X86, CS_MODE_64 if pointer_bytes == 8 else CS_MODE_32)
    decoder.detail = True
    return decoder


def ends_with_call(code: bytes, address: int, pointer_bytes: int) -> bool:
    """True when a call instruction ends at the address; `code` = the bytes before it, `CALL_BYTES` of them."""
    return _call(code, address, pointer_bytes) is not None


def call_target(code: bytes, address: int, pointer_bytes: int, pointer: Callable[[int], int | None]) -> int | None:
    """The address that the call before `address` enters; None where a register or absent memory decides it.

    `code` = the bytes before the address; `pointer` reads a pointer of the dump, for a call through one.
    """
    from capstone.x86 import X86_OP_IMM, X86_OP_MEM, X86_REG_RIP

    call = _call(code, address, pointer_bytes)
    if call is None:
        return None
    operand = call.operands[0]
    if operand.type == X86_OP_IMM:
        return int(operand.imm)
    if operand.type != X86_OP_MEM or operand.mem.index or operand.mem.base not in (0, X86_REG_RIP):
        return None
    start = address if operand.mem.base else 0
    return pointer(start + int(operand.mem.disp) & (1 << 8 * pointer_bytes) - 1)


def _call(code: bytes, address: int, pointer_bytes: int) -> CsInsn | None:
    """The shortest call instruction that ends at the address."""
    from capstone import CS_GRP_CALL

    decoder = _decoder(pointer_bytes)
    for size in range(_SHORTEST_CALL, len(code) + 1):
        found = next(decoder.disasm(code[-size:], address - size, 1), None)
        if found is not None and found.size == size and CS_GRP_CALL in found.groups:
            return found
    return None


@dataclass(frozen=True, slots=True)
class MemoryOperand:
    """An operand in memory: base + index * scale + displacement, with names of registers, "" without one.

    `size`: bytes that the instruction reads or writes there, 0 where it takes the address alone. `segment`: `fs`, `gs`,
    or "".
    """

    base: str
    index: str
    scale: int
    displacement: int
    size: int
    segment: str

    def __str__(self) -> str:
        """`[ebp+0xc]`, `[rax+rcx*8-0x10]`, `[0x401000]`."""
        index = f"{self.index}*{self.scale}" if self.index and self.scale != 1 else self.index
        names = "+".join(name for name in (self.base, index) if name)
        offset = f"{self.displacement:+#x}" if names else f"{self.displacement:#x}"
        return f"[{names}{offset if self.displacement or not names else ''}]"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of x86 or x64 code.

    Attributes:
        address: of its first byte.
        data: its bytes.
        text: mnemonic and operands as capstone writes them, without spaces inside brackets.
        is_call: True for calls.
        is_jump: True for jumps, conditional ones as well.
        is_return: True for returns.
        target: address that a direct call or jump leads to; None for others.
        memory: its first operand in memory; None without one.
    """

    address: int
    data: bytes
    text: str
    is_call: bool = False
    is_jump: bool = False
    is_return: bool = False
    target: int | None = None
    memory: MemoryOperand | None = None

    @property
    def end(self) -> int:
        """The address behind its last byte."""
        return self.address + len(self.data)

    @property
    def is_final(self) -> bool:
        """True where what follows is not reached by going on: a return, an unconditional jump, int3."""
        return self.is_return or self.text.startswith(("jmp", "int3", "ud2", "hlt"))


def decode(code: bytes, address: int, pointer_bytes: int, *, is_all: bool = False) -> Iterator[Instruction]:
    """The instructions of `code`, which lies at `address`, in order.

    A byte that begins no instruction is given as an instruction of one byte with the text `db 0xff`. Ends before the
    last 14 bytes where they begin no instruction: it may be cut; with `is_all` it is not. `pointer_bytes`: 4 (x86) or 8
    (x64).
    """
    decoder, at = _decoder(pointer_bytes), 0
    while at < len(code):
        begin = at
        for found in decoder.disasm(code[at : at + _DECODED], address + at):
            yield _instruction(found)
            at = found.address + found.size - address
        if at < len(code):
            if begin < at and begin + _DECODED - at < LONGEST_INSTRUCTION:  # cut by the piece
                continue
            if not is_all and len(code) - at < LONGEST_INSTRUCTION:  # perhaps cut
                return
            yield Instruction(address + at, code[at : at + 1], f"db {code[at]:#04x}")
            at += 1


def lengths(code: bytes, address: int, pointer_bytes: int) -> list[int]:
    """For each byte of `code` the length in bytes of the instruction that begins there; 0 for none and for a cut one.

    `address`: of the first byte of `code`.
    """
    decoder = _decoder(pointer_bytes)
    out = []
    for at in range(len(code)):
        found = next(decoder.disasm_lite(code[at : at + LONGEST_INSTRUCTION], address + at, 1), None)
        out.append(found[1] if found else 0)
    return out


def _instruction(found: CsInsn) -> Instruction:
    from capstone import CS_GRP_CALL, CS_GRP_JUMP, CS_GRP_RET
    from capstone.x86 import X86_OP_IMM, X86_OP_MEM

    is_call, is_jump = CS_GRP_CALL in found.groups, CS_GRP_JUMP in found.groups
    target, memory = None, None
    for operand in found.operands:
        if operand.type == X86_OP_IMM and (is_call or is_jump):
            target = int(operand.imm) & (1 << 64) - 1
        elif operand.type == X86_OP_MEM and memory is None:
            place = operand.mem
            name = found.reg_name
            memory = MemoryOperand(
                name(place.base) or "" if place.base else "", name(place.index) or "" if place.index else "",
                int(place.scale), int(place.disp), 0 if found.mnemonic in ("lea", "nop") else int(operand.size),
                name(place.segment) or "" if place.segment else "",
            )  # fmt: skip
    text = _SPACED.sub(lambda part: part[0].replace(" ", ""), f"{found.mnemonic} {found.op_str}".strip())
    return Instruction(
        found.address, bytes(found.bytes), text, is_call, is_jump, CS_GRP_RET in found.groups, target, memory
    )


@dataclass(frozen=True, slots=True)
class TracedInstruction:
    """An instruction, and the registers that it changes.

    Attributes:
        instruction: the instruction.
        loads: register that a `mov` of pointer size fills from memory; "" for other instructions.
        written: registers that it changes. Registers have the name of the general register: `rax` for `eax` and `al`
            on x64.
    """

    instruction: Instruction
    loads: str
    written: frozenset[str]


def instruction_at(code: bytes, address: int, pointer_bytes: int) -> Instruction | None:
    """The instruction at the start of `code`, which lies at `address`; None where no instruction begins there."""
    found = next(_decoder(pointer_bytes).disasm(code, address, 1), None)
    return None if found is None else _instruction(found)


def instructions_before(code: bytes, address: int, pointer_bytes: int) -> list[TracedInstruction]:
    """The instructions that end at `address`, in the order of their addresses.

    `code` = the bytes before the address. Code can be read from any byte on; the reading with the most instructions
    counts. Its first instructions may be wrong.
    """
    best: list[CsInsn] = []
    for size in range(len(code), 0, -1):
        found = list(_decoder(pointer_bytes).disasm(code[-size:], address - size))
        if found and found[-1].address + found[-1].size == address and len(found) > len(best):
            best = found
    return [_traced(one, pointer_bytes) for one in best]


def _traced(found: CsInsn, pointer_bytes: int) -> TracedInstruction:
    from capstone.x86 import X86_OP_REG

    instruction, loads = _instruction(found), ""
    if found.mnemonic == "mov" and instruction.memory is not None:
        first = found.operands[0]
        if first.type == X86_OP_REG and first.size == pointer_bytes:
            loads = _general_register(found.reg_name(first.reg) or "", pointer_bytes)
    _, changed = found.regs_access()
    written = frozenset(_general_register(found.reg_name(number) or "", pointer_bytes) for number in changed)
    return TracedInstruction(instruction, loads, written)


def _general_register(name: str, pointer_bytes: int) -> str:
    """The general register that a register is part of: `rax` for `eax` and `al` on x64."""
    if pointer_bytes == 4:
        name = {"ax": "eax", "bx": "ebx", "cx": "ecx", "dx": "edx"}.get(name, name)
        return {"l": f"e{name[0]}x", "h": f"e{name[0]}x"}.get(name[-1:], name) if len(name) == 2 else name
    if name.startswith("r") and name[1:2].isdigit():
        return name.rstrip("dwb")
    stem = name[1:] if name[:1] in "er" and len(name) == 3 else name
    if len(stem) == 2 and stem[0] in "abcd" and stem[1] in "xlh":
        return f"r{stem[0]}x"
    return f"r{stem[:2]}" if stem[:2] in ("si", "di", "bp", "sp") else name
