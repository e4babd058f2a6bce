"""What lies in and around a damaged place, in words and bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from heapdump.blocks.findings import Finding
from heapdump.blocks.table import INTERNAL, Block, BlockTable
from heapdump.process.model import Process

_BEFORE, _AFTER, _LINE = 32, 64, 16
_LOOKED_AT = 32
_FILLS = {
    0xAB: "the heap's tail fill", 0xCD: "the CRT's fill of new memory", 0xDD: "the CRT's fill of freed memory",
    0xFD: "the CRT's guard", 0xF0: "page heap's fill of freed memory", 0xD0: "page heap's suffix", 0xA0: "page heap's suffix",
    0xC0: "page heap's fill of new memory", 0xE0: "page heap's fill of new memory", 0xCC: "the compiler's fill of locals",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Evidence:
    """Memory around a place: `data` from `start` on, None where it is not in the dump; `looks`: what the new bytes are.

    [`low`, `high`): how far the same bytes reach around the damage. `before`, `after`: the nearest blocks.
    """

    start: int
    data: bytes | None
    looks: str
    low: int
    high: int
    before: Block | None
    after: Block | None


def look_at(process: Process, table: BlockTable, finding: Finding) -> Evidence:
    """The evidence for a finding."""
    address, space = finding.address, process.space
    start = max(0, address // _LINE * _LINE - _BEFORE)
    data, size = None, _BEFORE + _AFTER
    for length in (size, _BEFORE + _LINE, _LINE):
        data = space.try_read(start if length > _LINE else address // _LINE * _LINE, length)
        if data is not None:
            start = start if length > _LINE else address // _LINE * _LINE
            break
    found = space.try_read(address, min(max(finding.length, 1), _LOOKED_AT)) or b""
    low, high = _reach(data, start, address, found)
    before, after = _beside(table, address)
    looks = looks_like(process, table, found) if finding.length else ""
    return Evidence(start, data, looks, low, max(high, address + finding.length), before, after)


def looks_like(process: Process, table: BlockTable, data: bytes) -> str:
    """What some bytes are: a repeated value, text, a pointer to something, a number."""
    if not data:
        return "not in the dump"
    if (repeated := _repeated(data)) is not None:
        return repeated
    if re.fullmatch(rb"[\x20-\x7e\r\n\t]{4,}\0?", data):
        return f"text: {data.rstrip(bytes(1)).decode('ascii')!r}"
    if len(data) >= 8 and re.fullmatch(rb"(?:[\x20-\x7e]\0){4,}", data[: len(data) & ~1]):
        return f"UTF-16 text: {data[: len(data) & ~1].decode('utf-16-le')!r}"
    for size in (8, 4):
        if len(data) >= size and (words := _pointer_words(process, table, int.from_bytes(data[:size], "little"))):
            return words
    if len(data) <= 8 or not data[8:].strip(b"\0"):
        value = int.from_bytes(data[:8], "little")
        return f"the number {value:,}" if value < 1 << 32 else f"the value {value:#x}"
    return "binary data"


def _repeated(data: bytes) -> str | None:
    if len(set(data)) == 1:
        byte = data[0]
        name = f", {_FILLS[byte]}" if byte in _FILLS else f", {chr(byte)!r}" if 0x20 <= byte < 0x7F else ""
        if byte == 0:
            return "zero" if len(data) == 1 else "zeros"
        return f"the byte {byte:#04x}{name}" if len(data) == 1 else f"{byte:#04x} repeated{name}"
    for width in (2, 4, 8):
        if len(data) >= 2 * width and data == (data[:width] * (len(data) // width + 1))[: len(data)]:
            return f"{data[:width].hex(' ')} repeated"
    return None


def _pointer_words(process: Process, table: BlockTable, value: int) -> str:
    """What a value points at; "" where it is no pointer."""
    if value < 0x10000:
        return ""
    if process.module_map.at(value) is not None:
        return f"a pointer into {process.where(value)}"
    for row in table.at(value):
        block = table.block(row)
        if not block.is_internal:
            return f"a pointer to the {block.state} block at {block.address:#x} (offset {value - block.address:+#x})"
    return ""


def _reach(data: bytes | None, start: int, address: int, found: bytes) -> tuple[int, int]:
    """How far one repeated byte reaches around the damage, inside what was read."""
    if data is None or not found or len(set(found)) != 1:
        return address, address + len(found)
    low = high = address - start
    while low > 0 and data[low - 1] == found[0]:
        low -= 1
    while high < len(data) and data[high] == found[0]:
        high += 1
    return start + low, start + high


def _beside(table: BlockTable, address: int) -> tuple[Block | None, Block | None]:
    """The nearest blocks that begin before and behind an address, the allocator's own left out."""
    at = int(np.searchsorted(table.entry, np.uint64(address), side="right"))
    before = next((i for i in range(at - 1, max(-1, at - 5), -1) if not table.tags[i] & INTERNAL), None)
    after = next((i for i in range(at, min(len(table), at + 4)) if not table.tags[i] & INTERNAL), None)
    return (None if before is None else table.block(before)), (None if after is None else table.block(after))
