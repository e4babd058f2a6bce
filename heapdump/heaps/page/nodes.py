"""The nodes of a page heap: one `_DPH_HEAP_BLOCK` for each block that has pages of its own (heap-structures.md §5, §11).

Busy ones are an AVL tree from Vista on and a list before; freed ones, whose memory is kept inaccessible for a while, are
a list. A node counts only where its own members fit together: the user data ends, or begins, at the guard page.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.page_nodes import PageNodes
from heapdump.layouts import Layout, Struct
from heapdump.process.model import View

PAGE = 0x1000
_MOST_LEVELS = 64  # an AVL tree of so many levels has more nodes than there is memory


@dataclass(frozen=True, slots=True)
class Chain:
    """Node addresses of a tree or list, (n,) uint64, and whether it was followed to its end; `why` it was not."""

    nodes: NDArray[np.uint64]
    why: str


@dataclass(frozen=True, slots=True)
class NodeSet:
    """What tree and lists of one page heap hold. `odd`: nodes whose members do not fit together. `gaps`: what is missing."""

    nodes: PageNodes
    busy_nodes: int
    odd: NDArray[np.uint64]
    gaps: tuple[str, ...]


def read_nodes(view: View, layout: Layout, root: int, most_bytes: int) -> NodeSet:
    """Every busy and every freed block of the page heap with that root. `most_bytes`: of memory in the dump."""
    struct, top, gaps = layout["_DPH_HEAP_BLOCK"], layout["_DPH_HEAP_ROOT"], []
    most = most_bytes // struct.size + 1
    if "BusyNodesTable" in top:
        busy = _tree(view, layout, root + top.offset("BusyNodesTable"), most)
    else:
        busy = _list(view, root + top.offset("pBusyAllocationListHead"), most)
    free = _list(view, root + top.offset("pFreeAllocationListHead"), most)
    for what, chain in (("busy blocks", busy), ("freed blocks", free)):
        if chain.why:
            gaps.append(f"page heap {root - PAGE:#x}: the {what} end after {len(chain.nodes):,}: {chain.why}")
    found = np.concatenate([busy.nodes, free.nodes[~np.isin(free.nodes, busy.nodes)]])
    is_busy = np.arange(len(found)) < len(busy.nodes)
    nodes, odd, lost = _columns(view, struct, found, is_busy)
    if lost:
        gaps.append(f"page heap {root - PAGE:#x}: {lost:,} block nodes are not whole in the dump")
    return NodeSet(nodes, len(busy.nodes), odd, tuple(gaps))


def _tree(view: View, layout: Layout, table: int, most: int) -> Chain:
    """The nodes of an _RTL_AVL_TABLE, level by level, so that each level is read at once."""
    links, space, pointer = layout["_RTL_BALANCED_LINKS"], view.space, view.pointer_bytes
    first = space.try_pointer(table + links.offset("RightChild"))
    if first is None:
        return Chain(np.empty(0, np.uint64), "the root is not in the dump")
    level = np.array([first] if first else [], np.uint64)
    seen, why = np.empty(0, np.uint64), ""
    for _ in range(_MOST_LEVELS):
        if not len(level):
            return Chain(seen, why)
        children = []
        for side in ("LeftChild", "RightChild"):
            child, there = space.mapped.gather(level + np.uint64(links.offset(side)), pointer)
            children.append(child)
        why = why if there.all() else "a node is not in the dump"
        seen = np.concatenate([seen, level[there]])
        fresh = np.concatenate(children)
        level = np.unique(fresh[fresh != 0])
        if np.isin(level, seen).any():
            level, why = level[~np.isin(level, seen)], "the tree leads back into itself"
        if len(seen) + len(level) > most:
            return Chain(seen, "more nodes than there is memory for")
    return Chain(seen, "the tree is deeper than any balanced one")


def _list(view: View, head: int, most: int) -> Chain:
    """A singly linked list; the link is the node's first member."""
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
    return Chain(np.array(list(seen), np.uint64), why)


def _columns(
    view: View, struct: Struct, node: NDArray[np.uint64], is_busy: NDArray[np.bool_]
) -> tuple[PageNodes, NDArray[np.uint64], int]:
    """(the nodes whose members fit together, the others' addresses, how many are not whole in the dump)."""
    is_whole = view.space.mapped.gather(node, 1)[1] & view.space.mapped.gather(node + np.uint64(struct.size - 1), 1)[1]
    lost, node, is_busy = int((~is_whole).sum()), node[is_whole], is_busy[is_whole]

    def member(name: str) -> NDArray[np.uint64]:
        """A member of every node."""
        field = struct.fields[name]
        size = {"u32": 4, "u64": 8}.get(field.type, view.pointer_bytes)
        return view.space.mapped.gather(node + np.uint64(field.offset), size)[0]

    user, start, whole, size = map(
        member, ("pUserAllocation", "pVirtualBlock", "nVirtualBlockSize", "nUserRequestedSize")
    )
    end = start + whole
    is_forward, is_backward = _geometry(view, user, start, end, size)
    thread = member("ThreadId") if _keeps_threads(view, struct, node) else np.zeros(len(node), np.uint64)
    page = np.uint64(PAGE)
    every = PageNodes(
        node, user, size, start, end, np.where(is_backward, start + page, start), np.where(is_backward, end, end - page),
        member("StackTrace"), thread, is_busy,
    )  # fmt: skip
    fits = is_forward | is_backward
    order = np.flatnonzero(fits)[np.argsort(user[fits], kind="stable")]
    order = order[_apart(start[order], end[order])]
    odd = np.delete(node, order)
    return PageNodes(*(getattr(every, name)[order] for name in PageNodes.__slots__)), odd, lost


def _geometry(
    view: View, user: NDArray[np.uint64], start: NDArray[np.uint64], end: NDArray[np.uint64], size: NDArray[np.uint64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(user data ends at the guard page behind it, user data begins at the guard page before it), (n,) each.

    It ends at the guard page rounded up to the granularity, or exactly there (`gflags /unaligned`).
    """
    page, granule = np.uint64(PAGE), np.uint64(view.granularity)
    sound = (
        (start > 0) & (start % page == 0) & (end % page == 0) & (end >= start + page) & (user >= start) & (user <= end)
    )
    sound &= (size < end - start) & (end - start < np.uint64(1 << 47))
    gap = end - page - user - size  # wraps where the user data reaches into the last page
    forward = sound & (gap < granule)
    backward = sound & ~forward & (user == start + page) & (size <= end - user)
    return forward, backward


def _apart(start: NDArray[np.uint64], end: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """False for virtual blocks that begin inside the one before; both ascending by user data."""
    if not len(start):
        return np.zeros(0, bool)
    reached = np.maximum.accumulate(end)
    return np.concatenate([np.array([True]), start[1:] >= reached[:-1]])


def _keeps_threads(view: View, struct: Struct, node: NDArray[np.uint64]) -> bool:
    """True where nodes hold a thread id: where the word at `State` is no size of pages, as it is in older nodes."""
    if "State" not in struct or not len(node):
        return False
    state, there = view.space.mapped.gather(node + np.uint64(struct.offset("State")), 4)
    return bool((state[there] < PAGE).all())
