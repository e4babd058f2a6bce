"""Walks the doubly linked rings (LIST_ENTRY) inside heaps, from both ends where they are broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from heapdump.memory import limits
from heapdump.memory.space import AddressSpace


@dataclass(frozen=True, slots=True)
class Break:
    """A link that does not hold: the pointer at `address` should be `expected` (None: any node) and is `found`.

    `length`: bytes of the pointer.
    """

    address: int
    length: int
    expected: int | None
    found: int | None


@dataclass(frozen=True, slots=True)
class LinkedList:
    """The nodes that were reached, in list order: forwards from the head, then what only the way back reached.

    `is_closed`: both ways hold at every node, so none is missing.
    """

    nodes: tuple[int, ...]
    breaks: tuple[Break, ...]
    is_closed: bool


def walk_list(space: AddressSpace, head: int, accepts: Callable[[int], bool]) -> LinkedList:
    """Follows Flink from `head`, and Blink too when a link on the way does not hold.

    `accepts(node)` says whether a node looks like one of its kind; nodes are visited once, at most
    `limits.MAX_LIST_NODES`. A wrong back-link is a break, but the walk goes on over it.
    """
    forward, breaks, closed = _follow(space, head, 0, accepts)
    if closed and not breaks:
        return LinkedList(tuple(forward), (), is_closed=True)
    backward, back_breaks, back_closed = _follow(space, head, space.pointer_bytes, accepts)
    known = {b.address for b in breaks}
    breaks += [b for b in back_breaks if b.address not in known]
    # a link that skips nodes closes one way only: the way that closes tells the order of most
    ways = (backward[::-1], forward) if back_closed else (forward, backward[::-1])
    return LinkedList(tuple(dict.fromkeys((*ways[0], *ways[1]))), tuple(breaks), is_closed=False)


def _follow(
    space: AddressSpace, head: int, link: int, accepts: Callable[[int], bool]
) -> tuple[list[int], list[Break], bool]:
    """Nodes along the link at offset `link` (0 = Flink, pointer size = Blink), breaks, and whether it closed."""
    other = space.pointer_bytes - link
    nodes: list[int] = []
    breaks: list[Break] = []
    seen = {head}
    previous, node = head, space.try_pointer(head + link)
    while node is not None and node not in seen and len(nodes) < limits.MAX_LIST_NODES and accepts(node):
        back = space.try_pointer(node + other)
        if back != previous:
            breaks.append(Break(node + other, space.pointer_bytes, previous, back))
        seen.add(node)
        nodes.append(node)
        previous, node = node, space.try_pointer(node + link)
    if node == head:
        if (back := space.try_pointer(head + other)) != previous:
            breaks.append(Break(head + other, space.pointer_bytes, previous, back))
        return nodes, breaks, True
    breaks.append(Break(previous + link, space.pointer_bytes, None, node))
    return nodes, breaks, False
