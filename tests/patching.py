"""Changes to built dumps: bytes by address, other memory ranges, streams taken out.

In: a `BuiltDump`. Out: another one, or the changed bytes. Knows the file's header, directory and MemoryList by hand;
nothing of the tool under test is imported.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace

from tests.builders import BuiltDump, BuiltHeap, ProcessBuilder


def position(built: BuiltDump, address: int) -> int:
    """File offset of an address of the memory list."""
    at = built.truth.size - sum(size for _, size in built.truth.ranges)
    for start, size in built.truth.ranges:
        if start <= address < start + size:
            return at + address - start
        at += size
    raise AssertionError(f"{address:#x} is not in the dump")


def peek(built: BuiltDump, address: int, size: int = 8) -> int:
    """Little-endian value at an address."""
    at = position(built, address)
    return int.from_bytes(built.data[at : at + size], "little")


def poke(built: BuiltDump, *changes: tuple[int, bytes]) -> BuiltDump:
    """The dump with these bytes at these addresses."""
    data = bytearray(built.data)
    for address, new in changes:
        at = position(built, address)
        data[at : at + len(new)] = new
    assert len(data) == len(built.data)
    return replace(built, data=bytes(data))


def word(value: int, size: int = 8) -> bytes:
    """Little-endian bytes."""
    return (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def directory_entry(built: BuiltDump, number: int) -> int:
    """File offset of the directory entry of a stream."""
    return 32 + 12 * built.truth.streams.index(number)


def without_stream(built: BuiltDump, number: int) -> BuiltDump:
    """The dump with this stream's entry marked as unused."""
    data = bytearray(built.data)
    struct.pack_into("<I", data, directory_entry(built, number), 0)
    return replace(built, data=bytes(data))


def with_ranges(built: BuiltDump, ranges: Iterable[tuple[int, int]]) -> bytes:
    """The dump with only these (start, end) parts of its memory, each inside one of its ranges."""
    rows = [(start, end - start, position(built, start)) for start, end in ranges if end > start]
    body = struct.pack("<I", len(rows)) + b"".join(struct.pack("<QII", *row) for row in rows)
    data = bytearray(built.data)
    struct.pack_into("<III", data, directory_entry(built, 9), 5, len(body), len(data))
    return bytes(data) + body


def without_memory(built: BuiltDump, *holes: tuple[int, int]) -> bytes:
    """The dump without the memory of these (start, end) spans."""
    spans = [(start, start + size) for start, size in built.truth.ranges]
    for low, high in holes:
        spans = [
            piece
            for start, end in spans
            for piece in ((start, min(end, max(start, low))), (max(start, min(end, high)), end))
            if piece[1] > piece[0]
        ]
    return with_ranges(built, spans)


def add_unlisted(process: ProcessBuilder, heap: BuiltHeap) -> None:
    """A heap's memory and regions in the process, on no heap list."""
    for base, size, state, kind, protect, allocation in heap.regions:
        process.region(base, size, state=state, type=kind, protect=protect, allocation_base=allocation)
    for address, data in heap.memory:
        process.memory(address, data)
    for address, size in heap.zeros:
        process.zeros(address, size)
