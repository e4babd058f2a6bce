"""Texts in memory: how one is recognised, and how one is read to its end."""

from __future__ import annotations

import re

from heapdump.memory.space import AddressSpace
from heapdump.spans import Span

_ASCII = re.compile(rb"[\x20-\x7e\t\r\n]{4,}")
_UTF16 = re.compile(rb"(?:[\x20-\x7e\t\r\n]\0){4,}")
_PEEK = 96


def text_at(space: AddressSpace, address: int) -> str | None:
    """The text of printable characters that begins at an address, at most some 48 of them; None for other bytes.

    It has 4 characters or more and ends with a zero, or goes on behind the part that is read.
    """
    part = next(space.mapped.present(Span(address, min(address + _PEEK, 1 << 64))), None)
    data = space.try_read(address, part.size) if part is not None and part.start == address else None
    if not data:
        return None
    wide = _UTF16.match(data)
    if wide and (wide.end() + 2 > len(data) or data[wide.end() : wide.end() + 2] == b"\0\0"):
        return wide[0].decode("utf-16-le")
    narrow = _ASCII.match(data)
    if narrow and (narrow.end() == len(data) or data[narrow.end()] == 0):
        return narrow[0][: _PEEK // 2].decode("ascii")
    return None


def quoted(text: str, most: int = 32) -> str:
    """The text in quotation marks, in one line, cut behind `most` characters."""
    line = " ".join(text.split())
    return f'"{line[:most]}…"' if len(line) > most else f'"{line}"'
