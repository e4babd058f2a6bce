"""The memory around a finding: its bytes, their meaning, the nearest blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from heapdump.blocks.findings import Finding
from heapdump.blocks.table import Block, BlockTable
from heapdump.kernels.row import INTERNAL
from heapdump.process.model import Process

_BEFORE, _AFTER, _LINE = 32, 64, 16
"""Bytes that are shown before and behind the line of the damage, and bytes of a line."""

_MOST_DAMAGED = 32
"""Damaged bytes from whose content the meaning is taken."""

_FILLS = {
    0xAB: "the heap's tail fill",
    0xCD: "the CRT's fill of new memory",
    0xDD: "the CRT's fill of freed memory",
    0xFD: "the CRT's guard",
    0xF0: "page heap's fill of freed memory",
    0xD0: "page heap's suffix",
    0xA0: "page heap's suffix",
    0xC0: "page heap's fill of new memory",
    0xE0: "page heap's fill of new memory",
    0xCC: "the compiler's fill of locals",
}
"""Byte → the code that fills memory with it (semantics.md §2.3, §2.4)."""


@dataclass(frozen=True, slots=True)
class DamageEvidence:
    """The memory around a finding.

    Attributes:
        start: address of the first byte of `data`.
        data: bytes around the damage; None where the dump has none.
        meaning: of the damaged bytes, in words; "" where it is not known.
        low: lowest address around the damage from which on all bytes equal the damaged byte.
        high: address behind the last of these bytes.
        before: nearest block of the program at or before the damage; None without one.
        after: nearest block of the program behind it; None without one.
    """

    start: int
    data: bytes | None
    meaning: str
    low: int
    high: int
    before: Block | None
    after: Block | None


def evidence_of(process: Process, table: BlockTable, finding: Finding) -> DamageEvidence:
    """The memory around a finding: 32 bytes before and 64 behind the damaged line, fewer at the end of known memory."""
    address, space = finding.address, process.space
    start = max(0, address // _LINE * _LINE - _BEFORE)
    data, size = None, _BEFORE + _AFTER
    for length in (size, _BEFORE + _LINE, _LINE):
        data = space.try_read(start if length > _LINE else address // _LINE * _LINE, length)
        if data is not None:
            start = start if length > _LINE else address // _LINE * _LINE
            break
    found = space.try_read(address, min(max(finding.length, 1), _MOST_DAMAGED)) or b""
    low, high = _same_byte(data, start, address, found)
    before, after = _nearest_blocks(table, address)
    meaning = meaning_of(process, table, found) if finding.length else ""
    return DamageEvidence(start, data, meaning, low, max(high, address + finding.length), before, after)


def meaning_of(process: Process, table: BlockTable, data: bytes) -> str:
    """The likeliest meaning of some bytes, in words: a repeated value, text, a pointer, a number."""
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
    """The value of 1, 2, 4 or 8 bytes that the data repeat; None where they repeat none."""
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
    """The module or block that a value points into; "" where it points into neither."""
    if value < 0x10000:
        return ""
    if process.module_map.at(value) is not None:
        return f"a pointer into {process.where(value)}"
    for row in table.at(value):
        block = table.block(row)
        if not block.is_internal:
            return f"a pointer to the {block.state} block at {block.address:#x} (offset {value - block.address:+#x})"
    return ""


def _same_byte(data: bytes | None, start: int, address: int, found: bytes) -> tuple[int, int]:
    """[low, high) around `address` where the bytes from `start` on all equal the damaged bytes `found`."""
    if data is None or not found or len(set(found)) != 1:
        return address, address + len(found)
    low = high = address - start
    while low > 0 and data[low - 1] == found[0]:
        low -= 1
    while high < len(data) and data[high] == found[0]:
        high += 1
    return start + low, start + high


def _nearest_blocks(table: BlockTable, address: int) -> tuple[Block | None, Block | None]:
    """The nearest blocks of the program whose entries begin at or before, and behind, an address."""
    at = int(np.searchsorted(table.entry, np.uint64(address), side="right"))
    before = next((i for i in range(at - 1, max(-1, at - 5), -1) if not table.tags[i] & INTERNAL), None)
    after = next((i for i in range(at, min(len(table), at + 4)) if not table.tags[i] & INTERNAL), None)
    return (None if before is None else table.block(before)), (None if after is None else table.block(after))
