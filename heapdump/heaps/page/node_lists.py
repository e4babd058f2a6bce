"""The addresses of the nodes of a page heap: its busy tree, and its lists (docs/reference/heap-structures.md §5.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.layouts import Layout
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
    links, mapped, pointer = layout["_RTL_BALANCED_LINKS"], view.space.mapped, view.pointer_bytes
    first = view.space.try_pointer(table + links.offset("RightChild"))
    if first is None:
        return NodeList(np.empty(0, np.uint64), "the root is not in the dump")
    level = np.array([first] if first else [], np.uint64)
    seen, why = np.empty(0, np.uint64), ""
    for _ in range(_MAX_LEVELS):
        if not len(level):
            return NodeList(seen, why)
        left, _ = mapped.gather(level + np.uint64(links.offset("LeftChild")), pointer)
        right, is_present = mapped.gather(level + np.uint64(links.offset("RightChild")), pointer)
        why = why if is_present.all() else "a node is not in the dump"
        seen = np.concatenate([seen, level[is_present]])
        children = np.concatenate([left, right])
        level = np.unique(children[children != 0])
        if np.isin(level, seen).any():
            level, why = level[~np.isin(level, seen)], "the tree leads back into itself"
        if len(seen) + len(level) > most:
            return NodeList(seen, "more nodes than there is memory for")
    return NodeList(seen, "the tree is deeper than any balanced one")


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
