"""Leak suspects: the few blocks, and groups of blocks, that retain most of the memory, each in one sentence.

After Eclipse MAT. A block that no other block dominates and that retains a tenth of the memory is a suspect. So is a
group of such blocks with one key that together retain a tenth. Below a single block the dominator tree is followed to
the accumulation point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.allocated.leaks import Leaks
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.references import References
from heapdump.analyses.graph.retained import Retained
from heapdump.analyses.types.content_kind import ContentKind
from heapdump.analyses.types.structure import Structure, StructureKind, sample_of, structure_of
from heapdump.blocks.stored_checks import require_types
from heapdump.large_arrays import batches
from heapdump.wording import plural, short_size

_SUSPECT_SHARE = 0.1
"""Of the bytes that roots hold: what a suspect retains at least."""

_NEARLY_ALL = 0.8
"""A child that retains this share of what its dominator retains lies on the way to the accumulation point."""

_MOST, _MOST_STEPS = 5, 20
_SAMPLE = 1000
_LEAST_GROUPED = 2
"""The fewest blocks that can be a suspect together."""

_UNINFORMATIVE = (
    ContentKind.ABSENT, ContentKind.EMPTY, ContentKind.ZEROS, ContentKind.FILL, ContentKind.MODULE_POINTER,
    ContentKind.BLOCK_POINTERS, ContentKind.BLOCK_POINTER, ContentKind.SMALL_NUMBER, ContentKind.OTHER,
)  # fmt: skip
"""Kinds of content that say nothing about a data structure."""


@dataclass(frozen=True, slots=True)
class LeakSuspect:
    """A leak suspect: one block, or a group of blocks with one key.

    Attributes:
        bytes: retained bytes.
        blocks: retained blocks.
        share: `bytes` / bytes of all blocks that roots hold, 0.0 to 1.0.
        node: the block, as a node of the pointer graph; None for a group.
        root: name of a root that leads there; "" for none.
        accumulation_point: the node below `node` at which the memory accumulates; `node` itself where it is that one.
        structure: data structure of the blocks that the accumulation point dominates.
        content: content of most elements of the structure, in words; "" where it is not known.
        key: key of a group; "" for a block.
        count: number of blocks of a group; 1 for a block.
    """

    bytes: int
    blocks: int
    share: float
    node: int | None = None
    root: str = ""
    accumulation_point: int | None = None
    structure: Structure | None = None
    content: str = ""
    key: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True)
class SuspectFinder:
    """Finds the suspects of one dominator tree.

    Attributes:
        graph: the pointer graph.
        tree: its dominator tree.
        references: its paths from roots.
        group: (n,) int64 rows of the block table, ascending → groups, by stack or by type.
        by_type: the same, always by type.
    """

    graph: PointerGraph
    tree: Retained
    references: References
    group: Callable[[NDArray[np.int64]], Leaks]
    by_type: Callable[[NDArray[np.int64]], Leaks]

    def suspects(self) -> tuple[LeakSuspect, ...]:
        """At most five suspects, the one that retains most first."""
        tree = self.tree
        least = _SUSPECT_SHARE * tree.total
        single = [node for node in tree.top(_MOST).tolist() if tree.of(node)[0] >= least > 0]
        out = [self.suspect(node) for node in single]
        if tree.total - sum(suspect.bytes for suspect in out) >= least > 0:
            out += self._groups(np.array(single, np.int64))
        return tuple(sorted(out, key=lambda suspect: -suspect.bytes)[:_MOST])

    def suspect(self, node: int) -> LeakSuspect:
        """One block as a suspect."""
        graph, tree = self.graph, self.tree
        size, blocks = tree.of(node)
        point = self._accumulation_point(node)
        path = next(iter(self.references.paths(node)), None)
        structure, elements = structure_of(graph, tree.below(point))
        owner = None if structure.table is None else tree.dominator_of(structure.table)
        is_array = structure.kind is StructureKind.ARRAY
        if is_array and owner is not None and self._content(np.array([owner])) == ContentKind.VECTOR:
            structure = replace(structure, kind=StructureKind.VECTOR)
        content = self._content(sample_of(elements, structure.elements, _SAMPLE))
        root = path.root.root if path else ""
        return LeakSuspect(size, blocks, size / (tree.total or 1), node, root, point, structure, content)

    def _content(self, nodes: NDArray[np.int64]) -> str:
        """The type of more than half of the nodes; "" where there is none, or it tells nothing."""
        groups = self.by_type(np.sort(self.graph.rows[nodes]).astype(np.int64)).groups
        largest = max(groups, key=lambda one: one.group.count, default=None)
        if largest is None or 2 * largest.group.count <= len(nodes) or largest.key in _UNINFORMATIVE:
            return ""
        return largest.key

    def _groups(self, single: NDArray[np.int64]) -> list[LeakSuspect]:
        """Groups of blocks that no block dominates, without the nodes `single`."""
        graph, tree = self.graph, self.tree
        numbers = np.flatnonzero(tree.dominator == 0)[1:].astype(np.int32)
        numbers = numbers[~np.isin(numbers, [tree.number_of(node) for node in single.tolist()])]
        if len(numbers) < _LEAST_GROUPED:
            return []
        rows = graph.rows[tree.order[numbers]]
        order = np.argsort(rows, kind="stable").astype(np.int32)
        numbers, rows = numbers[order], rows[order]
        del order
        found = self.group(rows.astype(np.int64))
        values = np.sort(np.array([one.group.value for one in found.groups], found.values.dtype))
        retained, blocks = np.zeros(len(values), np.int64), np.zeros(len(values), np.int64)
        for part in batches(len(found.values)):
            number = np.searchsorted(values, found.values[part])
            grouped = numbers[np.searchsorted(rows, found.rows[part])]
            np.add.at(retained, number, tree.bytes[grouped])
            np.add.at(blocks, number, tree.blocks[grouped])
        sums = dict(zip(values.tolist(), zip(retained.tolist(), blocks.tolist(), strict=True), strict=True))
        out = []
        for one in found.groups:
            size, count = sums[one.group.value]
            if one.group.count >= _LEAST_GROUPED and size >= _SUSPECT_SHARE * tree.total:
                out.append(LeakSuspect(size, count, size / tree.total, key=one.key, count=one.group.count))
        return out

    def _accumulation_point(self, node: int) -> int:
        """The last node on the way down the tree along children that retain nearly all that their dominator retains.

        The way ends before a child of the same size as its dominator: that is an element of a list.
        """
        for _ in range(_MOST_STEPS):
            children = self.tree.children(node)
            if not len(children) or self.tree.of(int(children[0]))[0] < _NEARLY_ALL * self.tree.of(node)[0]:
                break
            if self.graph.span(int(children[0])).size == self.graph.span(node).size:
                break
            node = int(children[0])
        return node


def sentence(graph: PointerGraph, suspect: LeakSuspect) -> str:
    """The suspect in words."""
    amount = f"{short_size(suspect.bytes)} ({suspect.share:.0%}) in {plural(suspect.blocks, 'block')}"
    if suspect.node is None or suspect.structure is None:
        return f"{plural(suspect.count, 'top-level block')} ({suspect.key}) together retain {amount}"
    reached = f", reached from {suspect.root}," if suspect.root else ""
    text = f"one block at {graph.span(suspect.node).start:#x}{reached} retains {amount}"
    structure, point = suspect.structure, suspect.accumulation_point
    if structure.elements > 1:
        content = f", most like {suspect.content}" if suspect.content else ""
        text += f", {structure.elements:,} of them of {plural(structure.size, 'byte')}{content}"
    if point is not None and point != suspect.node:
        text += f"; accumulation point {graph.span(point).start:#x}"
    if structure.kind is not None:
        text += f"; it looks like {'an' if structure.kind[0] in 'ae' else 'a'} {structure.kind}"
    return text


def to_record(suspects: Sequence[LeakSuspect]) -> dict[str, Any]:
    """The suspects as a JSON object, which `from_record` reads."""
    return {"suspects": [asdict(suspect) for suspect in suspects]}


def from_record(record: dict[str, Any], nodes: int) -> tuple[LeakSuspect, ...]:
    """The suspects that `to_record` wrote, of a graph of `nodes` nodes.

    Raises:
        ValueError, TypeError, LookupError: it is not what `to_record` writes.
    """
    found = suspects_from(record)
    require_types(found, {"node": nodes, "accumulation_point": nodes, "table": nodes})
    return found


def suspects_from(record: dict[str, Any]) -> tuple[LeakSuspect, ...]:
    """The suspects that `to_record` wrote. What they hold is not checked: their nodes are no indices of a graph.

    Raises:
        TypeError, LookupError, ValueError: it is not what `to_record` writes.
    """
    return tuple(
        LeakSuspect(**suspect | {"structure": suspect["structure"] and _structure(suspect["structure"])})
        for suspect in record["suspects"]
    )


def _structure(record: dict[str, Any]) -> Structure:
    return Structure(**record | {"kind": record["kind"] and StructureKind(record["kind"])})
