"""The contract descriptor that .NET 9 and later export: the runtime's own account of its offsets and globals.

Source: docs/design/datacontracts/contract-descriptor.md of the runtime; bytes seen in 10.0.9:

    +0 magic "DNCCDAC\\0", read as a number of 8 bytes; +8 u32 flags, bit 1: pointers of 32 bits; +C u32 length of the
    JSON;
    +10 pointer to the JSON; then u32 count of the pointer table, u32 zero, pointer to the table
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from heapdump.memory.space import AddressSpace

_MAGIC = b"DNCCDAC\0"
_MOST_JSON, _MOST_POINTERS = 1 << 20, 1 << 12


@dataclass(frozen=True)
class Descriptor:
    """Offsets of structures and addresses of globals. Empty where the runtime has none.

    `types`: structure → member → offset, `!` its size; `globals`: name → the number, or the address of the variable.
    """

    types: dict[str, dict[str, int]] = field(default_factory=dict)
    globals: dict[str, int] = field(default_factory=dict)

    def offset(self, type_: str, member: str) -> int | None:
        """The offset of a member; None where the descriptor does not name it."""
        return self.types.get(type_, {}).get(member)


def read_descriptor(space: AddressSpace, address: int) -> Descriptor | None:
    """The descriptor at an address; None where there is none, and where its JSON cannot be read."""
    pointer = space.pointer_bytes
    if space.try_read(address, 8) != _MAGIC:
        return None
    length = space.try_integer(address + 12, 4) or 0
    text_at, table_at = space.try_pointer(address + 16), space.try_pointer(address + 24 + pointer)
    count = space.try_integer(address + 16 + pointer, 4) or 0
    text = space.try_read(text_at, length) if text_at and length <= _MOST_JSON else None
    if text is None or count > _MOST_POINTERS:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    pointers = [space.try_pointer((table_at or 0) + pointer * i) for i in range(count)]
    return Descriptor(_types(document.get("types")), _globals(document.get("globals"), pointers))


def _types(found: object) -> dict[str, dict[str, int]]:
    """Structure → member → offset; a member is an offset, or a list of the offset and a type."""
    out: dict[str, dict[str, int]] = {}
    for name, members in found.items() if isinstance(found, dict) else ():
        if isinstance(members, dict):
            first = ((key, value[0] if isinstance(value, list) and value else value) for key, value in members.items())
            out[name] = {key: value for key, value in first if isinstance(value, int) and 0 <= value < 1 << 20}
    return out


def _globals(found: object, pointers: list[int | None]) -> dict[str, int]:
    """Global → its number, or the address that the pointer table holds: `["0x4", type]`, `[[3], type]`."""
    out: dict[str, int] = {}
    for name, entry in found.items() if isinstance(found, dict) else ():
        value = entry[0] if isinstance(entry, list) and entry else entry
        if isinstance(value, list) and value and isinstance(value[0], int) and 0 <= value[0] < len(pointers):
            out[name] = pointers[value[0]] or 0
        elif isinstance(value, int):
            out[name] = value
        elif isinstance(value, str) and value.startswith("0x"):
            out[name] = int(value, 16)
    return out
