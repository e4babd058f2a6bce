"""Instructions through capstone: whether a call stands before a return address."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where it is used: most questions have no stack to unwind
    from capstone import Cs

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
    from capstone import CS_GRP_CALL

    decoder = _decoder(pointer_bytes)
    for size in range(_SHORTEST_CALL, len(code) + 1):
        found = next(decoder.disasm(code[-size:], address - size, 1), None)
        if found is not None and found.size == size and CS_GRP_CALL in found.groups:
            return True
    return False
