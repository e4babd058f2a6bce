"""Instructions through capstone: whether a call stands before a return address."""

from __future__ import annotations

from functools import cache

from capstone import CS_ARCH_X86, CS_GRP_CALL, CS_MODE_32, CS_MODE_64, Cs

from heapdump.memory.space import AddressSpace

_LONGEST_CALL = 7
_SHORTEST_CALL = 2


@cache
def _decoder(pointer_bytes: int) -> Cs:
    decoder = Cs(CS_ARCH_X86, CS_MODE_64 if pointer_bytes == 8 else CS_MODE_32)
    decoder.detail = True
    return decoder


def follows_call(space: AddressSpace, address: int) -> bool | None:
    """True when a call instruction ends at the address; None where its bytes are not in the dump."""
    code = space.try_read(address - _LONGEST_CALL, _LONGEST_CALL)
    if code is None:
        return None
    decoder = _decoder(space.pointer_bytes)
    for size in range(_SHORTEST_CALL, _LONGEST_CALL + 1):
        found = next(decoder.disasm(code[-size:], address - size, 1), None)
        if found is not None and found.size == size and CS_GRP_CALL in found.groups:
            return True
    return False
