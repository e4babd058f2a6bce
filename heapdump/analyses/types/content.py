"""The content of one block: its class, or what its first 64 bytes look like."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from heapdump.analyses.contents.recognise import WORDS, detail_of
from heapdump.analyses.types.block_starts import BlockData
from heapdump.analyses.types.block_types import types_of
from heapdump.analyses.types.content_kind import LIBRARY_KINDS
from heapdump.blocks.table import BlockTable
from heapdump.process.model import Process, View
from heapdump.process.symbols.rtti import ClassName, class_at
from heapdump.wording import preview

PREVIEW_BYTES = 64


def hex_lines(data: bytes, start: int) -> list[str]:
    """`29fb0010  48 65 6c …  Hel…`: 16 bytes a line, at most 79 columns."""
    rows = (data[i : i + 16] for i in range(0, len(data), 16))
    return [f"{start + 16 * i:x}  {row.hex(' '):<47}  {preview(row)}" for i, row in enumerate(rows)]


@dataclass(frozen=True, slots=True)
class Content:
    """The content of one block.

    Attributes:
        data: its first bytes, at most 64.
        guess: what they seem to be, in a few words.
        class_name: its class by run-time type information; None without it.
    """

    data: bytes
    guess: str
    class_name: ClassName | None


def content_of(process: Process, view: View, table: BlockTable, row: int) -> Content:
    """The content of a block: text, zeros, an object of a class, a string, a list entry. Reads its first 64 bytes."""
    block = table.block(row)
    data = process.space.try_read(block.address, min(block.size, PREVIEW_BYTES)) or b""
    found = class_at(process, view, block.address) if len(data) >= view.pointer_bytes else None
    if found is not None:
        return Content(data, f"object of {found.kind} {found.name} ({found.module.name})", found)
    label = types_of(process, {block.heap: view}, BlockData(table), np.array([row]), by_class=True).labels[0]
    if label in LIBRARY_KINDS or label.startswith(("vtable ", "COM object ")):
        return Content(data, label, None)
    if label in WORDS:
        detail = detail_of(label, data, block.size)
        return Content(data, f"{label}: {detail}" if detail else label, None)
    return Content(data, "no bytes" if block.size <= 0 else _guess(process, data, view.pointer_bytes), None)


def _guess(process: Process, data: bytes, pointer_bytes: int) -> str:
    """Zeros, a repeated byte, text, a pointer into a module, a list entry, or binary."""
    if not data:
        return "not in the dump"
    if not data.strip(b"\0"):
        return "zeros"
    if len(set(data)) == 1:
        return f"filled with {data[0]:#04x}"
    if re.match(rb"[\x20-\x7e\r\n\t]{6,}", data):
        return "text (ASCII)"
    if re.match(rb"(?:[\x20-\x7e]\0){4,}", data):
        return "text (UTF-16)"
    first = int.from_bytes(data[:pointer_bytes], "little")
    module = process.module_map.at(first)
    if module is not None:
        return (
            f"starts with a pointer into {module.name} ({process.where(first)}): perhaps an object with virtual "
            "functions, whose type information is not there"
        )
    if len(data) >= 2 * pointer_bytes and _is_list_entry(process, data, pointer_bytes):
        return "starts with two pointers into memory: perhaps a list entry"
    return "binary"


def _is_list_entry(process: Process, data: bytes, pointer_bytes: int) -> bool:
    """True where the first two words are addresses of memory in the dump."""
    words = (int.from_bytes(data[i : i + pointer_bytes], "little") for i in (0, pointer_bytes))
    return all(word and process.space.try_read(word, 1) is not None for word in words)
