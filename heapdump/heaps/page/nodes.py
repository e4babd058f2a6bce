"""The nodes of a page heap as columns: one _DPH_HEAP_BLOCK for each full block.

Source: docs/reference/heap-structures.md §5.1 and §5.5. Busy nodes form an AVL tree from Vista on, a list before. Freed
nodes form a list; the memory of their blocks stays inaccessible for a while. A node is accepted only where its members
agree: its user data ends, or begins, at the guard page.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.page_nodes import PageNodes
from heapdump.heaps.allocator import PAGE
from heapdump.heaps.page.node_lists import list_nodes, tree_nodes
from heapdump.heaps.page.structures import members_of
from heapdump.layouts import Layout, Struct
from heapdump.memory.structures import StructureArrays
from heapdump.process.model import View

_MAX_BLOCK_BYTES = 1 << 47


@dataclass(frozen=True, slots=True)
class NodeSet:
    """The nodes of one page heap.

    Attributes:
        nodes: the nodes whose members agree.
        busy_nodes: number of nodes in the busy tree or list, damaged ones included.
        damaged: (m,) uint64 addresses of the nodes whose members do not agree.
        gaps: sentences that say which nodes may be missing, and why.
    """

    nodes: PageNodes
    busy_nodes: int
    damaged: NDArray[np.uint64]
    gaps: tuple[str, ...]


def read_nodes(view: View, layout: Layout, root: int) -> NodeSet:
    """The busy and the freed nodes of the page heap with its root at `root`."""
    struct, root_struct, gaps = layout["_DPH_HEAP_BLOCK"], layout["_DPH_HEAP_ROOT"], []
    most = view.space.total_bytes // struct.size + 1
    if "BusyNodesTable" in root_struct:
        busy = tree_nodes(view, layout, root + root_struct.offset("BusyNodesTable"), most)
    else:
        busy = list_nodes(view, root + root_struct.offset("pBusyAllocationListHead"), most)
    freed = list_nodes(view, root + root_struct.offset("pFreeAllocationListHead"), most)
    for name, found in (("busy blocks", busy), ("freed blocks", freed)):
        if found.why:
            gaps.append(f"page heap {root - PAGE:#x}: the {name} end after {len(found.nodes):,}: {found.why}")
    freed_alone = freed.nodes[~np.isin(freed.nodes, busy.nodes)] if len(freed.nodes) else freed.nodes
    node = np.concatenate([busy.nodes, freed_alone])
    is_busy = np.arange(len(node)) < len(busy.nodes)
    read = StructureArrays(view.space.mapped, node, struct.size)
    is_present = _are_present(view, read, struct.size)
    if missing := int((~is_present).sum()):
        gaps.append(f"page heap {root - PAGE:#x}: {missing:,} block nodes are not whole in the dump")
        read, is_busy = read.of(is_present), is_busy[is_present]
    nodes, damaged = _columns(view, struct, read, is_busy)
    return NodeSet(nodes, len(busy.nodes), damaged, tuple(gaps))


def _are_present(view: View, found: StructureArrays, size: int) -> NDArray[np.bool_]:
    """True for nodes whose first and last byte are in the dump; (n,) bool."""
    present = found.are_in_one_piece
    split = found.addresses[~present]
    if len(split):
        mapped = view.space.mapped
        present[~present] = mapped.gather(split, 1)[1] & mapped.gather(split + np.uint64(size - 1), 1)[1]
    return present


def _columns(
    view: View, struct: Struct, found: StructureArrays, is_busy: NDArray[np.bool_]
) -> tuple[PageNodes, NDArray[np.uint64]]:
    """(the nodes whose members agree, (m,) addresses of the others)."""
    node = found.addresses
    user, start, bytes_, size = (
        members_of(view, struct, found, name)
        for name in ("pUserAllocation", "pVirtualBlock", "nVirtualBlockSize", "nUserRequestedSize")
    )
    end = start + bytes_
    is_forward, is_backward = _geometry(view, user, start, end, size)
    has_thread = _record_threads(struct, found)
    thread = members_of(view, struct, found, "ThreadId") if has_thread else np.zeros(len(node), np.uint64)
    page = np.uint64(PAGE)
    read = PageNodes(
        node, user, size, start, end,
        np.where(is_backward, start + page, start), np.where(is_backward, end, end - page),
        members_of(view, struct, found, "StackTrace"), thread, is_busy,
    )  # fmt: skip
    fits = is_forward | is_backward
    order = np.flatnonzero(fits)
    order = order[_ascending(user[order])]
    order = order[_are_apart(start[order], end[order])]
    return PageNodes(*(getattr(read, name)[order] for name in PageNodes.__slots__)), np.delete(node, order)


def _geometry(
    view: View, user: NDArray[np.uint64], start: NDArray[np.uint64], end: NDArray[np.uint64], size: NDArray[np.uint64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """((n,) True where the user data ends at the guard page behind it; (n,) True where it begins at the one before it).

    It may end at the page with its size rounded up to the granule, or exactly (`gflags /unaligned`).
    """
    page, granule = np.uint64(PAGE), np.uint64(view.granularity)
    is_sound = (start > 0) & (start % page == 0) & (end % page == 0) & (end >= start + page)
    is_sound &= (user >= start) & (user <= end) & (size < end - start) & (end - start < np.uint64(_MAX_BLOCK_BYTES))
    rest = end - page - user - size  # unsigned: very large where the user data reaches into the guard page
    is_forward = is_sound & (rest < granule)
    return is_forward, is_sound & ~is_forward & (user == start + page) & (size <= end - user)


def _ascending(user: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The order that sorts the addresses, equal ones as they stand; (n,). A stable sort, which few have, is slower."""
    order: NDArray[np.int64] = np.argsort(user)
    ascending = user[order]
    return np.argsort(user, kind="stable") if (ascending[1:] == ascending[:-1]).any() else order


def _are_apart(start: NDArray[np.uint64], end: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(n,) False for virtual blocks that begin before the end of an earlier one; ascending by user address."""
    if not len(start):
        return np.zeros(0, bool)
    reached = np.maximum.accumulate(end)
    return np.concatenate([np.array([True]), start[1:] >= reached[:-1]])


def _record_threads(struct: Struct, found: StructureArrays) -> bool:
    """True where nodes record a thread id: their member State is less than a page; older nodes have a size there."""
    if "State" not in struct or not len(found.addresses):
        return False
    state, is_present = found.member(struct.offset("State"), 4)
    return bool((state[is_present] < PAGE).all())
