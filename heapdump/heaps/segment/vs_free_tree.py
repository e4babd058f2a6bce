"""Checks the tree of free VS chunks, a second witness beside the busy bits in their headers.

Every free chunk is a node of a tree, and no busy chunk is (all recorded heaps, 14393 to 26100, x64 and x86). The node
lies behind the first word of the chunk: Left, Right, and ParentValue, whose lowest bits are the colour. The parent of a
node links to it; the parent of the root is 0. Links are plain. The address of the root need not be known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import BlockTable, lower_trust
from heapdump.heaps.integers import address_limit
from heapdump.heaps.segment.committed import Committed
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.vs_page_offsets import page_offset_byte
from heapdump.kernels.row import BUSY, CLASS_MASK, TRUST_MASK, UNIT
from heapdump.trust import Trust
from heapdump.wording import plural

_LEAST_CHUNKS = 4
"""With this many free chunks or fewer, one may be unlinked; with more, fewer than half of them."""

_COLOUR_BITS = np.uint64(3)
_LEAST_GRANULES = 2
_ONE_BYTE, _COUNT_BITS = 0x8000, 0x1FFF


@dataclass(frozen=True, slots=True)
class _Nodes:
    """The nodes of n chunks, (n,) each.

    Attributes:
        address: of the node.
        parent: address of the parent's node; 0 for the root.
        is_linked: True where the parent links to the node; for a root, where its children name it as parent.
        is_unknown: True where a word that decides is not in the dump.
    """

    address: NDArray[np.uint64]
    parent: NDArray[np.uint64]
    is_linked: NDArray[np.bool_]
    is_unknown: NDArray[np.bool_]


def check_free_tree(walk: SegmentWalk, first: int, padding: int, delayed: NDArray[np.uint64]) -> None:
    """Compares the VS rows from `first` on, ascending, with the tree.

    `delayed`: user addresses of chunks on delay-free lists, which are free and not in the tree.

    A row that the tree contradicts gets the other state, as a guess, and a finding. A free chunk that is linked to
    nothing is a finding as well. Does nothing where most free chunks are not linked: then the build has another tree.
    """
    table = walk.columns.since(first)
    is_vs = (table.kind == BlockKind.VS) & ~table.is_internal
    is_vs &= table.entry_size >= np.uint64(_LEAST_GRANULES * walk.granule)
    rows = np.flatnonzero(is_vs & ~table.is_busy & ~np.isin(table.entry + np.uint64(walk.granule), delayed))
    nodes = _nodes(walk, table.entry[rows])
    unlinked = ~nodes.is_linked & ~nodes.is_unknown
    is_sure = table.tags[rows] & np.uint16(TRUST_MASK) == 0
    if 2 * int(unlinked.sum()) < max(len(rows), _LEAST_CHUNKS):
        _make_guesses(walk, table, rows[unlinked & ~is_sure])
        unlinked &= is_sure
        is_busy = unlinked & _has_page_offset(walk, table, rows)
        _make_busy(walk, table, rows[is_busy], padding)
        _report_links(walk, nodes, unlinked & ~is_busy)
        doubtful = np.flatnonzero(is_vs & table.is_busy & (table.tags & np.uint16(TRUST_MASK) != 0))
        own = _nodes(walk, table.entry[doubtful])
        # padding keeps what is left of a node in a busy chunk, and may link to another such chunk
        is_in_tree = np.isin(own.parent, nodes.address) | ((own.parent == 0) & np.isin(own.address, nodes.parent))
        _make_free(walk, table, doubtful[own.is_linked & is_in_tree])


def is_unlinked(walk: SegmentWalk, chunk: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(n,) True for the chunks at these addresses that the tree of free chunks lacks, as far as the dump holds it."""
    nodes = _nodes(walk, chunk)
    return ~nodes.is_linked & ~nodes.is_unknown


def _nodes(walk: SegmentWalk, chunk: NDArray[np.uint64]) -> _Nodes:
    """The nodes of the chunks at these addresses."""
    pointer, mapped = np.uint64(walk.pointer_bytes), walk.mapped
    address = chunk + pointer
    value, is_present = mapped.gather(address + np.uint64(2) * pointer, walk.pointer_bytes)
    parent = value & ~_COLOUR_BITS
    is_named, is_cut = np.zeros(len(chunk), bool), np.zeros(len(chunk), bool)
    for side in (np.uint64(0), pointer):
        link, has_link = mapped.gather(parent + side, walk.pointer_bytes)
        is_named |= (parent != 0) & has_link & (link == address)
        is_cut |= (parent != 0) & ~has_link
    is_cut &= _may_be_memory(walk, parent)
    is_root, is_root_cut = _roots(walk, address)
    is_linked = is_present & np.where(parent == 0, is_root, is_named)
    return _Nodes(address, parent, is_linked, ~is_present | np.where(parent == 0, is_root_cut, is_cut))


def _roots(walk: SegmentWalk, address: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """((n,) True for nodes without children, and those that a child names as its parent; True where words lack)."""
    pointer = np.uint64(walk.pointer_bytes)
    is_leaf, is_root, is_cut = (np.full(len(address), value) for value in (True, False, False))
    for side in (np.uint64(0), pointer):
        child, has_child = walk.mapped.gather(address + side, walk.pointer_bytes)
        value, has_value = walk.mapped.gather(child + np.uint64(2) * pointer, walk.pointer_bytes)
        is_leaf &= has_child & (child == 0)
        is_root |= has_value & (child != 0) & (value & ~_COLOUR_BITS == address)
        is_cut |= ~has_child | ((child != 0) & ~has_value & _may_be_memory(walk, child))
    return is_leaf | is_root, is_cut


def _may_be_memory(walk: SegmentWalk, address: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(n,) False for addresses at which the process has no memory, as far as the memory map tells."""
    regions, limit = walk.process.regions, np.uint64(address_limit(walk.view))
    possible: NDArray[np.bool_] = (address < limit) & (address % np.uint64(walk.pointer_bytes) == 0)
    if regions.is_complete_map:
        start = np.minimum(address, limit).astype(np.int64)
        possible &= Committed(regions).bytes(start, start + 1) > 0
    return possible


def _has_page_offset(walk: SegmentWalk, table: BlockTable, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for chunks with the page offset of busy chunks in their headers (`vs_page_offsets`); (n,)."""
    key = walk.keys.vs_page_offset_key
    if key is None or not len(rows):
        return np.zeros(len(rows), bool)
    chunk, starts = table.entry[rows], table.entry[table.is_internal]
    subsegment = starts[np.searchsorted(starts, chunk, side="right") - 1]
    found, is_present = walk.mapped.gather(chunk + np.uint64(walk.pointer_bytes), 1)
    has_offset: NDArray[np.bool_] = is_present & (found == page_offset_byte(chunk, subsegment, key))
    return has_offset


def _make_busy(walk: SegmentWalk, table: BlockTable, rows: NDArray[np.int64], padding: int) -> None:
    """Makes free rows busy, with a finding for each; their requested bytes are guesses."""
    header = walk.granule + padding
    for row in rows.tolist():
        at, size = int(table.entry[row]), int(table.entry_size[row])
        flags = walk.view.space.try_integer(at + walk.pointer_bytes + 1, 1) or 0
        count = (walk.view.space.try_integer(at + size - 2, 2) or 0) if flags & 1 else 0
        behind = 1 if count & _ONE_BYTE else count & _COUNT_BITS
        table.unused[row] = header + behind if header + behind <= size else min(header, size)
        table.header8[row] = min(header, size) // UNIT
        table.tags[row] |= np.uint16(BUSY)
    changed = np.zeros(len(table), bool)
    changed[rows] = True
    lower_trust(table.tags, changed, Trust.GUESS)
    for at in table.entry[rows][: walk.most_reports].tolist():
        message = (
            f"{walk.name}: the chunk header at {at:#x} is damaged: it says free, and the tree of free chunks lacks it"
        )
        size = walk.pointer_bytes
        walk.report(DamagedBytes("vs_chunk", at + size - 2, 2, "busy", "free"), message)
    walk.count_headers(0, -len(rows))


def _make_guesses(walk: SegmentWalk, table: BlockTable, rows: NDArray[np.int64]) -> None:
    """Makes free rows behind damage or missing memory guesses: they may be what is left in a larger free chunk."""
    if len(rows):
        lower_trust(table.tags, rows, Trust.GUESS)
        place = int(table.entry[rows[0]])
        chunks = f"{plural(len(rows), 'free chunk')} from {place:#x} on behind damaged or missing chunks"
        walk.add_gap(f"{walk.name}: {chunks} are not in the tree of free chunks: these chunks are in doubt")


def _make_free(walk: SegmentWalk, table: BlockTable, rows: NDArray[np.int64]) -> None:
    """Makes busy rows free; their damage was reported."""
    table.tags[rows] &= np.uint16((CLASS_MASK | TRUST_MASK) & ~BUSY)
    table.unused[rows], table.header8[rows] = walk.granule, walk.granule // UNIT


def _report_links(walk: SegmentWalk, nodes: _Nodes, unlinked: NDArray[np.bool_]) -> None:
    """Adds a finding for each place with a wrong link.

    The place is the node of the parent where that is a free chunk, else ParentValue of the node itself.
    """
    pointer = walk.pointer_bytes
    at_parent = np.isin(nodes.parent, nodes.address)
    own = nodes.address + np.uint64(2 * pointer)
    places = np.unique(np.where(at_parent, nodes.parent, own)[unlinked])
    shown = places[: walk.most_reports]
    for at, is_node in zip(shown.tolist(), np.isin(shown, nodes.address).tolist(), strict=True):
        length = 2 * pointer if is_node else pointer
        message = f"{walk.name}: the tree of free chunks is broken at {at:#x}"
        walk.report(DamagedBytes("free_list", at, length, "a link of the tree", "another"), message)
    walk.count_headers(0, -len(places))
