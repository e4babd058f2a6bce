"""Walks doubly linked lists (LIST_ENTRY): forwards, and also backwards where they are broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from heapdump.memory import limits
from heapdump.memory.space import AddressSpace


@dataclass(frozen=True, slots=True)
class Break:
    """A link that does not hold.

    Attributes:
        address: of the pointer.
        length: bytes of the pointer.
        expected: its right value; None where it should lead to another node, no matter which.
        found: its value; None where it is not in the dump.
    """

    address: int
    length: int
    expected: int | None
    found: int | None


@dataclass(frozen=True, slots=True)
class LinkedList:
    """The result of walking a list.

    Attributes:
        nodes: addresses of the nodes that were reached, in list order, without the head.
        breaks: links that do not hold.
        is_closed: True where both links of every node hold, so that no node is missing.
    """

    nodes: tuple[int, ...]
    breaks: tuple[Break, ...]
    is_closed: bool


def walk_list(space: AddressSpace, head: int, accepts: Callable[[int], bool]) -> LinkedList:
    """Follows Flink from `head`; where a link does not hold, also follows Blink from `head`.

    `accepts(node)`: True for an address where a node of this list may lie. Each node is visited once, at most
    `limits.MAX_LIST_NODES` of them. A wrong Blink on the way forwards is a break, but does not end the walk.
    """
    forward, breaks, closed = _follow(space, head, 0, accepts)
    if closed and not breaks:
        return LinkedList(tuple(forward), (), is_closed=True)
    backward, back_breaks, back_closed = _follow(space, head, space.pointer_bytes, accepts)
    known = {b.address for b in breaks}
    breaks += [b for b in back_breaks if b.address not in known]
    # a link that skips nodes breaks one direction only: the direction that closes gives the order
    ways = (backward[::-1], forward) if back_closed else (forward, backward[::-1])
    return LinkedList(tuple(dict.fromkeys((*ways[0], *ways[1]))), tuple(breaks), is_closed=False)


def _follow(
    space: AddressSpace, head: int, link: int, accepts: Callable[[int], bool]
) -> tuple[list[int], list[Break], bool]:
    """(nodes along one link, breaks, True where it leads back to the head); `link`: its offset in a node."""
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
