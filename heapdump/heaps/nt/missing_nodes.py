"""Continues the list of large blocks behind nodes that are not in the dump.

The neighbours of a missing node name it: the one before by Flink, the one behind by Blink. A node begins a page of its
own reservation: the first page up to Windows 7, one of the first sixteen later (heap-structures.md §2.6).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.allocator import PAGE, DiscoveryContext
from heapdump.heaps.linked_list import LinkedList
from heapdump.heaps.nt.header_key import HeaderKey
from heapdump.layouts import Layout

_PAGES = 16

_FIXED_MEMBERS, _FIXED = 0xFF00FFFF, 4 << 24
"""Bits 32-63 of a large block's header word: PreviousSize 0, UnusedBytes 4; the segment byte between them varies."""

_TOP = 1 << 64
"""Behind the highest address."""


def behind_missing(
    discovery: DiscoveryContext, head: int, linked: LinkedList, accepts: Callable[[int], bool]
) -> list[int]:
    """The nodes of a list that can be reached only over nodes that the dump lacks.

    A missing node is the neighbour of a present one, which names it by Flink or Blink. From there the list is followed
    to the next missing node, and so on.

    Args:
        discovery: the view, and the nodes that other lists hold.
        head: address of the list's head.
        linked: the nodes that were reached from the head, forwards and backwards.
        accepts: True for an address where a node of this list may lie.
    """
    space = discovery.view.space
    first = [broken.found for broken in linked.breaks if broken.found and space.try_pointer(broken.found) is None]
    return nodes_behind(discovery, first, {head, *linked.nodes}, accepts) if first else []


def nodes_behind(
    discovery: DiscoveryContext, missing: Sequence[int], seen: set[int], accepts: Callable[[int], bool]
) -> list[int]:
    """The nodes that are reached from the neighbours of missing ones; further missing nodes on the way are crossed.

    Args:
        discovery: the view, and the nodes that other lists hold.
        missing: addresses of nodes, or of a head, that are not in the dump.
        seen: nodes at which the search ends; the nodes found are added.
        accepts: True for an address where a node of this list may lie.
    """
    space, out = discovery.view.space, list[int]()
    places = _places(discovery)
    for link in (0, space.pointer_bytes):
        back, is_present = space.mapped.gather(places + np.uint64(space.pointer_bytes - link), space.pointer_bytes)
        waiting = list(missing)
        while waiting:
            absent = waiting.pop()
            if absent >= _TOP:  # of a heap whose handle is damaged
                continue
            for node in places[is_present & (back == np.uint64(absent))].tolist():
                reached, end = _follow(discovery, node, link, seen, accepts)
                out += reached
                if end and end not in seen and space.try_pointer(end) is None:
                    seen.add(end)
                    waiting.append(end)
    return out


def nodes_with_key(
    discovery: DiscoveryContext, layout: Layout, key: HeaderKey, own: Collection[int], accepts: Callable[[int], bool]
) -> list[int]:
    """Nodes of large blocks that are on no list and whose headers hold under the key of a heap; none for plain headers.

    Under the right key the checksum holds, PreviousSize is 0, UnusedBytes is 4 and the entry is busy
    (heap-structures.md §2.6). By chance that is so for one header of another heap in 512. So a chain of nodes counts
    only where it leads to `own`, or to no other node in the dump.

    Args:
        discovery: the view, and the nodes in use.
        layout: the layout of the heap.
        key: the key of the heap.
        own: the head of the heap's list, and its known nodes.
        accepts: True for an address where a node of this list may lie.
    """
    space, struct = discovery.view.space.mapped, layout["_HEAP_VIRTUAL_ALLOC_ENTRY"]
    if not key.mask:
        return []
    places = _places(discovery)
    word_at = struct.offset("BusyBlock") + 2 * layout.pointer_bytes - 8
    encoded, is_present = space.gather(places + np.uint64(word_at), 8)
    words = encoded ^ np.uint64(key.key & 0xFFFFFFFF)
    checksum = (words >> np.uint64(24) ^ words >> np.uint64(16) ^ words >> np.uint64(8) ^ words) & np.uint64(0xFF)
    fixed = words >> np.uint64(32) & np.uint64(_FIXED_MEMBERS)
    fits = is_present & (checksum == 0) & (fixed == _FIXED) & (encoded & np.uint64(key.mask) != 0)
    fits &= words & np.uint64(1 << 16) != 0
    found = [node for node in places[fits].tolist() if not discovery.is_taken(node) and accepts(node)]
    found = _linked_to(discovery, found, own)
    discovery.take(found)
    return found


def _linked_to(discovery: DiscoveryContext, nodes: Sequence[int], own: Collection[int]) -> list[int]:
    """The nodes of chains that lead to `own`, or to no other node in the dump."""
    space = discovery.view.space
    links = {node: [space.try_pointer(node + at) for at in (0, space.pointer_bytes)] for node in nodes}
    pointing: dict[int, list[int]] = {}
    for node, targets in links.items():
        for target in targets:
            if target is not None:
                pointing.setdefault(target, []).append(node)
    out: set[int] = set()
    left = dict.fromkeys(nodes)
    while left:
        chain, waiting = dict[int, None](), [next(iter(left))]
        while waiting:
            node = waiting.pop()
            if node in left:
                del left[node]
                chain[node] = None
                waiting += [link for link in links[node] if link in left]
                waiting += pointing.get(node, [])
        ends = [link for node in chain for link in links[node] if link is not None and link not in chain]
        if any(end in own for end in ends) or all(space.try_pointer(end) is None for end in ends):
            out |= chain.keys()
    return [node for node in nodes if node in out]


def _follow(
    discovery: DiscoveryContext, node: int, link: int, seen: set[int], accepts: Callable[[int], bool]
) -> tuple[list[int], int | None]:
    """(the nodes from `node` on that are not in `seen`, to which they are added; the link of the last one)."""
    out: list[int] = []
    at: int | None = node
    while at and at not in seen and not discovery.is_taken(at) and accepts(at):
        seen.add(at)
        out.append(at)
        at = discovery.view.space.try_pointer(at + link)
    discovery.take(out)
    return out, at


def _places(discovery: DiscoveryContext) -> NDArray[np.uint64]:
    """The addresses where nodes of large blocks may lie: the first pages of all reservations."""
    return np.fromiter(_pages(discovery), np.uint64)


def _pages(discovery: DiscoveryContext) -> Iterator[int]:
    regions = discovery.process.regions
    for first, last in regions.allocation_rows():
        start = int(regions.start[first])
        end = int(regions.end[last - 1])
        yield from range(start, min(end, start + _PAGES * PAGE), PAGE)
