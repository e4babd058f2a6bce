"""A structure at an address: its rows with their meanings, how it was decoded, and which links are wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from heapdump.analyses.by_hand.known_bytes import KnownBytes, read_known
from heapdump.analyses.by_hand.meanings import Meanings, numbers_of
from heapdump.analyses.by_hand.pointees import Pointee
from heapdump.analyses.by_hand.struct_rows import StructReader, StructRow
from heapdump.analyses.by_hand.struct_types import Found
from heapdump.blocks.decoded import Decoded
from heapdump.blocks.heap import Heap
from heapdump.process.model import Process, View
from heapdump.process.types import TypeSource, types_of
from heapdump.spans import Span


@dataclass(frozen=True, slots=True)
class StructMemory:
    """The memory of one view, with a decoder of structures and a namer of pointees.

    `decode`: (name of a structure, address, bytes) → the structure decoded; None for one that is not encoded.
    `pointees`: names the thing at an address, None for none.
    """

    process: Process
    view: View
    decode: Callable[[str, int, bytes], Decoded | None]
    pointees: Callable[[int], Pointee | None]


@dataclass(frozen=True, slots=True)
class SeenStruct:
    """A structure as rows.

    Attributes:
        rows: each row with its meaning in words; "" for none.
        notes: sentences on how it was decoded, and on what was left out.
        broken: sentences on lists and signatures with wrong values.
        missing_bytes: bytes of the structure that the dump does not hold.
    """

    rows: tuple[tuple[StructRow, str], ...]
    notes: tuple[str, ...]
    broken: tuple[str, ...]
    missing_bytes: int


def windows_types(view: View, heap: Heap | None) -> TypeSource:
    """The structures of Windows, by the layout that verified on a heap of the view, else by that of the build."""
    return types_of(view, heap.layout if heap is not None and heap.view == view.arch else None)


def view_struct(memory: StructMemory, found: Found, at: int | None, elements: int) -> SeenStruct:
    """The structure at the address `at`; its members without values for None.

    `elements`: most elements of an array that get rows of their own.
    """
    reader = StructReader(found.source, memory.decode, elements)
    if at is None:
        rows = tuple((row, "") for row in reader.rows(found.struct, KnownBytes(Span(0, 0), b"", ())))
        return SeenStruct(rows, tuple(reader.notes), (), 0)
    known = read_known(memory.view.space, at, found.struct.size)
    read = list(reader.rows(found.struct, known))
    meanings = Meanings(memory.process, memory.view.space, memory.view.granularity, memory.pointees)
    values = numbers_of(read)
    rows = tuple((row, meanings.of(row, values)) for row in read)
    missing = sum(gap.size for gap in known.missing)
    return SeenStruct(rows, tuple(reader.notes), tuple(meanings.broken), missing)
