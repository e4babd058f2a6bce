"""Deques: an array of pointers, the slots, to blocks of one size that hold the elements.

    Visual C++  { proxy; slots; number of slots, 2^k; first element; elements }
    libstdc++   { slots; number of slots; begin { at; block; its end; slot }; end { at; block; its end; slot } }
    libc++      { slots; begin; end; end of slots; first element; elements }

Source: `deque` of Microsoft's STL, `bits/stl_deque.h` (libstdc++), `deque` and `__split_buffer` (libc++). Witnesses:
all slots in use lead to blocks of one size; of Visual C++ the proxy, a block of two words, leads back to the deque; of
libstdc++ both slots lead to the blocks that the iterators name, whose size is that of the blocks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.containers.node_roles import NodeKind, ProvenContainers, Role
from heapdump.analyses.containers.shapes import ShapeReader, Shapes
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.kernels import container_shapes
from heapdump.memory.mapped import MappedMemory

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]
_MOST_A_BLOCK = 16
"""Elements of a block of Visual C++: 16 bytes of them, at least one."""

_LEAST_LLVM_BYTES = 3841
"""Of a block of libc++: 4096 bytes of elements of up to 256 bytes, 16 larger ones."""


def find_deques(memory: MappedMemory, graph: PointerGraph, shapes: Shapes) -> Iterator[ProvenContainers]:
    """The deques of each library among the candidates of one width of pointers."""
    yield _msvc(memory, graph, shapes.of(container_shapes.RING_OF_SLOTS).few_a_block())
    yield _gnu(memory, graph, shapes.of(container_shapes.TWO_ENDS).few_a_block())
    yield _llvm(memory, graph, shapes.of(container_shapes.SLOTS).few_a_block())


def _msvc(memory: MappedMemory, graph: PointerGraph, shapes: Shapes) -> ProvenContainers:
    reader = ShapeReader(memory, graph, shapes)
    proxy = reader.nodes(reader.word(-1))
    good = (proxy >= 0) & (graph.size[proxy] == 2 * reader.width)
    good &= reader.value(np.where(good, graph.start[proxy], 0)) == reader.at(-1)
    shapes, proxy = shapes.take(good), proxy[good]
    reader = ShapeReader(memory, graph, shapes)
    slots = reader.word(1)
    of, blocks, good = _blocks(reader, graph.start[shapes.block], slots, needs_all=False)
    filled = np.bincount(of, minlength=len(shapes))
    first, count = reader.word(2), reader.word(3)
    good &= (filled * _MOST_A_BLOCK >= count) & (first < slots * _MOST_A_BLOCK)
    other_blocks = [(shapes.block, Role.SLOTS), (proxy, Role.PROXY)]
    return _found(shapes, -reader.width, count, (of, blocks, good), other_blocks)


def _gnu(memory: MappedMemory, graph: PointerGraph, shapes: Shapes) -> ProvenContainers:
    reader = ShapeReader(memory, graph, shapes)
    _, begin, begin_end, low = (reader.word(word) for word in range(2, 6))
    at, end, end_end, high = (reader.word(word) for word in range(6, 10))
    good = (reader.value(low) == begin) & (reader.value(high) == end) & (end_end - end == begin_end - begin)
    good &= (end <= at) & (at <= end_end) & (begin_end > begin)
    shapes, low, high, block_bytes = shapes.take(good), low[good], high[good], (begin_end - begin)[good]
    reader = ShapeReader(memory, graph, shapes)
    of, blocks, good = _blocks(reader, low, (high - low) // reader.width + 1, needs_all=True)
    good[of[graph.size[blocks] != block_bytes[of]]] = False
    return _found(shapes, 0, np.zeros(len(shapes), np.int64), (of, blocks, good), [(shapes.block, Role.SLOTS)])


def _llvm(memory: MappedMemory, graph: PointerGraph, shapes: Shapes) -> ProvenContainers:
    reader = ShapeReader(memory, graph, shapes)
    begin, end = reader.word(1), reader.word(2)
    of, blocks, good = _blocks(reader, begin, (end - begin) // reader.width, needs_all=True)
    good[of[graph.size[blocks] < _LEAST_LLVM_BYTES]] = False
    other_blocks = [(shapes.block, Role.SLOTS)]
    return _found(shapes, 0, reader.word(5), (of, blocks, good), other_blocks)


def _blocks(reader: ShapeReader, begin: Numbers, many: Numbers, *, needs_all: bool) -> tuple[Numbers, Numbers, Mask]:
    """((m,) candidate of each block, (m,) block, (k,) True where slots lead to starts of different blocks of one size).

    `needs_all`: False where slots may be empty. A candidate without blocks is not good.
    """
    graph = reader.graph
    of = np.repeat(np.arange(len(many)), many)
    number = np.arange(len(of)) - np.repeat(np.cumsum(many) - many, many)
    value = reader.value(begin[of] + number * reader.width)
    nodes = reader.nodes(value)
    good = np.ones(len(many), bool)
    good[of[(nodes < 0) & (needs_all | (value != 0))]] = False
    of, nodes = of[nodes >= 0], nodes[nodes >= 0]
    size = graph.size[nodes].astype(np.int64)
    first = np.full(len(many), -1, np.int64)
    first[of[::-1]] = size[::-1]
    good &= first > 0
    good[of[size != first[of]]] = False
    _, place, times = np.unique(nodes, return_index=True, return_counts=True)
    good[of[place[times > 1]]] = False
    return of, nodes, good


def _found(
    shapes: Shapes, shift: int, count: Numbers, blocks: tuple[Numbers, Numbers, Mask],
    other_blocks: list[tuple[Numbers, Role]],
) -> ProvenContainers:  # fmt: skip
    """The good ones. `shift`: bytes from the shape to the container; `other_blocks`: more blocks of each candidate."""
    of, nodes, good = blocks
    rows, number = np.flatnonzero(good), np.cumsum(good) - 1
    is_good = good[of]
    members = [nodes[is_good], *(part[rows] for part, _ in other_blocks)]
    owners = [number[of[is_good]], *(np.arange(len(rows)) for _ in other_blocks)]
    roles = [Role.BLOCK, *(role for _, role in other_blocks)]
    role = np.repeat(np.array(roles, np.uint8), [len(one) for one in members])
    return ProvenContainers(
        shapes.owner[rows], shapes.offset[rows] + shift, NodeKind.DEQUE, shapes.block[rows], count[rows],
        np.concatenate(members), np.concatenate(owners), role,
    )  # fmt: skip
