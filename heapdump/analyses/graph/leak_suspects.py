"""Leak suspects: the few blocks, and groups of blocks, that keep most of the memory alive, in plain sentences.

As Eclipse MAT does it: a block that nothing else dominates and that retains a tenth of everything is one; so are groups of
smaller ones that together do. From a block the tree is followed down to where the memory piles up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.allocated.leaks import Leaks
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.references import References
from heapdump.analyses.graph.retained import Retained
from heapdump.analyses.types.structure import Structure, structure_of
from heapdump.wording import plural, short_size

_ENOUGH, _MOST_OF_IT = 0.1, 0.8
_MOST, _MOST_STEPS = 5, 20
_SAMPLE = 1000
_VECTOR = "std::vector-like"
_DULL = (
    "not in the dump", "no bytes", "zeros", "one repeated byte", "pointer into a module", "pointers to heap blocks", "pointer to a heap block",
    "small number", "other data",
)  # fmt: skip
"""What says nothing of a data structure."""

_MANY = 1_000_000
"""More blocks than that which nothing dominates are not grouped: they are no accumulation."""


@dataclass(frozen=True)
class LeakSuspect:
    """A block (`node`) that keeps much alive, or a group of `count` blocks with a common `key`.

    `bytes`, `blocks` retained, `share` of all that roots hold; `root`: where from it is reached, "" from nowhere; `pile`:
    where the memory piles up, the node itself where it does; `structure` of what is below that, `content` what most of
    its elements look like, "" where that says nothing.
    """

    bytes: int
    blocks: int
    share: float
    node: int | None = None
    root: str = ""
    pile: int | None = None
    structure: Structure | None = None
    content: str = ""
    key: str = ""
    count: int = 1


@dataclass(frozen=True)
class Finder:
    """What hoards are found with. `group` puts rows of the block table together by stack or type, `by_type` by type."""

    graph: PointerGraph
    tree: Retained
    references: References
    group: Callable[[NDArray[np.int64]], Leaks]
    by_type: Callable[[NDArray[np.int64]], Leaks]

    def hoard_of(self, node: int) -> LeakSuspect:
        """What one block keeps alive."""
        graph, tree = self.graph, self.tree
        held, blocks = tree.of(node)
        pile = _pile(graph, tree, node)
        below = tree.below(pile)
        path = next(iter(self.references.paths(node)), None)
        structure = structure_of(graph, below)
        owner = None if structure.table is None else tree.holder(structure.table)
        if owner is not None and self._looks(np.array([owner])) == _VECTOR:
            structure = replace(structure, shape=structure.shape.replace("array", "vector"))
        elements = below[graph.size[below] == structure.size]
        content = self._looks(elements[:: max(1, len(elements) // _SAMPLE)])
        return LeakSuspect(
            held, blocks, held / (tree.total or 1), node, path.root.root if path else "", pile, structure, content
        )

    def _looks(self, nodes: NDArray[np.int64]) -> str:
        """What most of the nodes look like, "" where that is nothing telling."""
        found = self.by_type(np.sort(self.graph.rows[nodes]).astype(np.int64)).groups
        most = max(found, key=lambda one: one.group.count, default=None)
        return most.key if most is not None and 2 * most.group.count > len(nodes) and most.key not in _DULL else ""


def hoards(finder: Finder) -> tuple[LeakSuspect, ...]:
    """The suspects, those that retain most first."""
    tree = finder.tree
    single = [node for node in tree.top(_MOST).tolist() if tree.of(node)[0] >= _ENOUGH * tree.total > 0]
    out = [finder.hoard_of(node) for node in single]
    rest = tree.total - sum(hoard.bytes for hoard in out)
    if rest >= _ENOUGH * tree.total > 0:
        out += _groups(finder.graph, tree, finder.group, np.array(single, np.int64))
    return tuple(sorted(out, key=lambda hoard: -hoard.bytes)[:_MOST])


def _groups(
    graph: PointerGraph, tree: Retained, group: Callable[[NDArray[np.int64]], Leaks], single: NDArray[np.int64]
) -> list[LeakSuspect]:
    """Groups of blocks that nothing dominates, the single suspects left out."""
    places = np.flatnonzero(tree.dominator == 0)[1:]
    nodes = np.sort(np.setdiff1d(tree.order[places].astype(np.int64), single))
    if not 1 < len(nodes) <= _MANY:
        return []
    found = group(np.sort(graph.rows[nodes]).astype(np.int64))
    order = np.argsort(graph.rows[nodes], kind="stable")
    node_of = (
        nodes[order][np.searchsorted(graph.rows[nodes], found.rows, sorter=order)] if len(found.rows) else nodes[:0]
    )
    retained, blocks = tree.bytes[tree.number[node_of]], tree.blocks[tree.number[node_of]]
    out = []
    for one in found.groups:
        mine = found.values == one.group.value
        held = int(retained[mine].sum())
        if one.group.count > 1 and held >= _ENOUGH * tree.total:
            out.append(
                LeakSuspect(held, int(blocks[mine].sum()), held / tree.total, key=one.key, count=one.group.count)
            )
    return out


def _pile(graph: PointerGraph, tree: Retained, node: int) -> int:
    """Where the memory piles up: down the tree as long as one block has nearly all of it, to the first of several alike."""
    for _ in range(_MOST_STEPS):
        children = tree.children(node)
        if not len(children) or tree.of(int(children[0]))[0] < _MOST_OF_IT * tree.of(node)[0]:
            break
        if graph.size[children[0]] == graph.size[node]:
            break
        node = int(children[0])
    return node


def sentence(graph: PointerGraph, hoard: LeakSuspect) -> str:
    """The suspect in words."""
    amount = f"{short_size(hoard.bytes)} ({hoard.share:.0%}) in {plural(hoard.blocks, 'block')}"
    if hoard.node is None or hoard.structure is None:
        return f"{plural(hoard.count, 'block')} that no other block holds alone, all {hoard.key}, retain {amount}"
    held = f", reached from {hoard.root}," if hoard.root else ""
    text = f"one block at {graph.start[hoard.node]:#x}{held} retains {amount}"
    structure = hoard.structure
    if structure.elements > 1:
        text += f", {structure.elements:,} of them of {plural(structure.size, 'byte')}{f', most like {hoard.content}' if hoard.content else ''}"
    if hoard.pile is not None and hoard.pile != hoard.node:
        text += f"; it piles up at {graph.start[hoard.pile]:#x}"
    return text + (
        f"; it looks like {'an' if structure.shape[0] in 'ae' else 'a'} {structure.shape}" if structure.shape else ""
    )


def to_record(suspects: tuple[LeakSuspect, ...]) -> dict[str, Any]:
    """The suspects as a JSON object, which `from_record` reads."""
    return {"suspects": [asdict(suspect) for suspect in suspects]}


def from_record(record: dict[str, Any]) -> tuple[LeakSuspect, ...]:
    """The suspects that `to_record` wrote."""
    return tuple(
        LeakSuspect(**suspect | {"structure": suspect["structure"] and Structure(**suspect["structure"])})
        for suspect in record["suspects"]
    )
