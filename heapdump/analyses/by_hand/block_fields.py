"""A block word by word: the nature of each word, and the containers among them.

In: a block, the containers of the pointer graph. Out: `BlockField` and `MemberContainer`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.by_hand.pointees import Pointee
from heapdump.analyses.clusters.letters import Letter, PointerEdges, plain_letters
from heapdump.analyses.containers.node_roles import NodeKind
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.types.members import Container, ContainerTable
from heapdump.analyses.types.nodes import NodeTable
from heapdump.memory.space import AddressSpace
from heapdump.wording import preview

_WORDS = {
    Letter.ZERO: "zero", Letter.NUMBER: "number", Letter.FLOAT: "float", Letter.TEXT: "text", Letter.MODULE: "pointer",
    Letter.TIME: "time", Letter.FILL: "fill", Letter.STALE: "pointer", Letter.OTHER: "other",
}  # fmt: skip
_LEAST_FLOAT = 1e-9
_SINCE_1601 = datetime(1601, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class BlockField:
    """A word of a block.

    Attributes:
        offset: bytes from the start of the block.
        data: its bytes; None where the dump does not hold them.
        kind: pointer, number, float, text, time, zero, fill or other.
        text: its value, printed as this kind.
        pointee: the thing that it points to; None where it is no pointer.
    """

    offset: int
    data: bytes | None
    kind: str
    text: str
    pointee: Pointee | None = None


@dataclass(frozen=True, slots=True)
class MemberContainer:
    """A container that is a member of a block.

    Attributes:
        offset: bytes from the start of the block.
        name: `std::vector`, `std::map` ….
        at: address of its buffer or of its head node.
        elements: number of elements of a list, map or hash table; None for others.
        used: bytes in use of a vector or string; None for others.
        capacity: bytes of the buffer of a vector or string; None for others.
    """

    offset: int
    name: str
    at: int
    elements: int | None = None
    used: int | None = None
    capacity: int | None = None


def fields_of(
    space: AddressSpace, start: int, size: int, edges: PointerEdges, pointee: Callable[[int], Pointee | None]
) -> list[BlockField]:
    """The words of [start, start + size), the last one perhaps shorter. `edges`: spans of modules and heaps."""
    width = space.pointer_bytes
    out = []
    for offset in range(0, size, width):
        data = space.try_read(start + offset, min(width, size - offset))
        out.append(_field(offset, data, width, edges, pointee))
    return out


def _field(
    offset: int, data: bytes | None, width: int, edges: PointerEdges, pointee: Callable[[int], Pointee | None]
) -> BlockField:
    if data is None:
        return BlockField(offset, None, "other", "not in the dump")
    value = int.from_bytes(data, "little")
    if len(data) < width:
        return BlockField(offset, data, "zero" if not value else "other", data.hex(" "))
    letter = Letter(int(plain_letters(np.array([value], np.uint64), width, edges)[0]))
    if letter in (Letter.MODULE, Letter.STALE, Letter.OTHER, Letter.NUMBER):
        found = pointee(value)
        if found is not None:
            return BlockField(offset, data, "pointer", found.text, found)
    kind = _WORDS.get(letter, "other")
    return BlockField(offset, data, kind, _text(letter, data, value))


def _text(letter: Letter, data: bytes, value: int) -> str:
    """The value of a word that is no pointer."""
    if letter is Letter.TEXT:
        is_wide = len(data) > 1 and not data[1]
        return (
            f'L"{preview(data[::2].partition(bytes(1))[0])}"'
            if is_wide
            else f'"{preview(data.partition(bytes(1))[0])}"'
        )
    if letter is Letter.FLOAT:
        return _floats(data)
    if letter is Letter.TIME:
        return f"{_SINCE_1601 + timedelta(microseconds=value // 10):%Y-%m-%d %H:%M:%S} UTC"
    if letter is Letter.FILL:
        return f"filled with {data[0]:#04x}"
    if letter is Letter.NUMBER:
        return _numbers(data)
    return "" if letter is Letter.ZERO else f"{value:#x}"


def _numbers(data: bytes) -> str:
    """One number, or two of 4 bytes where the upper half is neither 0 nor a sign."""
    low, high = struct.unpack("<ii", data) if len(data) == 8 else (*struct.unpack("<i", data), 0)
    return f"{low:,}, {high:,}" if high not in (0, -1) else f"{int.from_bytes(data, 'little', signed=True):,}"


def _floats(data: bytes) -> str:
    """A number of 8 bytes, or two of 4."""
    if len(data) == 8:
        (wide,) = struct.unpack("<d", data)
        if _LEAST_FLOAT < abs(wide) < 1 / _LEAST_FLOAT:
            return f"{wide:g}"
        return ", ".join(f"{one:g}" for one in struct.unpack("<ff", data))
    return f"{struct.unpack('<f', data)[0]:g}"


def containers_in(
    graph: PointerGraph, node: int, containers: ContainerTable, nodes: NodeTable, shift: int
) -> list[MemberContainer]:
    """The containers that are members of a node, ascending by offset; `shift` is added to their offsets."""
    found = []
    for row in np.flatnonzero(containers.owner == node).tolist():
        name, at = Container(int(containers.kind[row])).words, int(graph.start[containers.buffer[row]])
        used, capacity = int(containers.used[row]), int(containers.capacity[row])
        found.append(MemberContainer(shift + int(containers.offset[row]), name, at, None, used, capacity))
    for row in np.flatnonzero(nodes.owner == node).tolist():
        name, at = NodeKind(int(nodes.kind[row])).words, int(graph.start[nodes.head[row]])
        found.append(MemberContainer(shift + int(nodes.offset[row]), name, at, int(nodes.count[row]) or None))
    return sorted(found, key=lambda one: one.offset)


def node_of_row(rows: NDArray[np.int32], row: int) -> int | None:
    """The node of the graph that a row of the block table is; None for a row that is no node."""
    found = np.flatnonzero(rows == row)
    return int(found[0]) if len(found) else None


def holders_of(node: int, containers: ContainerTable, nodes: NodeTable) -> Sequence[tuple[str, int, int]]:
    """(name, owner, offset) of the containers whose buffer or element a node is; owner: a node, -1 - area of a root."""
    found = []
    for row in np.flatnonzero(containers.buffer == node).tolist():
        name = Container(int(containers.kind[row])).words
        found.append((name, int(containers.owner[row]), int(containers.offset[row])))
    number = nodes.container_of(node)
    if number is not None:
        words = NodeKind(int(nodes.kind[number])).words
        found.append((words, int(nodes.owner[number]), int(nodes.offset[number])))
    return found
