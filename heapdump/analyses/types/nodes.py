"""Lists, maps, hash tables and deques, and the blocks that belong to each.

In: the pointer graph. Out: `NodeTable`. Those of libstdc++ and libc++, and deques, are proven in `containers/`; here
those of Visual C++, release and debug builds (which put a pointer before them):

    std::list, std::map, std::set     { pointer to the head; elements }
    std::unordered_map and _set       { …; pointer to the head of a list; elements; vector of two pointers a bucket }

Witnesses: exactly so many nodes of one size are on the ring, or in the tree, below the head; each points back; of a
tree the flags of head and nodes. A list without elements, or with one, proves nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.containers.chains import find_hash_tables, find_lists
from heapdump.analyses.containers.deques import find_deques
from heapdump.analyses.containers.flags import ContainerFlags
from heapdump.analyses.containers.mfc import find_mfc
from heapdump.analyses.containers.node_roles import NodeKind, ProvenContainers, Role
from heapdump.analyses.containers.proxies import find_proxies
from heapdump.analyses.containers.qt_maps import find_qt_maps
from heapdump.analyses.containers.rust_maps import RUST, find_rust_maps
from heapdump.analyses.containers.shapes import find_shapes
from heapdump.analyses.containers.trees import find_trees
from heapdump.analyses.graph.node_places import Integers
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.sweep import Edges
from heapdump.analyses.types.members import (
    Container,
    ContainerTable,
    addresses_of,
    distinct_widths,
    module_areas,
    source_words,
)
from heapdump.blocks.stored_checks import require_ascending, require_indices, require_length
from heapdump.kernels import run
from heapdump.kernels.container_nodes import heads_of, leading_to, pairs_of, rings_of, trees_of
from heapdump.large_arrays import batches, empty, zeros
from heapdump.memory.mapped import MappedMemory
from heapdump.process.model import Process
from heapdump.runtimes.owners.presence import Presence

_FEWEST = 2
_BLACK_NIL, _NOT_NIL = 0x0101, (0x0000, 0x0001)
"""Color and flag of a tree's head, and of its nodes."""

_MOST_AREAS = 1 << 24
_FEWEST_BUCKETS = 8
_COLUMNS = ("owner", "offset", "kind", "head", "count")
_OF_NODES = ("members", "container", "role", "proxies")
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class NodeTable:
    """c containers, (c,) int64 each. `owner`: the node of the graph that it is a member of, -1 - area of a root.

    `offset` in it; `kind`: `NodeKind`; `head`: a node; `count`: elements, 0 where they are not counted. `members` (m,)
    int64: the nodes of the graph that belong to a container, ascending; `container` (m,) int32: to which; `role` (m,)
    uint8: as what. `proxies` (p,) int64: nodes that are proxies of containers in debug builds.
    """

    owner: Numbers
    offset: Numbers
    kind: Numbers
    head: Numbers
    count: Numbers
    members: Numbers
    container: NDArray[np.int32]
    role: NDArray[np.uint8]
    proxies: Numbers

    def __len__(self) -> int:
        """The number of containers."""
        return len(self.owner)

    def container_of(self, node: int) -> int | None:
        """The container that a node belongs to; None where it belongs to none."""
        place = int(np.searchsorted(self.members, node))
        is_there = place < len(self.members) and int(self.members[place]) == node
        return int(self.container[place]) if is_there else None


def columns_of(found: NodeTable) -> dict[str, NDArray[Any]]:
    """The containers as columns, which `from_columns` reads."""
    return {name: getattr(found, name) for name in (*_COLUMNS, *_OF_NODES)}


def from_columns(columns: dict[str, NDArray[Any]], nodes: int) -> NodeTable:
    """The containers that `columns_of` wrote, of a graph of `nodes` nodes.

    Raises:
        ValueError, LookupError: it is not what `columns_of` writes.
    """
    owner, offset, kind, head, count = (columns[name] for name in _COLUMNS)
    found = NodeTable(owner, offset, kind, head, count, *(columns[name] for name in _OF_NODES))
    for name in _COLUMNS:
        require_length(getattr(found, name), len(found), np.int64, name)
    require_indices(found.owner, -_MOST_AREAS, nodes, "owners")
    require_indices(found.head, 0, nodes, "heads")
    require_indices(found.kind, min(NodeKind), max(NodeKind) + 1, "kinds")
    require_indices(found.offset, 0, 1 << 62, "offsets")
    require_indices(found.count, 0, 1 << 62, "elements")
    require_ascending(found.members, "members")
    require_indices(found.members, 0, nodes, "members")
    require_length(found.container, len(found.members), np.int32, "containers")
    require_indices(found.container, 0, len(found), "containers")
    require_length(found.role, len(found.members), np.uint8, "roles")
    require_indices(found.role, min(Role), max(Role) + 1, "roles")
    require_ascending(found.proxies, "proxies")
    require_indices(found.proxies, 0, nodes, "proxies")
    return found


def find_nodes(
    process: Process, graph: PointerGraph, containers: ContainerTable, flags: ContainerFlags,
    block_address: Callable[[Numbers], NDArray[np.uint64]],
) -> NodeTable:  # fmt: skip
    """The containers in nodes and in the data of modules; each head belongs to the first one in the order of addresses.

    `containers`, `flags`: of the graph. `block_address(nodes)`: where the blocks of nodes begin, before a CRT header.
    """
    memory = process.space.mapped
    joined = _AllContainers(*_visual(memory, graph, containers))
    shapes = find_shapes(memory, graph, flags)
    for width in np.unique(graph.widths[shapes.block]).tolist():
        of_width = shapes.take(graph.widths[shapes.block] == width)
        for found in (
            find_lists(memory, graph, of_width), *find_trees(memory, graph, of_width),
            find_hash_tables(memory, graph, of_width), *find_deques(memory, graph, of_width),
            *find_mfc(process, graph, of_width),
        ):  # fmt: skip
            joined.add(found)
    for width in distinct_widths(graph.widths):
        for found in find_qt_maps(memory, graph, width):
            joined.add(found)
    presence = Presence(process, [RUST])
    for found in find_rust_maps(memory, graph, flags, lambda: presence.of(RUST) is not None):
        joined.add(found)
    owner, offset, kind, head, count = joined.columns()
    places = [addresses_of(graph, containers.owner, containers.offset), addresses_of(graph, owner, offset)]
    proxies = find_proxies(memory, graph, block_address, np.concatenate(places).astype(np.int64))
    proxies = proxies[joined.holder[proxies] == 0]
    memory.forget_all()
    members = joined.members()
    holder, role = joined.holder[members] - 1, joined.role[members]
    return NodeTable(owner, offset, kind, head, count, members, holder, role, proxies)


class _AllContainers:
    """Containers of all libraries; a block belongs to the first one.

    `holder` (n,) int32: of each node 1 + its container, 0 for none: memory of zeros is not touched.
    """

    def __init__(self, rows: Numbers, holder: NDArray[np.int32], role: NDArray[np.uint8]) -> None:
        """The first containers, (c, 5), with those of all nodes."""
        self._rows, self._many = [rows], len(rows)
        self.holder, self.role = holder, role

    def add(self, found: ProvenContainers) -> None:
        """Containers of one kind, but those with a block of another container."""
        good = np.ones(len(found), bool)
        good[found.of[self.holder[found.members] > 0]] = False
        number = self._many + np.cumsum(good) - 1
        is_good = good[found.of]
        self.holder[found.members[is_good]] = 1 + number[found.of[is_good]]
        self.role[found.members[is_good]] = found.role[is_good]
        kind = np.full(len(found), found.kind, np.int64)
        self._rows.append(np.stack([found.owner, found.offset, kind, found.head, found.count], axis=1)[good])
        self._many += int(good.sum())

    def columns(self) -> tuple[Numbers, ...]:
        """The columns of `NodeTable`, as far as they are of containers."""
        return tuple(np.concatenate(self._rows).T.copy())

    def members(self) -> Numbers:
        """The nodes that belong to a container, ascending."""
        return _nonzero(self.holder)


def _nonzero(holder: NDArray[np.int32]) -> Numbers:
    """The places that are not 0."""
    pieces = (part.start + np.flatnonzero(holder[part]) for part in batches(len(holder)))
    return np.concatenate([np.empty(0, np.int64), *pieces])


def _visual(
    memory: MappedMemory, graph: PointerGraph, containers: ContainerTable
) -> tuple[Numbers, NDArray[np.int32], NDArray[np.uint8]]:
    """((c, 5) columns of the containers of Visual C++, 1 + container of each node or 0, role of each node)."""
    pairs = _pairs(memory, graph)
    holder, role = zeros(len(graph), np.int32), zeros(len(graph), np.uint8)
    if not len(pairs):
        return np.empty((0, len(_COLUMNS)), np.int64), holder, role
    flags = _flags(memory, graph, pairs[:, 2])
    degree = graph.first[pairs[:, 2] + 1] - graph.first[pairs[:, 2]]
    is_tree = (flags == _BLACK_NIL) & (degree >= 3)
    trees, rings = pairs[is_tree], pairs[~is_tree]
    found = [_trees(memory, graph, _one_a_head(trees), holder), _rings(memory, graph, rings, holder)]
    numbers = np.concatenate([found[0][1], found[1][1]])
    rows = np.concatenate([found[0][0], found[1][0]])
    kinds = np.where(np.arange(len(rows)) < len(found[0][0]), NodeKind.TREE, NodeKind.LIST).astype(np.int64)
    buckets = _buckets(graph, rows, kinds, containers)
    kinds[buckets >= 0] = NodeKind.HASH
    _number(numbers, holder)
    tables = np.flatnonzero(buckets >= 0)
    holder[buckets[tables]], role[buckets[tables]] = 1 + tables, Role.BUCKETS
    return np.stack([rows[:, 0], rows[:, 1], kinds, rows[:, 2], rows[:, 3]], axis=1), holder, role


def _number(numbers: Numbers, holder: NDArray[np.int32]) -> None:
    """Makes `holder` 1 + the index of the container of each node. `numbers`: 1 less than what stands for each."""
    new = np.zeros(int(max(holder.max(initial=0), numbers.max(initial=0) + 1)) + 1, np.int32)
    new[1 + numbers] = 1 + np.arange(len(numbers))
    members = _nonzero(holder)
    holder[members] = new[holder[members]]


def _pairs(memory: MappedMemory, graph: PointerGraph) -> Numbers:
    """(k, 4): owner, offset, head, count of each pointer to a head that a small number follows."""
    size, edges, found = graph.size, (graph.first, graph.edges.targets), [np.empty((0, 4), np.int64)]
    is_head, leads_there = empty(len(graph), np.uint8), empty(len(graph), np.uint8)
    run(heads_of, len(graph), *edges, size, is_head)
    if not is_head.any():
        return found[0]
    run(leading_to, len(graph), *edges, size, is_head, leads_there)
    owners = np.flatnonzero(leads_there)
    bounds = (graph.start[owners], size[owners], np.ascontiguousarray(graph.widths[owners]))
    found += _pairs_of(memory, graph, graph.edges, is_head, (bounds, owners))
    areas, bounds = module_areas(graph)
    for rows in _pairs_of(memory, graph, graph.root_edges, is_head, (bounds, areas)):
        rows[:, 0] = -1 - rows[:, 0]
        found.append(rows)
    return np.concatenate(found)


def _pairs_of(
    memory: MappedMemory, graph: PointerGraph, edges: Edges, is_head: NDArray[np.uint8],
    sources: tuple[tuple[Numbers, Integers, NDArray[np.uint8]], Numbers],
) -> list[Numbers]:  # fmt: skip
    """`_pairs` of some sources, piece by piece. `sources`: their bounds and numbers."""
    found = []
    for words, width, places in source_words(memory, edges, *sources):
        out = np.empty((max(1, int((edges.first[places[1] + 1] - edges.first[places[1]]).sum())), 4), np.int64)
        many = run(
            pairs_of, len(graph), words, -1 if width == 8 else 0xFFFFFFFF, width, *places, edges.first, edges.targets,
            graph.start, graph.size, is_head, len(graph), out,
        )  # fmt: skip
        found.append(out[:many].copy())
    return found


def _flags(memory: MappedMemory, graph: PointerGraph, nodes: Numbers) -> Numbers:
    """The two bytes behind the three pointers of nodes, -1 where a node is shorter."""
    at = graph.start[nodes] + 3 * graph.widths[nodes].astype(np.int64)
    has_room = at + 2 <= graph.start[nodes] + graph.size[nodes]
    value, is_present = memory.gather(np.where(has_room, at, 0).astype(np.uint64), 2)
    return np.where(has_room & is_present, value.astype(np.int64), -1)


def _one_a_head(pairs: Numbers) -> Numbers:
    """The first pair of each head."""
    _, first = np.unique(pairs[:, 2], return_index=True)
    return pairs[np.sort(first)]


def _trees(
    memory: MappedMemory, graph: PointerGraph, pairs: Numbers, holder: NDArray[np.int32]
) -> tuple[Numbers, Numbers]:
    """(pairs that are trees, 1 less than what stands in `holder` for each)."""
    tree, is_whole = zeros(len(graph), np.int32), np.zeros(max(1, len(pairs)), np.uint8)
    run(
        trees_of, len(graph), graph.first, graph.edges.targets, graph.size, pairs[:, 2].copy(), pairs[:, 3].copy(),
        tree, is_whole,
    )  # fmt: skip
    members = _nonzero(tree)
    good = is_whole[: len(pairs)].astype(bool)
    wrong = ~np.isin(_flags(memory, graph, members), _NOT_NIL) | ~_first_words_lead(memory, graph, members, 3)
    good[tree[members[wrong]] - 1] = False
    members = members[good[tree[members] - 1]]
    holder[members] = tree[members]
    holder[pairs[good, 2]] = 1 + np.flatnonzero(good)
    return pairs[good], np.flatnonzero(good)


def _rings(
    memory: MappedMemory, graph: PointerGraph, pairs: Numbers, holder: NDArray[np.int32]
) -> tuple[Numbers, Numbers]:
    """(pairs that are lists of two elements or more, 1 less than what stands in `holder` for each)."""
    ring, length = zeros(len(graph), np.int32), np.zeros(len(pairs) + 1, np.int64)
    run(rings_of, len(graph), graph.first, graph.edges.targets, graph.size, pairs[:, 2].copy(), ring, length)
    of_pair = ring[pairs[:, 2]]
    good = (length[of_pair] == pairs[:, 3] + 1) & (pairs[:, 3] >= _FEWEST)
    members = _nonzero(ring)
    wrong = ~_first_words_lead(memory, graph, members, 2)
    is_wrong = np.zeros(len(pairs) + 2, bool)
    is_wrong[ring[members[wrong]]] = True
    good &= ~is_wrong[of_pair]
    _, first = np.unique(np.where(good, of_pair, 0), return_index=True)
    rows = np.sort(first[good[first]])
    base = int(holder.max(initial=0))
    number = np.full(len(pairs) + 2, -1, np.int64)
    number[of_pair[rows]] = base + np.arange(len(rows))
    selected = members[(number[ring[members]] >= 0) & (holder[members] == 0)]
    holder[selected] = 1 + number[ring[selected]]
    return pairs[rows], base + np.arange(len(rows))


def _first_words_lead(memory: MappedMemory, graph: PointerGraph, members: Numbers, many: int) -> NDArray[np.bool_]:
    """True for nodes whose first words are the starts of the targets of their first edges; (members,) bool."""
    good = np.ones(len(members), bool)
    for width in np.unique(graph.widths[members]).tolist():
        rows = np.flatnonzero(graph.widths[members] == width)
        for edge in range(many):
            node = members[rows]
            target = graph.edges.targets[graph.first[node] + edge].astype(np.int64)
            word, _ = memory.gather((graph.start[node] + edge * width).astype(np.uint64), width)
            good[rows] &= (target >= 0) & (word.astype(np.int64) == graph.start[np.maximum(target, 0)])
    return good


def _buckets(graph: PointerGraph, rows: Numbers, kinds: Numbers, containers: ContainerTable) -> Numbers:
    """The full vector of two pointers for each of 2^k buckets that lies behind each list; -1 for none; a node."""
    vectors = np.flatnonzero((containers.kind == Container.VECTOR) & (containers.used == containers.capacity))
    columns = (containers.owner, containers.offset, containers.capacity, containers.buffer)
    places = {
        (owner, offset): (size, buffer)
        for owner, offset, size, buffer in zip(*(column[vectors].tolist() for column in columns), strict=True)
    }
    out: Numbers = np.full(len(rows), -1, np.int64)
    for number in np.flatnonzero(kinds == NodeKind.LIST).tolist():
        owner, offset, head, _ = rows[number].tolist()
        width = int(graph.widths[head])
        for more in (2, 3):
            size, buffer = places.get((owner, offset + more * width), (0, -1))
            buckets = size // (2 * width)
            if buckets >= _FEWEST_BUCKETS and buckets & (buckets - 1) == 0:
                out[number] = buffer
    return out
