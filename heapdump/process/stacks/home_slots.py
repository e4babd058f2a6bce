"""Arguments of x64 functions in their home slots: the four stack slots that a caller keeps for rcx, rdx, r8 and r9.

A slot holds the argument only where the function's first instructions stored the register there (Microsoft's x64 ABI;
unoptimised code and functions that take the address of an argument do).
"""

from __future__ import annotations

from heapdump.memory.space import AddressSpace
from heapdump.process.symbols.images import Image

_STORES = {
    bytes.fromhex("48894c2408"): (0, 8),
    bytes.fromhex("4889542410"): (1, 8),
    bytes.fromhex("4c89442418"): (2, 8),
    bytes.fromhex("4c894c2420"): (3, 8),
    bytes.fromhex("894c2408"): (0, 4),
    bytes.fromhex("89542410"): (1, 4),
    bytes.fromhex("4489442418"): (2, 4),
    bytes.fromhex("44894c2420"): (3, 4),
}
"""mov [rsp + 8 + 8 * slot], register → (slot, bytes)."""


def home_arguments(space: AddressSpace, image: Image, rva: int, caller_sp: int) -> tuple[int | None, ...]:
    """Values of the four home slots of the function at an RVA, None where it did not store the register; () for none.

    `caller_sp`: stack pointer behind the return of the function, where slot 0 lies.
    """
    function = image.function_at(rva)
    if function is None:
        return ()
    code = image.read(function[0], min(4 * 5, function[1] - function[0])) or b""
    found: dict[int, int] = {}
    at = 0
    while store := next((store for store in _STORES if code.startswith(store, at)), None):
        at += len(store)
        if function[0] + at <= rva:
            slot, size = _STORES[store]
            found[slot] = size
    if not found:
        return ()
    return tuple(
        space.try_integer(caller_sp + 8 * slot, found[slot]) if slot in found else None
        for slot in range(max(found) + 1)
    )
