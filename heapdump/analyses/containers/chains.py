"""Lists and hash tables of libstdc++ and libc++: nodes in a chain, the head in the owner.

    list        head { next; previous; elements }    node { next; previous; value }    libc++: previous first
    hash table  head { buckets; number of buckets; first; elements; load factor }      node { next; value … }

Source: `bits/stl_list.h`, `bits/hashtable.h` (libstdc++), `list`, `__hash_table` (libc++). Witnesses: exactly so many
nodes of one size; of a list each points back, the first and the last one to the head; of a hash table the last one
leads nowhere, and every bucket to a node of the chain or to the head.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.containers.node_roles import NodeKind, ProvenContainers, Role
from heapdump.analyses.containers.shapes import ShapeReader, Shapes
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.kernels import container_shapes, run
from heapdump.kernels.container_nodes import chains_of
from heapdump.memory.mapped import MappedMemory

Numbers = NDArray[np.int64]
_LOAD_FACTORS = (0.05, 100.0)


def find_lists(memory: MappedMemory, graph: PointerGraph, shapes: Shapes) -> ProvenContainers:
    """The lists among the candidates of one width of pointers."""
    found = shapes.of(container_shapes.PAIR)
    reader = ShapeReader(memory, graph, found)
    head, last = reader.at(0), reader.word(1)
    leads_back = (reader.value(graph.start[found.block] + reader.width) == head) & (reader.value(last) == head)
    found = found.take(leads_back)
    reader = ShapeReader(memory, graph, found)
    chains = _NodeChains(graph, found.block, reader.word(2))
    good = chains.last == reader.nodes(reader.word(1))
    members, before = chains.inner()
    links = reader.value(graph.start[members] + reader.width) == graph.start[before]
    links &= reader.value(graph.start[before]) == graph.start[members]
    good[chains.of[members[~links]] - 1] = False
    return _found(found, found.offset, NodeKind.LIST, chains, good)


def find_hash_tables(memory: MappedMemory, graph: PointerGraph, shapes: Shapes) -> ProvenContainers:
    """The hash tables among the candidates of one width of pointers."""
    found = shapes.of(container_shapes.CHAIN).few_a_block()
    reader = ShapeReader(memory, graph, found)
    factor = memory.gather(reader.at(4).astype(np.uint64), 4)[0].astype(np.uint32).view(np.float32)
    good = (factor >= _LOAD_FACTORS[0]) & (factor <= _LOAD_FACTORS[1])
    of, value = _buckets(reader, found)
    good &= np.bincount(of[value == reader.at(2)[of]], minlength=len(found)) == 1
    found = found.take(good)
    reader = ShapeReader(memory, graph, found)
    chains = _NodeChains(graph, reader.nodes(reader.word(2)), reader.word(3))
    good = chains.last >= 0
    good &= reader.value(graph.start[np.maximum(chains.last, 0)]) == 0
    members, before = chains.inner()
    good[chains.of[members[reader.value(graph.start[before]) != graph.start[members]]] - 1] = False
    of, value = _buckets(reader, found)
    node = reader.nodes(value)
    is_own = (node >= 0) & (chains.of[np.maximum(node, 0)] == of + 1)
    good[of[(value != 0) & ~is_own & (value != reader.at(2)[of])]] = False
    return _with_buckets(_found(found, found.offset, NodeKind.HASH, chains, good), found.block[good])


def _buckets(reader: ShapeReader, found: Shapes) -> tuple[Numbers, Numbers]:
    """(candidate of each bucket, its value) of all candidates."""
    many = reader.graph.size[found.block].astype(np.int64) // reader.width
    of = np.repeat(np.arange(len(found)), many)
    number = np.arange(len(of)) - np.repeat(np.cumsum(many) - many, many)
    return of, reader.value(reader.graph.start[found.block[of]] + number * reader.width)


class _NodeChains:
    """The chains of nodes from some heads on."""

    def __init__(self, graph: PointerGraph, sentinels: Numbers, counts: Numbers) -> None:
        """`of` (n,): number of each node's chain, from 1 on; `last` (k,): the last node of each, -1 for a short one."""
        self.of, self._before = np.zeros(len(graph), np.int32), np.zeros(len(graph), np.int32)
        self.last = np.full(len(sentinels), -1, np.int64)
        run(
            chains_of, len(graph), graph.first, graph.edges.targets, graph.size, sentinels, counts, self.of,
            self._before, self.last,
        )  # fmt: skip

    def inner(self) -> tuple[Numbers, Numbers]:
        """(nodes of chains behind the first one, the node before each)."""
        members = np.flatnonzero(self.of)
        before = self._before[members].astype(np.int64)
        return members[before >= 0], before[before >= 0]


def _found(
    shapes: Shapes, offset: Numbers, kind: NodeKind, chains: _NodeChains, good: NDArray[np.bool_]
) -> ProvenContainers:
    """The good ones with their nodes."""
    members = np.flatnonzero(chains.of)
    members = members[good[chains.of[members] - 1]]
    number = np.cumsum(good) - 1
    of = number[chains.of[members] - 1]
    rows = np.flatnonzero(good)
    count = np.bincount(of, minlength=len(rows))
    role = np.full(len(members), Role.NODE, np.uint8)
    return ProvenContainers(shapes.owner[rows], offset[rows], kind, shapes.block[rows], count, members, of, role)


def _with_buckets(found: ProvenContainers, buckets: Numbers) -> ProvenContainers:
    """Likewise, with the block of buckets of each container."""
    return ProvenContainers(
        found.owner, found.offset, found.kind, buckets, found.count, np.concatenate([found.members, buckets]),
        np.concatenate([found.of, np.arange(len(found))]),
        np.concatenate([found.role, np.full(len(buckets), Role.BUCKETS, np.uint8)]),
    )  # fmt: skip
