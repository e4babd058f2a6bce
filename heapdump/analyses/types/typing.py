"""The best word for every busy block of the program: its class, its container, what it holds, or its structure.

In: the pointer graph. Out: `BlockTyping`. Type information of images comes first, then objects of libraries, then the
structure that the block shares with others, then what its first bytes look like.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.clusters.fields import fields_of
from heapdump.analyses.clusters.find import edges_of, find_clusters
from heapdump.analyses.clusters.naming import ClusterName, names_of
from heapdump.analyses.clusters.sample import WordReader
from heapdump.analyses.containers.node_roles import NodeKind, Role
from heapdump.analyses.contents.recognise import VAGUE_WORDS, WORDS
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.types.block_starts import BlockData
from heapdump.analyses.types.block_types import NO_VTABLES, BlockTypes, types_of, view_by_heap
from heapdump.analyses.types.content_kind import ContentKind
from heapdump.analyses.types.declared import DeclaredTypes, declared_types
from heapdump.analyses.types.declared_shapes import DeclaredShapes
from heapdump.analyses.types.members import Container, ContainerTable, place_of
from heapdump.analyses.types.nodes import NodeTable
from heapdump.blocks.heap import Heap
from heapdump.blocks.stored_checks import require_ascending, require_indices, require_length
from heapdump.blocks.table import BlockTable
from heapdump.kernels import run
from heapdump.kernels.size_classes import choose_labels
from heapdump.large_arrays import batches, empty
from heapdump.process.model import Process
from heapdump.trust import Trust

_TABLE = re.compile("vtable |COM object ")
_LONG = 4096
"""Bytes from which on the size alone tells a kind of buffer."""

_WEAKER_THAN_STRUCTURE = (
    ContentKind.ZEROS, ContentKind.FILL, ContentKind.ASCII, ContentKind.UTF16, ContentKind.MODULE_POINTER,
    ContentKind.BLOCK_POINTERS, ContentKind.BLOCK_POINTER, ContentKind.SMALL_NUMBER, ContentKind.OTHER, *VAGUE_WORDS,
)  # fmt: skip
"""Kinds of content that a structure says more than."""

_LEAVES_TO_STRUCTURE = (ContentKind.ASCII, ContentKind.UTF16, *VAGUE_WORDS)
"""Kinds that say more than the size, and less than pointers that are typical of a structure."""


@dataclass(frozen=True, slots=True)
class TypeLabel:
    """A type or an owner.

    Attributes:
        label: its name, in words.
        trust: in the label.
        identity: the part of it that is the same in other dumps of the program.
        is_object: True for an object with virtual functions.
        module: module of its class, or of an owner; "" for none.
    """

    label: str
    trust: Trust
    identity: str
    is_object: bool = False
    module: str = ""

    @property
    def short(self) -> str:
        """The label without what is typical of a structure: `48-byte node`."""
        return self.label.partition(": ")[0]


@dataclass(frozen=True)
class BlockTyping:
    """The types, or owners, of all nodes of a pointer graph.

    Attributes:
        rows: (n,) int32 row of each node in the block table, ascending.
        number: (n,) int32 index of its label in `labels`.
        labels: the distinct labels.
    """

    rows: NDArray[np.int32]
    number: NDArray[np.int32]
    labels: tuple[TypeLabel, ...]

    def of_rows(self, rows: NDArray[np.integer]) -> NDArray[np.int32]:
        """The label of each row of the block table, len(labels) for rows that are no node; (rows,) int32."""
        out = np.zeros(len(rows), np.int32)
        if len(self.rows):
            for part in batches(len(rows)):
                wanted = rows[part].astype(self.rows.dtype)  # another type would convert all of `self.rows`
                place = np.minimum(np.searchsorted(self.rows, wanted), len(self.rows) - 1)
                out[part] = np.where(self.rows[place] == rows[part], self.number[place], len(self.labels))
        return out

    def label_of(self, row: int) -> TypeLabel | None:
        """The label of one row; None for a row that is no node."""
        number = int(self.of_rows(np.array([row], np.int64))[0])
        return self.labels[number] if number < len(self.labels) else None

    def by_module(self) -> BlockTyping:
        """The same blocks by the module of their label."""
        names = [one.module or "no module" for one in self.labels]
        number_of = {name: number for number, name in enumerate(dict.fromkeys(names))}
        new = np.array([number_of[name] for name in names], np.int32)
        labels = tuple(TypeLabel(name, Trust.DERIVED, name) for name in number_of)
        return BlockTyping(self.rows, new[self.number] if len(new) else self.number, labels)


def typing_of(
    process: Process, heaps: Sequence[Heap], table: BlockTable, graph: PointerGraph,
    library: tuple[ContainerTable, NodeTable], shapes: DeclaredShapes | None,
) -> BlockTyping:  # fmt: skip
    """The type of every node. Reads 16 bytes of each block, more of some.

    `library`: the containers of the graph, and their nodes. `shapes`: what PDBs declare, None without one.
    """
    names, sizes, cluster = _named_clusters(process, heaps, table, graph)
    graph.forget_places()
    order = by_row(graph.rows)
    rows, cluster = graph.rows[order], cluster[order]
    vtables = NO_VTABLES if shapes is None else shapes.vtables
    data = _data_of(table, graph, order)
    found = types_of(process, view_by_heap(process, tuple(heaps)), data, rows, by_class=True, vtables=vtables)
    label, number = _ClusterLabels(process, found, shapes), found.numbers
    choice = label.choices(names, sizes)
    run(choose_labels, len(rows), cluster, choice, number)
    place = _places(order, len(rows))
    if shapes is not None:
        known_names = [(one.label, one.is_object) for one in label.labels]
        numbers = number[place(np.arange(len(graph)))]
        declared = declared_types(process.space.mapped, graph, shapes, known_names, numbers)
        label.name_declared(declared, place, number)
    label.name_buffers(graph, library[0], place, number)
    label.name_elements(graph, library[1], place, number)
    return BlockTyping(rows, number, tuple(label.labels))


def _named_clusters(
    process: Process, heaps: Sequence[Heap], table: BlockTable, graph: PointerGraph
) -> tuple[list[ClusterName], list[int], NDArray[np.int32]]:
    """(names, sizes of the blocks) of clusters by number, and the cluster of each node. Words are read for it."""
    edges = edges_of(process, heaps)
    reader = WordReader(process.space.mapped, graph, edges)
    clusters = find_clusters(process.space.mapped, graph, table, edges)
    names = names_of(process, clusters, fields_of(clusters, reader))
    process.space.mapped.forget_all()
    return names, clusters.size.tolist(), clusters.number


def _data_of(table: BlockTable, graph: PointerGraph, order: NDArray[np.int64] | slice) -> BlockData:
    """The data of blocks, as the graph has it. `order`: its nodes by row."""
    pieces = [np.empty(0, np.int64)]
    if graph.follows_rows:
        return BlockData(table)
    rows, start, size = graph.rows[order], graph.start[order], graph.size[order]
    for part in batches(len(rows)):
        moved = table.addresses(rows[part].astype(np.int64)).view(np.int64) != start[part]
        pieces.append(part.start + np.flatnonzero(moved))
    found = np.concatenate(pieces)
    return BlockData(table, rows[found].astype(np.int64), start[found].astype(np.uint64), size[found].astype(np.uint64))


def by_row(rows: NDArray[np.int32]) -> NDArray[np.int64] | slice:
    """The places of rows in ascending order; all of them at once where the rows ascend."""
    return slice(None) if (rows[1:] > rows[:-1]).all() else np.argsort(rows, kind="stable")


Places = Callable[[NDArray[np.int64]], NDArray[np.integer]]
"""Nodes → their places in the order of rows."""


def _places(order: NDArray[np.int64] | slice, count: int) -> Places:
    """The places of nodes. `order`: the node of each place, of `count`; a slice where they are the same."""
    if isinstance(order, slice):
        return lambda nodes: nodes
    place = empty(count, np.int32)
    place[order] = np.arange(count, dtype=np.int32)
    return lambda nodes: place[nodes]


def _module(label: str) -> str:
    """The module of `class Foo (camera.dll)`, `vtable camera.dll+0x1100` or `COM object camera.dll+0x1100`, else ""."""
    if label.endswith(")") and " (" in label:
        return label.rpartition(" (")[2][:-1]
    match = _TABLE.match(label)
    return label[match.end() :].rpartition("+")[0] if match else ""


class _ClusterLabels:
    """Labels by number: those of the first bytes, then those of clusters."""

    def __init__(self, process: Process, found: BlockTypes, shapes: DeclaredShapes | None) -> None:
        """`found`: what the first bytes say. `shapes`: what PDBs declare, which names variables, too."""
        self._process, self._shapes = process, shapes
        self._content = len(found.labels)
        words = {*ContentKind, *WORDS}
        self.labels = [
            TypeLabel(text, trust, text, is_object=text not in words, module="" if text in words else _module(text))
            for text, trust in zip(found.labels, found.trusts, strict=True)
        ]
        self._number_of = {one.label: number for number, one in enumerate(self.labels)}

    def choices(self, names: Sequence[ClusterName], sizes: Sequence[int]) -> NDArray[np.int64]:
        """(clusters, labels) better label for blocks of a cluster with a label by their first bytes; or -1."""
        out = np.full((len(names), self._content), -1, np.int64)
        little = [number for number in range(self._content) if self.labels[number].label in _WEAKER_THAN_STRUCTURE]
        texts = [number for number in little if self.labels[number].label in _LEAVES_TO_STRUCTURE]
        for cluster, (name, size) in enumerate(zip(names, sizes, strict=True)):
            if name.noun in ("buffer", "text") and size < _LONG:
                continue
            new = self._number(name)
            out[cluster, little] = new
            if not name.is_structured:
                out[cluster, texts] = -1
        return out

    def name_declared(self, declared: DeclaredTypes, place: Places, number: NDArray[np.int32]) -> None:
        """Writes the labels of types that PDBs declare to `number`. `place`: as of `name_buffers`."""
        for text, trust, is_struct, nodes in declared.labels():
            if text not in self._number_of:
                self._number_of[text] = len(self.labels)
                self.labels.append(TypeLabel(text, trust, text, is_object=is_struct, module=_module(text)))
            number[place(nodes)] = self._number_of[text]

    def name_buffers(
        self,
        graph: PointerGraph,
        found: ContainerTable,
        place: Places,
        number: NDArray[np.int32],
    ) -> None:
        """Writes the labels of buffers of containers to `number`; a buffer that begins with an object keeps its label.

        The label names the member whose buffer it is, where its owner has a type. `place`: of nodes in `number`.
        """
        is_object = np.array([one.is_object for one in self.labels], bool)
        found = found.take(~is_object[number[place(found.buffer)]]) if len(found) else found
        inside = found.owner >= 0
        owner = np.where(
            inside,
            number[place(np.maximum(found.owner, 0))],
            -1 - place_of(graph, found, np.arange(len(found))).astype(np.int64),
        )
        keys, inverse = np.unique(
            np.stack([owner, np.where(inside, found.offset, 0), found.kind]), axis=1, return_inverse=True
        )
        names = []
        for whose, offset, kind in keys.T.tolist():
            words = Container(kind).words
            if whose < 0:
                text = f"buffer of the {words} at {self._where(-1 - whose)}"
            elif self._is_named(whose) and offset < _LONG:
                text = f"buffer of the {words} at +{offset} of {self.labels[whose].short}"
            else:
                text = f"buffer of a {words}"
            names.append(self._number(ClusterName(text, text, "buffer", is_structured=False)))
        number[place(found.buffer)] = np.array(names, np.int32)[inverse.reshape(-1)]

    def name_elements(
        self,
        graph: PointerGraph,
        found: NodeTable,
        place: Places,
        number: NDArray[np.int32],
    ) -> None:
        """Gives nodes of lists, maps and hash tables their label in `number`, as `name_buffers` does."""
        is_object = np.array([one.is_object for one in self.labels], bool)
        good = ~is_object[number[place(found.members)]] if len(found.members) else np.zeros(0, bool)
        members = found.members[good]
        words = self._container_words(graph, found, number[place(np.maximum(found.owner, 0))])
        keys, which = np.unique(found.container[good] * len(Role) + found.role[good], return_inverse=True)
        names = []
        for container, role in (divmod(key, len(Role)) for key in keys.tolist()):
            text = f"{Role(role).words} of {words[container]}"
            names.append(self._number(ClusterName(text, text, "node", is_structured=True)))
        number[place(members)] = np.array(names, np.int32)[which.reshape(-1)] if names else 0
        if len(found.proxies):
            text = "proxy of a container (debug build)"
            number[place(found.proxies)] = self._number(ClusterName(text, text, "node", is_structured=True))

    def _container_words(self, graph: PointerGraph, found: NodeTable, owners: NDArray[np.int32]) -> list[str]:
        """The words for each container. `owners`: label of each owner that is a node."""
        areas = [area.span.start for area in graph.roots.areas]
        out = []
        columns = (column.tolist() for column in (found.owner, found.offset, found.kind, found.head, owners))
        for owner, offset, kind, head, whose in zip(*columns, strict=True):
            words = NodeKind(kind).words
            if owner < 0:
                out.append(f"the {words} at {self._where(areas[-1 - owner] + offset)}")
            elif owner != head and self._is_named(whose) and offset < _LONG:
                out.append(f"the {words} at +{offset} of {self.labels[whose].short}")
            else:
                out.append(f"a {words}")
        return out

    def _where(self, address: int) -> str:
        """The name of a place in a module: the variable, where a PDB has it."""
        named = None if self._shapes is None else self._shapes.place(address)
        return named or self._process.where(address)

    def _is_named(self, number: int) -> bool:
        """True for the label of a class or of a structure."""
        one = self.labels[number]
        return one.is_object or one.identity != one.label

    def _number(self, name: ClusterName) -> int:
        """The number of a label."""
        if name.label not in self._number_of:
            self._number_of[name.label] = len(self.labels)
            self.labels.append(TypeLabel(name.label, Trust.GUESS, name.fingerprint))
        return self._number_of[name.label]


def columns_of(typing: BlockTyping) -> dict[str, NDArray[Any]]:
    """The typing as columns, which `from_columns` reads."""
    text = json.dumps([asdict(label) for label in typing.labels]).encode()
    return {"rows": typing.rows, "number": typing.number, "text": np.frombuffer(text, np.uint8)}


def from_columns(columns: dict[str, NDArray[Any]], nodes: int) -> BlockTyping:
    """The typing that `columns_of` wrote, of a graph of `nodes` nodes.

    Raises:
        ValueError, TypeError, LookupError: it is not what `columns_of` writes.
    """
    found = [TypeLabel(**one | {"trust": Trust(one["trust"])}) for one in json.loads(columns["text"].tobytes())]
    rows, number = columns["rows"], columns["number"]
    require_length(rows, nodes, np.int32, "rows")
    require_ascending(rows, "rows")
    require_length(number, nodes, np.int32, "labels")
    require_indices(number, 0, len(found), "labels")
    return BlockTyping(rows, number, tuple(found))
