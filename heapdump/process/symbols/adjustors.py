"""Functions that move the pointer to an object by some bytes, and go on to another function.

Compilers write them for the second interface of an object: its QueryInterface, AddRef and Release are those of the
first one, which want the start of the object.

    x64     sub rcx, N; jmp                        48 83 E9 N, 48 81 E9 N
    x86     sub dword ptr [esp + 4], N; jmp        83 6C 24 04 N, 81 6C 24 04 N (__stdcall)
            sub ecx, N; jmp                        83 E9 N, 81 E9 N (__thiscall)

Clang adds -N. A compiler that writes the function itself in the place of the jump leaves no evidence.
"""

from __future__ import annotations

import re

from heapdump.process.model import View

_CODE_BYTES = 16
_JUMP = rb"(?:\xe9(?P<far>.{4})|\xeb(?P<near>.))"
_X64 = re.compile(
    rb"\x48(?:\x83(?P<op>[\xe9\xc1])(?P<byte>.)|\x81(?P<long_op>[\xe9\xc1])(?P<long>.{4}))" + _JUMP, re.DOTALL
)
_X86 = re.compile(
    rb"(?:\x83(?P<op>[\x6c\x44]\x24\x04|[\xe9\xc1])(?P<byte>.)|\x81(?P<long_op>[\x6c\x44]\x24\x04|[\xe9\xc1])(?P<long>.{4}))"
    + _JUMP,
    re.DOTALL,
)
_ADDS = b"\xc1\x44"
"""Second bytes of add, which Clang writes with a negative number."""


def adjustor(view: View, function: int) -> tuple[int, int] | None:
    """(bytes by which it moves the pointer back, address of the function that it goes on to); None for another one."""
    code = view.space.try_read(function, _CODE_BYTES)
    match = (_X64 if view.pointer_bytes == 8 else _X86).match(code) if code else None
    if match is None:
        return None
    moved = int.from_bytes(match["byte"] or match["long"], "little", signed=True)
    moved = -moved if (match["op"] or match["long_op"])[0] in _ADDS else moved
    target = function + match.end() + int.from_bytes(match["far"] or match["near"], "little", signed=True)
    return moved, target & ((1 << 8 * view.pointer_bytes) - 1)


def shares_functions(view: View, first: int, other: int, offset: int) -> bool:
    """True where the first three functions of a vtable are adjustors that lead to those of the first vtable.

    `offset`: the bytes by which they move the pointer.
    """
    width = view.pointer_bytes
    for slot in range(3):
        function, wanted = (view.space.try_pointer(table + slot * width) for table in (other, first))
        if function is None or wanted is None or adjustor(view, function) != (offset, wanted):
            return False
    return True
