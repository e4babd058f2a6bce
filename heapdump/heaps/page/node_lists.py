"""The addresses of the nodes of a page heap: its busy tree, and its lists (docs/reference/heap-structures.md §5.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.layouts import Layout
from heapdump.memory.structures import StructureArrays
from heapdump.process.model import View

_MAX_LEVELS = 64
"""An AVL tree of 64 levels has more nodes than there is memory."""


@dataclass(frozen=True, slots=True)
class NodeList:
    """Nodes of a tree or list.

    Attributes:
        nodes: addresses of _DPH_HEAP_BLOCKs, (n,) uint64, no duplicates.
        why: the reason why nodes may be missing, in words; "" where none is.
    """

    nodes: NDArray[np.uint64]
    why: str


def tree_nodes(view: View, layout: Layout, table: int, most: int) -> NodeList:
    """The nodes of the _RTL_AVL_TABLE at `table`, at most `most`; level by level, each level in one read."""
    first = view.space.try_pointer(table + layout["_RTL_BALANCED_LINKS"].offset("RightChild"))
    if first is None:
        return NodeList(np.empty(0, np.uint64), "the root is not in the dump")
    root = np.array([first] if first else [], np.uint64)
    sound = _sound_tree(view, layout, root, most)
    return _doubtful_tree(view, layout, root, most) if sound is None else NodeList(sound, "")


def _sound_tree(view: View, layout: Layout, level: NDArray[np.uint64], most: int) -> NDArray[np.uint64] | None:
    """The nodes of a complete tree that has each node once; None for any other tree. `level`: its root.

    Repeated nodes are searched once, at the end: a set of all nodes for each level would cost more than the rest.
    """
    levels, count = list[NDArray[np.uint64]](), 0
    while len(level):
        count += len(level)
        levels.append(level)
        children, are_present = _children(view, layout, level)
        if not are_present.all() or count > most or len(levels) >= _MAX_LEVELS:
            return None
        level = np.sort(children[children != 0])
    nodes = np.concatenate([*levels, np.empty(0, np.uint64)])
    ascending = np.sort(nodes)
    return nodes if (ascending[1:] > ascending[:-1]).all() else None


def _doubtful_tree(view: View, layout: Layout, level: NDArray[np.uint64], most: int) -> NodeList:
    """The nodes of any tree, each once. `level`: its root."""
    seen, why = np.empty(0, np.uint64), ""
    for _ in range(_MAX_LEVELS):
        if not len(level):
            return NodeList(seen, why)
        children, are_present = _children(view, layout, level)
        why = why if are_present.all() else "a node is not in the dump"
        seen = np.concatenate([seen, level[are_present]])
        level = np.unique(children[children != 0])
        if np.isin(level, seen).any():
            level, why = level[~np.isin(level, seen)], "the tree leads back into itself"
        if len(seen) + len(level) > most:
            return NodeList(seen, "more nodes than there is memory for")
    return NodeList(seen, "the tree is deeper than any balanced one")


def _children(view: View, layout: Layout, level: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """(left, then right children of the nodes, 0 for none; (n,) True for nodes whose last link is in the dump)."""
    links, pointer = layout["_RTL_BALANCED_LINKS"], view.pointer_bytes
    left, right = links.offset("LeftChild"), links.offset("RightChild")
    found = StructureArrays(view.space.mapped, level, max(left, right) + pointer)
    last, are_present = found.member(right, pointer)
    return np.concatenate([found.member(left, pointer)[0], last]), are_present


def list_nodes(view: View, head: int, most: int) -> NodeList:
    """The nodes of the singly linked list whose head lies at `head`, at most `most`; the link is the first member."""
    node, seen = view.space.try_pointer(head), dict[int, None]()
    why = "" if node is not None else "the head is not in the dump"
    while node and not why:
        if node in seen:
            why = "the list leads back into itself"
        elif len(seen) >= most:
            why = "more nodes than there is memory for"
        elif (following := view.space.try_pointer(node)) is None:
            why = f"the node at {node:#x} is not in the dump"
        else:
            seen[node] = None
            node = following
    return NodeList(np.array(list(seen), np.uint64), why)
