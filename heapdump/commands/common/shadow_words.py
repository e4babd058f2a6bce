"""AddressSanitizer's shadow around an address, and the header of a chunk, as lines and as JSON records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from heapdump.render.view import Record, StyledLine

if TYPE_CHECKING:
    from heapdump.blocks.asan_detail import AsanChunkHeader, ShadowRow
    from heapdump.blocks.table import Block
    from heapdump.snapshot import Snapshot

_AROUND, _GRANULE = 5, 8
"""Rows before and behind, as AddressSanitizer prints them."""


def shadow_lines(snapshot: Snapshot, address: int) -> Iterator[StyledLine]:
    """The rows in the manner of AddressSanitizer, the address' byte in brackets, and the legend of what is there."""
    rows = _rows(snapshot, address)
    if rows:
        yield [("shadow bytes", "bold"), (", one for 8 bytes of memory:", "")]
    for row in rows:
        index = (address - row.address) // _GRANULE
        is_hit = 0 <= index < len(row.values)
        cells = ("  " if value is None else f"{value:02x}" for value in row.values)
        shown = "".join(
            f"[{cell}" if is_hit and i == index else f"]{cell}" if is_hit and i == index + 1 else f" {cell}"
            for i, cell in enumerate(cells)
        )
        end = "]" if is_hit and index == len(row.values) - 1 else ""
        yield [(f"{'=>' if is_hit else '  '}{row.address:#x}:{shown}{end}", "bold" if is_hit else "")]
    if rows:
        yield [("legend: " + ", ".join(_legend({v for row in rows for v in row.values if v is not None})), "dim")]


def _legend(values: set[int]) -> Iterator[str]:
    """`fd freed heap region` for each value; those of partly addressable bytes as one."""
    from heapdump.analyses.damage.asan import SHADOW_MEANINGS

    if 0 in values:
        yield "00 addressable"
    if values & set(range(1, 8)):
        yield "01-07 partially addressable (the first 1 to 7 bytes)"
    yield from (f"{value:02x} {SHADOW_MEANINGS[value]}" for value in sorted(values) if value in SHADOW_MEANINGS)


def _rows(snapshot: Snapshot, address: int) -> tuple[ShadowRow, ...]:
    """The rows around an address; none without AddressSanitizer."""
    shadow = next((heap.shadow for heap in snapshot.heaps if heap.shadow is not None), None)
    return () if shadow is None else shadow.rows(address, _AROUND)


def chunk_header(snapshot: Snapshot, block: Block) -> AsanChunkHeader | None:
    """The chunk header of a block of AddressSanitizer's allocator; None for other blocks."""
    heap = snapshot.heaps[block.heap]
    return None if heap.shadow is None else heap.shadow.chunk_header(block, snapshot.walk.facts.get(heap.index, {}))


def shadow_record(snapshot: Snapshot, address: int) -> Record | None:
    """`byte`, `meaning`, `rows`; None without a shadow of the address."""
    from heapdump.analyses.damage.asan import shadow_meaning

    rows = _rows(snapshot, address)
    own = next((row for row in rows if row.address <= address < row.address + _GRANULE * len(row.values)), None)
    value = None if own is None else own.values[(address - own.address) // _GRANULE]
    if value is None:
        return None
    return {
        "byte": value,
        "meaning": shadow_meaning(value) or None,
        "rows": [
            {"address": hex(row.address), "bytes": "".join("??" if v is None else f"{v:02x}" for v in row.values)}
            for row in rows
        ],
    }


def chunk_words(chunk: AsanChunkHeader) -> str:
    """`allocated with operator new[] by thread T2 (stack 21), freed by thread T0 (stack 30)`."""
    words = f"allocated with {chunk.function} by thread T{chunk.thread} (stack {chunk.stack})"
    if chunk.free_thread is None or chunk.free_stack is None:
        return words
    return f"{words}, freed by thread T{chunk.free_thread} (stack {chunk.free_stack})"


def chunk_record(chunk: AsanChunkHeader) -> Record:
    """The JSON record."""
    return {
        "function": chunk.function, "thread": chunk.thread, "stack": chunk.stack,
        "free_thread": chunk.free_thread, "free_stack": chunk.free_stack,
    }  # fmt: skip
