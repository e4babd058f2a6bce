"""Instructions through capstone: whether a call stands before a return address, and where it leads."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where it is used: most questions have no stack to unwind
    from capstone import Cs, CsInsn

CALL_BYTES = 7
"""The longest call instruction."""

_SHORTEST_CALL = 2


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
