"""Containers whose head lies in the owner, laid out by hand: libstdc++, libc++, and deques of all three libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.analyses.types.test_nodes import Containers

NODE_BYTES = 64
Change = Callable[["LibraryContainers", "Made"], tuple[int, int]]
"""(address, word) that is written at last."""


@dataclass
class Made:
    """One container: the words of its head, and the blocks that it consists of."""

    owner: int
    at: int
    words: list[int]
    nodes: list[int] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)


class LibraryContainers(Containers):
    """Blocks with containers in them."""

    def owner(self, words: int, before: int = 2) -> tuple[int, int]:
        """(a new block with room for a head behind `before` words, where the head begins)."""
        block = self.heap.busy((before + words + 2) * self.pointer, self.words(*range(3, before + words + 5)))
        return block, block + before * self.pointer

    def write(self, at: int, *values: int) -> None:
        """Words at an address, once all is laid out."""
        self.late.append((at, self.words(*values)))

    def finish(self, made: Made, start: int = 0) -> Made:
        """The head written. `start`: word of the head at which the container begins."""
        self.write(made.at, *made.words)
        made.at += start * self.pointer
        return made

    def linked(self, many: int) -> Made:
        """The list of both libraries."""
        block, at = self.owner(3)
        nodes = self.nodes(many, NODE_BYTES)
        ring = [at, *nodes]
        for i, node in enumerate(nodes, 1):
            self.late.append((node, self.words(ring[(i + 1) % len(ring)], ring[i - 1]) + b"value"))
        return self.finish(Made(block, at, [nodes[0], nodes[-1], many], nodes))

    def binary(self, many: int, head: int, write: Callable[[int, int, int, int], None]) -> tuple[int, list[int]]:
        """(root, nodes in order) of a balanced tree. `write(node, left, right, parent)`."""
        nodes = self.nodes(many, NODE_BYTES)

        def build(low: int, high: int, parent: int) -> int:
            if low >= high:
                return 0
            middle = (low + high) // 2
            at = nodes[middle]
            write(at, build(low, middle, at), build(middle + 1, high, at), parent)
            return at

        return build(0, many, head), nodes

    def gnu_map(self, many: int) -> Made:
        """The map of libstdc++: compare, then the head with its color."""
        block, at = self.owner(6)
        head = at + self.pointer
        root, nodes = self.binary(
            many, head, lambda node, left, right, parent: self.write(node, 1, parent, left, right, 7)
        )
        return self.finish(Made(block, at, [0xAA, 0, root, nodes[0], nodes[-1], many], nodes))

    def llvm_map(self, many: int) -> Made:
        """The map of libc++."""
        block, at = self.owner(3)
        root, nodes = self.binary(
            many, at + self.pointer, lambda node, left, right, parent: self.write(node, left, right, parent, 1)
        )
        return self.finish(Made(block, at, [nodes[0], root, many], nodes))

    def chained(self, many: int, buckets: int = 13) -> Made:
        """The hash table of both libraries."""
        block, at = self.owner(6)
        nodes = self.nodes(many, NODE_BYTES)
        for node, following in zip(nodes, [*nodes[1:], 0], strict=True):
            self.write(node, following, 77)
        array = self.heap.busy(buckets * self.pointer)
        filled = [at + 2 * self.pointer, *nodes[:: max(1, many // 5)]][:buckets]
        self.write(array, *filled, *[0] * (buckets - len(filled)))
        words = [array, buckets, nodes[0], many, 0x3F800000, buckets * 2]
        return self.finish(Made(block, at, words, nodes, [array]))

    def msvc_deque(self, many: int, slots: int = 8) -> Made:
        """The deque of Visual C++, of elements of 40 bytes."""
        block, at = self.owner(5)
        proxy, array = self.heap.busy(2 * self.pointer), self.heap.busy(slots * self.pointer)
        blocks = self.nodes(many, 40)
        self.write(proxy, at, 0)
        first = slots - many // 2 - 1
        where = {(first + i) % slots: one for i, one in enumerate(blocks)}
        self.write(array, *(where.get(slot, 0) for slot in range(slots)))
        return self.finish(Made(block, at, [proxy, array, slots, first, many], blocks, [array, proxy]))

    def gnu_deque(self, many: int, slots: int = 8) -> Made:
        """The deque of libstdc++ with `many` blocks of 480 bytes."""
        block, at = self.owner(10)
        array, blocks = self.heap.busy(slots * self.pointer), self.nodes(many, 480)
        low = (slots - many) // 2
        self.write(array, *[0x1234567] * low, *blocks, *[0x1234567] * (slots - many - low))
        first, last = array + low * self.pointer, array + (low + many - 1) * self.pointer
        begin = [blocks[0] + 8, blocks[0], blocks[0] + 480, first]
        end = [blocks[-1] + 16, blocks[-1], blocks[-1] + 480, last]
        return self.finish(Made(block, at, [array, slots, *begin, *end], blocks, [array]))

    def llvm_deque(self, many: int, slots: int = 8) -> Made:
        """The deque of libc++ with `many` blocks of 4096 bytes."""
        block, at = self.owner(6)
        array, blocks = self.heap.busy(slots * self.pointer), self.nodes(many, 4096)
        self.write(array + self.pointer, *blocks)
        begin, end = array + self.pointer, array + (1 + many) * self.pointer
        words = [array, begin, end, array + slots * self.pointer, 5, 512 * many - 10]
        return self.finish(Made(block, at, words, blocks, [array]))
