"""Whose each block is: the object that holds it alone, or the root from which the program reaches it.

In: the dominator tree and the types of blocks. Out: `BlockTyping`, an owner in words for each node. The owner of a
block is its nearest dominator that is an object with virtual functions (the object itself counts), so that buffers are
counted for the class that they serve. A block without one is counted for its root: a global variable before a thread's
data, that before a stack, that before memory that may be forgotten itself; of several the nearest one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.retained import Retained
from heapdump.analyses.graph.root_names import place_name
from heapdump.analyses.graph.roots import Area, RootKind
from heapdump.analyses.types.typing import BlockTyping, TypeLabel, by_row
from heapdump.kernels import run
from heapdump.kernels.owners import flood_from, nearest
from heapdump.large_arrays import batches, count_each, full, look_up
from heapdump.memory.mapped import MappedMemory
from heapdump.process.model import Process
from heapdump.process.symbols.namer import Namer
from heapdump.trust import Trust

_ORDER = (RootKind.MODULE, RootKind.MANAGED, RootKind.TEB, RootKind.PEB, RootKind.STACK)
"""Kinds of root memory by how likely they own what they point to; registers and then other memory follow."""

_MOST_PLACES = 2000
"""Places in module data that are named one by one; those that own fewer bytes are put together by module."""

_NEARLY_ALL = 0.9
NO_ROOT = "held by nothing that a root leads to"


@dataclass(frozen=True, slots=True)
class _Root:
    """A root: a place `at` in an area, or the whole area or a thread's registers (`at` None)."""

    area: Area | None
    at: int | None
    thread: int = -1


class OwnerFinder:
    """Finds the owners of all nodes of one graph."""

    def __init__(self, process: Process, graph: PointerGraph, tree: Retained, namer: Namer) -> None:
        """Reads nothing yet. `namer` names places in roots."""
        self._process, self._graph, self._tree, self._namer = process, graph, tree, namer
        self._roots: list[_Root] = []
        self.named_modules: set[int] = set()
        """Addresses of the modules with a place that an owner is named after."""

    def owners(self, typing: BlockTyping) -> BlockTyping:
        """The owner of each node. `typing`: the types of the same nodes."""
        graph, tree = self._graph, self._tree
        root = self._root_of_nodes()
        label = typing.of_rows(graph.rows)
        is_object = np.array([*(one.is_object for one in typing.labels), False])
        nodes = tree.order[1:]
        is_owner = np.zeros(len(tree.order), np.uint8)
        for part in batches(len(nodes)):
            is_owner[1:][part] = is_object[label[nodes[part]]]
        found = np.zeros(len(tree.order), np.int32)
        run(nearest, len(graph), tree.dominator, is_owner, found)
        owner = found[1:]  # number of the owner of each node of `nodes`, 0 for none
        keys = full(len(graph), -1, np.int32)
        for part in batches(len(nodes)):
            near, of_root = owner[part], root[nodes[part]]
            by_root = np.where(of_root >= 0, len(is_object) + of_root, -1)
            keys[nodes[part]] = np.where(near > 0, label[tree.order[near] % max(1, len(graph))], by_root)
        del label, is_owner, found, owner
        labels = self._labelled(keys, root, typing)
        order = by_row(graph.rows)
        return BlockTyping(graph.rows[order], keys[order], labels)

    def _labelled(self, keys: NDArray[np.int32], root: NDArray[np.int32], typing: BlockTyping) -> tuple[TypeLabel, ...]:
        """The labels; `keys` becomes the number of the label of each node.

        `keys`: a type, or behind all types a root; -1 for no root.
        """
        types = len(typing.labels) + 1
        values, bytes_of = self._numbered(keys, types + len(self._roots))
        names = self._root_names(values[values >= types] - types, bytes_of[values >= types])
        reached = self._main_roots(keys, values, root, types)
        labels: dict[TypeLabel, int] = {}
        number = np.empty(len(values), np.int32)
        for place, value in enumerate(values.tolist()):
            if value < 0:
                label = TypeLabel(NO_ROOT, Trust.DERIVED, NO_ROOT)
            elif value >= types:
                name, trust = names[value - types]
                label = TypeLabel(f"held by {name}", trust, f"held by {name}", module=self._module(value - types))
            else:
                label = self._class_label(typing.labels[value], reached.get(value))
            number[place] = labels.setdefault(label, len(labels))
        look_up(keys, number)
        return tuple(labels)

    def _numbered(self, keys: NDArray[np.int32], limit: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(the distinct keys, ascending, the bytes of the nodes of each); `keys` becomes indices of these.

        Keys are -1 to `limit` - 1.
        """
        counts = count_each(keys, limit)
        values = np.flatnonzero(np.concatenate([[len(keys) - counts.sum()], counts])) - 1
        place = np.zeros(limit + 1, np.int32)
        place[values] = np.arange(len(values))
        look_up(keys, place)
        bytes_of = np.zeros(len(values), np.float64)
        for part in batches(len(keys)):
            bytes_of += np.bincount(keys[part], self._graph.size[part].astype(np.float64), len(values))
        return values, bytes_of

    def _class_label(self, owner: TypeLabel, reached: tuple[int, bool] | None) -> TypeLabel:
        """The label of blocks that objects of a class hold. `reached`: (main root, True where nearly the only one)."""
        held, where = f"held by {owner.label}", ""
        if reached is not None:
            root, is_main = reached
            where = f", reached from {self._name(self._roots[root])[0]}{'' if is_main else ' and others'}"
        return TypeLabel(f"{held}{where}", owner.trust, held, is_object=True, module=owner.module)

    def _module(self, root: int) -> str:
        """The module whose data a root is, else ""."""
        at = self._roots[root].at
        module = None if at is None else self._process.module_map.at(at)
        return module.name if module else ""

    def _main_roots(
        self, keys: NDArray[np.int32], values: NDArray[np.int64], root: NDArray[np.int32], types: int
    ) -> dict[int, tuple[int, bool]]:
        """Type → (the root of most bytes that its objects hold, whether that is nearly all of them).

        `keys` (n,): index in `values` of each node.
        """
        roots, is_class = max(1, len(self._roots)), (values >= 0) & (values < types)
        found, sizes = [np.empty(0, np.int64)], list[NDArray[Any]]([np.empty(0)])
        for part in batches(len(keys)):
            nodes = part.start + np.flatnonzero(is_class[keys[part]] & (root[part] >= 0))
            pairs, places = np.unique(keys[nodes].astype(np.int64) * roots + root[nodes], return_inverse=True)
            found.append(pairs)
            sizes.append(np.bincount(places.reshape(-1), self._graph.size[nodes].astype(np.float64) + 1, len(pairs)))
        pairs, places = np.unique(np.concatenate(found), return_inverse=True)
        size = np.bincount(places.reshape(-1), np.concatenate(sizes), len(pairs))
        out: dict[int, tuple[int, bool]] = {}
        group = pairs // roots
        for one in np.unique(group).tolist():
            rows = np.flatnonzero(group == one)
            best = rows[np.argmax(size[rows])]
            out[int(values[one])] = int(pairs[best] % roots), bool(size[best] >= _NEARLY_ALL * size[rows].sum())
        return out

    def _root_names(self, roots: NDArray[np.int64], sizes: NDArray[np.float64]) -> dict[int, tuple[str, Trust]]:
        """Root → (name, trust); of places in modules that own little only the module."""
        out = {}
        for rank, place in enumerate(np.argsort(-sizes, kind="stable").tolist()):
            root = self._roots[int(roots[place])]
            if rank >= _MOST_PLACES and root.at is not None:
                module = self._process.module_map.at(root.at)
                out[int(roots[place])] = f"other data of {module.name if module else 'images'}", Trust.DERIVED
            else:
                out[int(roots[place])] = self._name(root)
        return out

    def _name(self, root: _Root) -> tuple[str, Trust]:
        """(name, trust) of a root; what only memory holds that may be forgotten itself is a guess."""
        if root.area is None:
            return f"registers of thread {root.thread}", Trust.DERIVED
        if root.at is not None:
            module = self._process.module_map.at(root.at)
            self.named_modules.update(() if module is None else (module.span.start,))
            return place_name(self._process, self._namer, root.area, root.at), Trust.DERIVED
        area = root.area
        words = {
            RootKind.STACK: f"the stack of thread {area.thread}", RootKind.TEB: f"the TEB of thread {area.thread}",
            RootKind.PEB: "the PEB", RootKind.MANAGED: "managed objects",
            RootKind.MODULE: f"image {area.span.start:#x}",
        }  # fmt: skip
        if area.kind in words:
            return words[area.kind], Trust.DERIVED
        return f"memory {area.span.start:#x} of {area.span.size:,} bytes", Trust.GUESS

    def _root_of_nodes(self) -> NDArray[np.int32]:
        """The root of each node, an index of `self._roots`; -1 for none; (n,) int32."""
        graph, areas = self._graph, self._graph.roots.areas
        root, queue = np.full(len(graph), -1, np.int32), np.empty(len(graph), np.int32)
        for kind in (*_ORDER, None, RootKind.MEMORY):
            if kind is None:
                seeds, roots = self._registers()
            else:
                numbers = [number for number, area in enumerate(areas) if area.kind is kind]
                seeds, roots = self._seeds(numbers, kind)
            widths = np.array([one.area.width if one.area else 0 for one in self._roots], np.uint8)
            order = np.argsort(
                widths[roots] != graph.widths[seeds], kind="stable"
            )  # pointers of the block's own view first
            run(flood_from, len(graph), graph.first, graph.edges.targets, seeds[order], roots[order], root, queue)
        return root

    def _registers(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(nodes that registers point into, the root of each)."""
        targets = self._graph.register_targets
        found = np.flatnonzero(targets >= 0)
        threads = [self._graph.roots.registers[place].thread for place in found.tolist()]
        number_of = {thread: len(self._roots) + number for number, thread in enumerate(sorted(set(threads)))}
        self._roots += [_Root(None, None, thread) for thread in sorted(set(threads))]
        return targets[found], np.array([number_of[thread] for thread in threads], np.int32)

    def _seeds(self, areas: list[int], kind: RootKind) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(nodes that these areas point into, the root of each)."""
        edges, seeds, roots = self._graph.root_edges, [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        for number in areas:
            targets = edges.targets[edges.first[number] : edges.first[number + 1]].astype(np.int64)
            if not len(targets):
                continue
            area = self._graph.roots.areas[number]
            if kind is RootKind.MODULE:
                at, targets = _places(self._process.space.mapped, self._graph, area)
                made = [_Root(area, place) for place in at.tolist()]
                roots.append(np.arange(len(self._roots), len(self._roots) + len(made), dtype=np.int32))
            else:
                targets = np.where(targets < 0, -1 - targets, targets)
                made = [_Root(area, None)]
                roots.append(np.full(len(targets), len(self._roots), np.int32))
            seeds.append(targets)
            self._roots += made
        return np.concatenate(seeds), np.concatenate(roots)


def _places(memory: MappedMemory, graph: PointerGraph, area: Area) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(addresses of the words of an area that point into nodes, the node of each)."""
    at, nodes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    low, high = int(graph.start[0]), int(graph.start[-1]) + int(graph.size[-1]) + 1
    for start, words in memory.words(area.span, area.width):
        near = np.flatnonzero((words >= low) & (words <= high))
        found = graph.nodes.find(words[near])
        at.append(start + near[found >= 0] * area.width)
        nodes.append(found[found >= 0])
    return np.concatenate(at), np.concatenate(nodes)
