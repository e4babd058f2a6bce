"""Walks the doubly linked rings (LIST_ENTRY) inside heaps, from both ends where they are broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from heapdump.memory import limits
from heapdump.memory.space import AddressSpace


@dataclass(frozen=True, slots=True)
class Break:
    """A link that does not hold: the pointer at `address` should be `expected` (None: any node) and is `found`."""

    address: int
    expected: int | None
    found: int | None


@dataclass(frozen=True, slots=True)
class Ring:
    """The nodes that were reached, in list order: forwards from the head, then what only the way back reached.

    `is_closed`: the head was reached again, so no node is missing.
    """

    nodes: tuple[int, ...]
    breaks: tuple[Break, ...]
    is_closed: bool


def walk_ring(space: AddressSpace, head: int, accepts: Callable[[int], bool]) -> Ring:
    """Follows Flink from `head`, and Blink too when that does not come back to the head.

    `accepts(node)` says whether a node looks like one of its kind; nodes are visited once, at most
    `limits.MAX_LIST_NODES`. A wrong back-link is a break, but the walk goes on over it.
    """
    forward, breaks, closed = _follow(space, head, 0, accepts, set())
    if closed:
        return Ring(tuple(forward), tuple(breaks), is_closed=True)
    backward, back_breaks, _ = _follow(space, head, space.pointer_bytes, accepts, set(forward))
    known = {b.address for b in breaks}
    breaks += [b for b in back_breaks if b.address not in known]
    return Ring((*forward, *reversed(backward)), tuple(breaks), is_closed=False)


def _follow(
    space: AddressSpace, head: int, link: int, accepts: Callable[[int], bool], seen: set[int]
) -> tuple[list[int], list[Break], bool]:
    """Nodes along the link at offset `link` (0 = Flink, pointer size = Blink), breaks, and whether it closed."""
    other = space.pointer_bytes - link
    nodes: list[int] = []
    breaks: list[Break] = []
    seen = seen | {head}
    previous, node = head, space.try_pointer(head + link)
    while node is not None and node not in seen and len(nodes) < limits.MAX_LIST_NODES and accepts(node):
        back = space.try_pointer(node + other)
        if back != previous:
            breaks.append(Break(node + other, previous, back))
        seen.add(node)
        nodes.append(node)
        previous, node = node, space.try_pointer(node + link)
    if node == head:
        if (back := space.try_pointer(head + other)) != previous:
            breaks.append(Break(head + other, previous, back))
        return nodes, breaks, True
    if node is None or node not in seen or link == 0:
        breaks.append(Break(previous + link, None, node))
    return nodes, breaks, False
