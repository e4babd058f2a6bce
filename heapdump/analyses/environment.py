"""The environment variables of the process: `NAME=value` texts in UTF-16, one behind the other, an empty one last.

Source: RTL_USER_PROCESS_PARAMETERS.Environment (public symbols of ntdll).
"""

from __future__ import annotations

from heapdump.process.model import Process

_MOST_BYTES, _PIECE = 0x10000, 0x1000


def environment(process: Process) -> dict[str, str]:
    """Name → value, of the 32-bit view where there are two; empty where the dump does not hold it."""
    for view in reversed(process.views):
        base = view.peb_fields.get("ProcessParameters")
        parameters = view.layout["_RTL_USER_PROCESS_PARAMETERS"]
        if not base:
            continue
        address = view.space.try_pointer(base + parameters.offset("Environment"))
        found = _variables(_block(process, address)) if address else {}
        if found:
            return found
    return {}


def _block(process: Process, address: int) -> bytes:
    """The bytes up to the empty text, or to the end of what the dump holds."""
    out = b""
    while len(out) < _MOST_BYTES and b"\0\0\0\0" not in out:
        piece = process.space.try_read(address + len(out), _PIECE)
        if piece is None:
            room = -(address + len(out)) % 0x1000
            piece = process.space.try_read(address + len(out), room) if 0 < room < _PIECE else None
            return out + (piece or b"")
        out += piece
    return out


def _variables(block: bytes) -> dict[str, str]:
    text = block[: len(block) & ~1].decode("utf-16-le", "replace").partition("\0\0")[0]
    pairs = (entry.partition("=") for entry in text.split("\0"))
    return {name: value for name, sign, value in pairs if name and sign}
