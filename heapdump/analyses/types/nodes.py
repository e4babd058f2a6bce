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
from heapdump.analyses.types.members import Container, ContainerTable, addresses_of, module_areas, source_words
from heapdump.blocks.stored_checks import require_ascending, require_indices, require_length
from heapdump.kernels import run
from heapdump.kernels.container_nodes import heads_of, leading_to, pairs_of, rings_of, trees_of
from heapdump.large_arrays import empty, look_up
from heapdump.memory.mapped import MappedMemory
from heapdump.process.model import Process
from heapdump.runtimes.owners.presence import Presence

_FEWEST = 2
_BLACK_NIL, _NOT_NIL = 0x0101, (0x0000, 0x0001)
"""Color and flag of a tree's head, and of its nodes."""

_MOST_AREAS = 1 << 24
_FEWEST_BUCKETS = 8
_COLUMNS = ("owner", "offset", "kind", "head", "count")
_OF_NODES = ("container", "role", "proxies")
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class NodeTable:
    """c containers, (c,) int64 each. `owner`: the node of the graph that it is a member of, -1 - area of a root.

    `offset` in it; `kind`: `NodeKind`; `head`: a node; `count`: elements, 0 where they are not counted. `container`
    (n,) int32: of each node of the graph the container that it belongs to, -1 for none; `role` (n,) uint8: as what.
    `proxies` (p,) int64: nodes that are proxies of containers in debug builds.
    """

    owner: Numbers
    offset: Numbers
    kind: Numbers
    head: Numbers
    count: Numbers
    container: NDArray[np.int32]
    role: NDArray[np.uint8]
    proxies: Numbers

    def __len__(self) -> int:
        """The number of containers."""
        return len(self.owner)


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
    require_length(found.container, nodes, np.int32, "containers")
    require_indices(found.container, -1, len(found), "containers")
    require_length(found.role, nodes, np.uint8, "roles")
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
    joined = _AllContainers(len(graph))
    joined.add_numbered(*_visual(memory, graph, containers))
    shapes = find_shapes(memory, graph, flags)
    for width in np.unique(graph.widths[shapes.block]).tolist():
        of_width = shapes.take(graph.widths[shapes.block] == width)
        for found in (
            find_lists(memory, graph, of_width), *find_trees(memory, graph, of_width),
            find_hash_tables(memory, graph, of_width), *find_deques(memory, graph, of_width),
            *find_mfc(process, graph, of_width),
        ):  # fmt: skip
            joined.add(found)
    for width in np.unique(graph.widths).tolist():
        for found in find_qt_maps(memory, graph, width):
            joined.add(found)
    presence = Presence(process, [RUST])
    for found in find_rust_maps(memory, graph, flags, lambda: presence.of(RUST) is not None):
        joined.add(found)
    owner, offset, kind, head, count = joined.columns()
    places = [addresses_of(graph, containers.owner, containers.offset), addresses_of(graph, owner, offset)]
    proxies = find_proxies(memory, graph, block_address, np.concatenate(places).astype(np.int64))
    proxies = proxies[joined.container[proxies] < 0]
    memory.forget_all()
    return NodeTable(owner, offset, kind, head, count, joined.container, joined.role, proxies)


class _AllContainers:
    """Containers of all libraries; a block belongs to the first one."""

    def __init__(self, nodes: int) -> None:
        self._rows = [np.empty((0, len(_COLUMNS)), np.int64)]
        self._many = 0
        self.container, self.role = np.full(nodes, -1, np.int32), np.zeros(nodes, np.uint8)

    def add_numbered(self, rows: Numbers, container: NDArray[np.int32], role: NDArray[np.uint8]) -> None:
        """The first containers, (c, 5), with those of all nodes."""
        self._rows.append(rows)
        self._many, self.container, self.role = len(rows), container, role

    def add(self, found: ProvenContainers) -> None:
        """Containers of one kind, but those with a block of another container."""
        good = np.ones(len(found), bool)
        good[found.of[self.container[found.members] >= 0]] = False
        number = self._many + np.cumsum(good) - 1
        is_good = good[found.of]
        self.container[found.members[is_good]] = number[found.of[is_good]]
        self.role[found.members[is_good]] = found.role[is_good]
        kind = np.full(len(found), found.kind, np.int64)
        self._rows.append(np.stack([found.owner, found.offset, kind, found.head, found.count], axis=1)[good])
        self._many += int(good.sum())

    def columns(self) -> tuple[Numbers, ...]:
        """The columns of `NodeTable`, as far as they are of containers."""
        return tuple(np.concatenate(self._rows).T.copy())


def _visual(
    memory: MappedMemory, graph: PointerGraph, containers: ContainerTable
) -> tuple[Numbers, NDArray[np.int32], NDArray[np.uint8]]:
    """((c, 5) columns of the containers of Visual C++, container of each node, role of each node)."""
    pairs = _pairs(memory, graph)
    container, role = np.full(len(graph), -1, np.int32), np.zeros(len(graph), np.uint8)
    if not len(pairs):
        return np.empty((0, len(_COLUMNS)), np.int64), container, role
    flags = _flags(memory, graph, pairs[:, 2])
    degree = graph.first[pairs[:, 2] + 1] - graph.first[pairs[:, 2]]
    is_tree = (flags == _BLACK_NIL) & (degree >= 3)
    trees, rings = pairs[is_tree], pairs[~is_tree]
    found = [_trees(memory, graph, _one_a_head(trees), container), _rings(memory, graph, rings, container)]
    numbers = np.concatenate([found[0][1], found[1][1]])
    rows = np.concatenate([found[0][0], found[1][0]])
    kinds = np.where(np.arange(len(rows)) < len(found[0][0]), NodeKind.TREE, NodeKind.LIST).astype(np.int64)
    buckets = _buckets(graph, rows, kinds, containers)
    kinds[buckets >= 0] = NodeKind.HASH
    _numbered(numbers, container)
    tables = np.flatnonzero(buckets >= 0)
    container[buckets[tables]], role[buckets[tables]] = tables, Role.BUCKETS
    return np.stack([rows[:, 0], rows[:, 1], kinds, rows[:, 2], rows[:, 3]], axis=1), container, role


def _numbered(numbers: Numbers, container: NDArray[np.int32]) -> None:
    """Makes `container` the index of the container of each node. `numbers`: what stands there for each container."""
    new = np.full(int(max(container.max(initial=0), numbers.max(initial=0))) + 2, -1, np.int32)
    new[numbers] = np.arange(len(numbers))
    look_up(container, new)


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
    memory: MappedMemory, graph: PointerGraph, pairs: Numbers, container: NDArray[np.int32]
) -> tuple[Numbers, Numbers]:
    """(pairs that are trees, the number in `container` of each)."""
    tree, is_whole = np.zeros(len(graph), np.int32), np.zeros(max(1, len(pairs)), np.uint8)
    run(
        trees_of, len(graph), graph.first, graph.edges.targets, graph.size, pairs[:, 2].copy(), pairs[:, 3].copy(),
        tree, is_whole,
    )  # fmt: skip
    members = np.flatnonzero(tree)
    good = is_whole[: len(pairs)].astype(bool)
    wrong = ~np.isin(_flags(memory, graph, members), _NOT_NIL) | ~_first_words_lead(memory, graph, members, 3)
    good[tree[members[wrong]] - 1] = False
    members = members[good[tree[members] - 1]]
    container[members] = tree[members] - 1
    container[pairs[good, 2]] = np.flatnonzero(good)
    return pairs[good], np.flatnonzero(good)


def _rings(
    memory: MappedMemory, graph: PointerGraph, pairs: Numbers, container: NDArray[np.int32]
) -> tuple[Numbers, Numbers]:
    """(pairs that are lists of two elements or more, the number in `container` of each)."""
    ring, length = np.zeros(len(graph), np.int32), np.zeros(len(pairs) + 1, np.int64)
    run(rings_of, len(graph), graph.first, graph.edges.targets, graph.size, pairs[:, 2].copy(), ring, length)
    of_pair = ring[pairs[:, 2]]
    good = (length[of_pair] == pairs[:, 3] + 1) & (pairs[:, 3] >= _FEWEST)
    members = np.flatnonzero(ring)
    wrong = ~_first_words_lead(memory, graph, members, 2)
    is_wrong = np.zeros(len(pairs) + 2, bool)
    is_wrong[ring[members[wrong]]] = True
    good &= ~is_wrong[of_pair]
    _, first = np.unique(np.where(good, of_pair, 0), return_index=True)
    rows = np.sort(first[good[first]])
    base = int(container.max(initial=-1)) + 1
    number = np.full(len(pairs) + 2, -1, np.int64)
    number[of_pair[rows]] = base + np.arange(len(rows))
    selected = members[(number[ring[members]] >= 0) & (container[members] < 0)]
    container[selected] = number[ring[selected]]
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
