"""Hash tables and maps of Qt, whose head is a block of its own.

    QHash of Qt 5  { last; buckets; references; elements; bytes of a node; bits; number of buckets; seed; flags }
                   node { next; hash; key and value }; the last one of a bucket leads to the head
    QMap of Qt 5   { references; elements; color; root; 0; first }
                   node { parent and color; left; right; key and value }
    QHash of Qt 6  { references; elements; number of buckets; seed; spans }   span { 128 places; entries; used; next }

Source: `qhash.h`, `qmap.h` of Qt 5 and 6. Witnesses: the head has exactly its size; of a QHash every bucket leads to
nodes or back to the head, of Qt 6 as many places are in use as there are elements; of a QMap each node has its parent,
and the first one is furthest left; all elements are counted. A QMap of Qt 6 holds a `std::map`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.containers.holders import holders_of
from heapdump.analyses.containers.node_roles import NodeKind, ProvenContainers, Role
from heapdump.analyses.containers.shapes import ShapeReader, Shapes
from heapdump.analyses.containers.trees import TreeLayout, leftmost, walk
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.large_arrays import batches
from heapdump.memory.mapped import MappedMemory

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]
_HASH5, _MAP5, _HASH6 = {8: 48, 4: 36}, {8: 40, 4: 24}, {8: 40, 4: 20}
"""Bytes of a pointer → bytes of the head."""

_LONGEST_BUCKET = 4096
_SPAN, _FREE = 128, 0xFF
_TREE = TreeLayout(0, 0, 2, 0, -1, 0, 0, 1, 2, color_bits=3)
MemberBlocks = list[tuple[Numbers, Numbers, Role]]
"""(candidate of each block, block, role)."""


def find_qt_maps(memory: MappedMemory, graph: PointerGraph, width: int) -> Iterator[ProvenContainers]:
    """Those of all blocks with pointers of one width."""
    for bytes_of, find in ((_HASH5, _hashes5), (_MAP5, _maps5), (_HASH6, _hashes6)):
        pieces = [np.empty(0, np.int64)]
        for part in batches(len(graph)):
            fits = (graph.size[part] == bytes_of[width]) & (graph.widths[part] == width)
            pieces.append(part.start + np.flatnonzero(fits))
        yield find(_QtHeaders(memory, graph, np.concatenate(pieces)))


class _QtHeaders:
    """Blocks that may be heads. `place` (k,): where the words of each begin, `nodes`: the blocks."""

    def __init__(self, memory: MappedMemory, graph: PointerGraph, nodes: Numbers) -> None:
        """`nodes`: all of these have pointers of one width."""
        self.memory, self.graph, self.nodes = memory, graph, nodes
        none = np.zeros(len(nodes), np.int64)
        self.reader = ShapeReader(memory, graph, Shapes(nodes, none, none, nodes))
        self.at, self.width = graph.start[nodes], self.reader.width

    def take(self, good: Mask) -> _QtHeaders:
        """Some of them."""
        return _QtHeaders(self.memory, self.graph, self.nodes[good])

    def int32(self, offset: int) -> Numbers:
        """The signed number of 4 bytes at an offset."""
        value, _ = self.memory.gather((self.at + offset).astype(np.uint64), 4)
        return value.astype(np.uint32).view(np.int32).astype(np.int64)

    def found(self, good: Mask, kind: NodeKind, count: Numbers, blocks: MemberBlocks) -> ProvenContainers:
        """The good ones; each head is one of its blocks."""
        rows, number = np.flatnonzero(good), np.cumsum(good) - 1
        renumbered = [(number[of[good[of]]], nodes[good[of]], role) for of, nodes, role in blocks]
        renumbered.append((np.arange(len(rows)), self.nodes[rows], Role.HEAD))
        of, members = (np.concatenate([one[part] for one in renumbered]) for part in (0, 1))
        role = np.repeat(
            np.array([role for _, _, role in renumbered], np.uint8), [len(one) for one, _, _ in renumbered]
        )
        owner, offset = holders_of(self.memory, self.graph, self.nodes[rows], members, of)
        return ProvenContainers(owner, offset, kind, self.nodes[rows], count[rows], members, of, role)


def _expanded(many: Numbers) -> tuple[Numbers, Numbers]:
    """(index, number in it) of `many[i]` things of each index."""
    of = np.repeat(np.arange(len(many)), many)
    return of, np.arange(len(of)) - np.repeat(np.cumsum(many) - many, many)


def _hashes5(headers: _QtHeaders) -> ProvenContainers:
    """QHash of Qt 5."""
    base = 2 * headers.width
    count, buckets, bits = headers.int32(base + 4), headers.int32(base + 16), headers.int32(base + 12) >> 16
    array = headers.reader.nodes(headers.reader.word(1))
    good = (count >= 1) & (array >= 0) & (bits >= 0) & (bits < 31) & (headers.int32(base) != 0)
    low = np.int64(1) << np.clip(bits, 0, 31)
    good &= (buckets >= low) & (buckets < 2 * low) & (headers.int32(base + 8) >= headers.width + 4)
    good &= headers.graph.size[np.maximum(array, 0)] == buckets * headers.width
    headers, count, array = headers.take(good), count[good], array[good]
    reader, graph = headers.reader, headers.graph
    of, number = _expanded(graph.size[array].astype(np.int64) // headers.width)
    value = reader.value(graph.start[array[of]] + number * headers.width)
    good = np.ones(len(array), bool)
    members, owners = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for _ in range(_LONGEST_BUCKET):
        inner = (value != headers.at[of]) & good[of]
        of, value = of[inner], value[inner]
        if not len(of):
            break
        node = reader.nodes(value)
        good[of[node < 0]] = False
        of, node = of[node >= 0], node[node >= 0]
        members.append(node)
        owners.append(of)
        good &= np.bincount(np.concatenate(owners), minlength=len(good)) <= count
        value = reader.value(graph.start[node])
    good[of] = False
    owner, member = np.concatenate(owners), np.concatenate(members)
    good &= np.bincount(owner, minlength=len(good)) == count
    return headers.found(
        good, NodeKind.QHASH, count, [(owner, member, Role.NODE), (np.arange(len(array)), array, Role.BUCKETS)]
    )


def _maps5(headers: _QtHeaders) -> ProvenContainers:
    """QMap of Qt 5."""
    count, first = headers.int32(4), 8 // headers.width
    root = headers.reader.nodes(headers.reader.word(first + 1))
    header = headers.at + 8
    good = (count >= 1) & (root >= 0) & (headers.reader.word(first) <= 1) & (headers.reader.word(first + 2) == 0)
    above = headers.reader.value(np.where(root >= 0, headers.graph.start[root], 0)) & ~3
    good &= above == header
    headers, count, root = headers.take(good), count[good], root[good]
    tree, good = walk(headers.reader, root, _TREE)
    members = np.flatnonzero(tree)
    of = tree[members].astype(np.int64) - 1
    good &= np.bincount(of, minlength=len(good)) == count
    good &= leftmost(headers.reader, root, _TREE) == headers.reader.word(first + 3)
    return headers.found(good, NodeKind.QMAP, count, [(of, members, Role.NODE)])


def _hashes6(headers: _QtHeaders) -> ProvenContainers:
    """QHash of Qt 6."""
    reader, width = headers.reader, headers.width
    count, buckets, spans = reader.word(1), reader.word(2), reader.word(4)
    block = reader.nodes(spans - width)
    span_bytes = _SPAN + 2 * width
    many = np.maximum(1, buckets // _SPAN)
    good = (block >= 0) & (count >= 1) & (count <= buckets) & (buckets & (buckets - 1) == 0) & (headers.int32(0) != 0)
    good &= headers.graph.size[np.maximum(block, 0)] == width + many * span_bytes
    good &= reader.value(spans - width) == many
    headers, count, block, spans, many = headers.take(good), count[good], block[good], spans[good], many[good]
    reader = headers.reader
    of, number = _expanded(many)
    span = spans[of] + number * span_bytes
    used = np.zeros(len(of), np.int64)
    for place in range(0, _SPAN, 4):
        word = headers.memory.gather((span + place).astype(np.uint64), 4)[0].astype(np.uint32)
        used += (word.view(np.uint8).reshape(-1, 4) != _FREE).sum(axis=1)
    entries = reader.nodes(reader.value(span + _SPAN)) if len(span) else span
    good = np.bincount(of, used, minlength=len(many)).astype(np.int64) == count
    good[of[(used > 0) & (entries < 0)]] = False
    of, entries = of[used > 0], entries[used > 0]
    found: MemberBlocks = [(of, entries, Role.BLOCK), (np.arange(len(block)), block, Role.BUCKETS)]
    return headers.found(good, NodeKind.QHASH, count, found)
