"""Stubs that lead to a method (precodes, 7 and later, x64): delegates and vtables point to them instead of to code.

    FixupPrecode  jmp [rip + d]; mov r10, [rip + d]; jmp [rip + d]        the MethodDesc is what r10 gets
    StubPrecode   mov r10, [rip + d]; jmp [rip + d]

The operands lie in a data page behind the page of code. The instruction itself says where; what it loads must prove
itself as a MethodDesc. Seen in 10.0.9. Source: precode.h, FixupPrecodeData and StubPrecodeData of the runtime.
"""

from __future__ import annotations

from collections.abc import Callable

from heapdump.memory.space import AddressSpace

_LOAD, _JUMP = b"\x4c\x8b\x15", b"\xff\x25"
_LOAD_BYTES, _JUMP_BYTES, _STUB_BYTES = 7, 6, 24


def stub_target(
    space: AddressSpace, first: int, address: int, is_method: Callable[[int], bool]
) -> tuple[int, int] | None:
    """(start of the stub, MethodDesc) of the stub that holds an address; None where no stub names a method.

    `first`: where the range of stubs begins.
    """
    low = address - _STUB_BYTES
    before = max(low, first)
    read = space.try_read(before, address - before + _STUB_BYTES + _LOAD_BYTES)
    if read is None or space.pointer_bytes != 8:
        return None
    code = bytes(before - low) + read
    for at in range(_STUB_BYTES + _JUMP_BYTES, 0, -1):  # the nearest stub that begins at or before the address
        if code[at : at + 3] != _LOAD:
            continue
        is_fixup = code[at - _JUMP_BYTES : at - _JUMP_BYTES + 2] == _JUMP if at >= _JUMP_BYTES else False
        start = low + at - (_JUMP_BYTES if is_fixup else 0)
        slot = low + at + _LOAD_BYTES + int.from_bytes(code[at + 3 : at + 7], "little", signed=True)
        desc = space.try_pointer(slot) if slot > 0 else None
        if start <= address and desc and is_method(desc):
            return (start, desc) if address < start + _STUB_BYTES else None
    return None
