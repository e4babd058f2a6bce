"""One step up an x64 stack by unwind data, of images and of jitted code (RUNTIME_FUNCTION, UNWIND_INFO; Microsoft ABI).

Only functions in their body or prolog are undone; a top frame in an epilog is seen by its `ret` alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.memory.space import AddressSpace
from heapdump.process.symbols.foreign_code import UnwindData

_REGISTERS = (
    "rax",
    "rcx",
    "rdx",
    "rbx",
    "rsp",
    "rbp",
    "rsi",
    "rdi",
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
)
_CHAINED = 4
_MOST_CHAINS = 32
_RET = (0xC3, 0xC2)
_PUSH, _ALLOC_LARGE, _ALLOC_SMALL, _SET_FRAME, _SAVE, _SAVE_FAR, _EPILOG, _SPARE, _XMM, _XMM_FAR, _MACHINE = range(11)


@dataclass(frozen=True, slots=True)
class _UnwindCode:
    """One unwind code. `offset`: of the instruction's end in the prolog; `info`: 4 bits; `operand`: next slots."""

    offset: int
    operation: int
    info: int
    operand: int


@dataclass(frozen=True, slots=True)
class _UnwindInfo:
    """UNWIND_INFO: `frame` register number or 0, its `scaled` offset in bytes, codes, and the chained function."""

    frame: int
    scaled: int
    codes: tuple[_UnwindCode, ...]
    chained: tuple[int, int, int] | None


def caller_registers(
    space: AddressSpace, image: UnwindData, base: int, registers: dict[str, int], *, is_top: bool
) -> dict[str, int] | None:
    """The registers of the caller by name, `rip` = the return address; None where unwind data or stack is not there.

    Args:
        space: memory of the process.
        image: unwind data, by RVA.
        base: address of RVA 0.
        registers: name → value of the integer registers in the frame.
        is_top: True where `rip` is the instruction that runs, False where it is a return address.
    """
    rva = registers["rip"] - base
    function = image.function_at(rva if is_top else rva - 1)
    out = dict(registers)
    if function is None or (is_top and (space.try_integer(registers["rip"], 1) in _RET)):
        return _returned(space, out)
    for _ in range(_MOST_CHAINS):
        info = _info(image, function[2])
        if info is None:
            return None
        done = _undo(space, info, out, rva - function[0])
        if done is None:
            return None
        if done:  # a machine frame named ip and sp itself
            return out
        if info.chained is None:
            return _returned(space, out)
        function = info.chained
    return None


def _returned(space: AddressSpace, registers: dict[str, int]) -> dict[str, int] | None:
    address = space.try_integer(registers["rsp"], 8)
    return None if address is None else registers | {"rip": address, "rsp": registers["rsp"] + 8}


def _undo(space: AddressSpace, info: _UnwindInfo, registers: dict[str, int], offset: int) -> bool | None:
    """Undoes the prolog up to `offset` in place. True behind a machine frame; None where the stack is missing."""
    frame = registers["rsp"]
    if info.frame and any(code.operation == _SET_FRAME and code.offset <= offset for code in info.codes):
        frame = registers[_REGISTERS[info.frame]] - info.scaled
    for code in info.codes:
        if code.offset > offset:
            continue
        if code.operation == _MACHINE:
            return _undo_machine_frame(space, code, registers)
        if not _undo_one(space, code, registers, frame):
            return None
    return False


def _undo_one(space: AddressSpace, code: _UnwindCode, registers: dict[str, int], frame: int) -> bool:
    """Undoes one instruction of the prolog in place; False where the stack is missing."""
    if code.operation in (_SAVE, _SAVE_FAR, _PUSH):
        at = registers["rsp"] if code.operation == _PUSH else frame + code.operand
        value = space.try_integer(at, 8)
        if value is None:
            return False
        registers[_REGISTERS[code.info]] = value
        registers["rsp"] += 8 * (code.operation == _PUSH)
    elif code.operation in (_ALLOC_LARGE, _ALLOC_SMALL):
        registers["rsp"] += code.operand
    elif code.operation == _SET_FRAME:
        registers["rsp"] = frame
    return True


def _undo_machine_frame(space: AddressSpace, code: _UnwindCode, registers: dict[str, int]) -> bool | None:
    """Takes ip and sp from {error code if info is 1, rip, cs, eflags, rsp}; None where the stack is missing."""
    at = registers["rsp"] + 8 * code.info
    ip, sp = space.try_integer(at, 8), space.try_integer(at + 24, 8)
    if ip is None or sp is None:
        return None
    registers |= {"rip": ip, "rsp": sp}
    return True


def _info(image: UnwindData, rva: int) -> _UnwindInfo | None:
    head = image.read(rva, 4)
    if head is None or head[0] & 7 not in (1, 2):
        return None
    count, flags = head[2], head[0] >> 3
    slots = image.read(rva + 4, 2 * count)
    chained = None
    if flags & _CHAINED:
        row = image.read(rva + 4 + 2 * (count + count % 2), 12)
        if row is None:
            return None
        chained = (
            int.from_bytes(row[:4], "little"),
            int.from_bytes(row[4:8], "little"),
            int.from_bytes(row[8:], "little"),
        )
    if slots is None:
        return None
    return _UnwindInfo(head[3] & 0xF, (head[3] >> 4) * 16, tuple(_codes(slots)), chained)


def _codes(slots: bytes) -> list[_UnwindCode]:
    """Codes in file order, which undoes the prolog from its end; slots that hold operands belong to the code before."""
    words = [int.from_bytes(slots[i : i + 2], "little") for i in range(0, len(slots), 2)]
    out, i = [], 0
    while i < len(words):
        offset, operation, info = words[i] & 0xFF, words[i] >> 8 & 0xF, words[i] >> 12
        near = words[i + 1] if i + 1 < len(words) else 0
        far = near | (words[i + 2] << 16 if i + 2 < len(words) else 0)
        operand, used = 0, 1
        if operation == _ALLOC_SMALL:
            operand = info * 8 + 8
        elif operation == _ALLOC_LARGE:
            operand, used = (far, 3) if info else (near * 8, 2)
        elif operation in (_SAVE, _SAVE_FAR):
            operand, used = (far, 3) if operation == _SAVE_FAR else (near * 8, 2)
        elif operation in (_XMM, _EPILOG):
            used = 2 if operation == _XMM else 1
        elif operation in (_XMM_FAR, _SPARE):
            used = 3
        out.append(_UnwindCode(offset, operation, info, operand))
        i += used
    return out
