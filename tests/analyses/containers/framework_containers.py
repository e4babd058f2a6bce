"""Containers of Qt and MFC whose elements are blocks, laid out by hand."""

from __future__ import annotations

from tests.analyses.containers.library_containers import NODE_BYTES, LibraryContainers, Made
from tests.builders import ProcessBuilder


class FrameworkContainers(LibraryContainers):
    """Blocks with containers of Qt and MFC in them."""

    @property
    def vtable(self) -> int:
        """An address in the program's module."""
        return ProcessBuilder(arch=self.arch, build=19041).plan.exe + 0x1040

    def ints(self, *values: int) -> bytes:
        """Integers of 4 bytes."""
        return b"".join((value & 0xFFFFFFFF).to_bytes(4, "little") for value in values)

    def held(self, head: int, made: Made) -> Made:
        """The head held by the owner; it is one of the blocks."""
        made.words, made.parts = [head], [*made.parts, head]
        return self.finish(made)

    def qt5_hash(self, many: int, buckets: int = 17, count: int | None = None) -> Made:
        """QHash of Qt 5; a bucket with several nodes, empty ones."""
        block, at = self.owner(1)
        head, array = self.heap.busy(48 if self.pointer == 8 else 36), self.heap.busy(buckets * self.pointer)
        nodes = self.nodes(many, NODE_BYTES)
        places = [3 * i % (buckets - 5) for i in range(many)]
        first = {place: node for node, place in zip(nodes, places, strict=True)}
        below: dict[int, int] = {}
        for node, place in zip(nodes, places, strict=True):
            self.late.append((node, self.words(below.get(place, head)) + self.ints(place + buckets)))
            below[place] = node
        self.write(array, *(first.get(place, head) for place in range(buckets)))
        bits = buckets.bit_length() - 1
        more = self.ints(1, many if count is None else count, 24, bits << 16, buckets, 0x1234, 1)
        self.late.append((head, self.words(0, array) + more))
        return self.held(head, Made(block, at, [], nodes, [array]))

    def qt5_map(self, many: int, count: int | None = None) -> Made:
        """QMap of Qt 5."""
        block, at = self.owner(1)
        head = self.heap.busy(40 if self.pointer == 8 else 24)

        def write(node: int, left: int, right: int, parent: int) -> None:
            """A node; half of them are black."""
            self.write(node, parent | (node >> 4 & 1), left, right, 7)

        root, nodes = self.binary(many, head + 8, write)
        content = self.ints(1, many if count is None else count) + self.words(0, root, 0, nodes[0])
        self.late.append((head, content))
        return self.held(head, Made(block, at, [], nodes))

    def qt6_hash(self, many: int, buckets: int = 256, count: int | None = None) -> Made:
        """QHash of Qt 6; each span has a block of entries."""
        block, at = self.owner(1)
        head, spans = self.heap.busy(5 * self.pointer), max(1, buckets // 128)
        size = 128 + 2 * self.pointer
        array = self.heap.busy(self.pointer + spans * size)
        entries = self.nodes(spans, 48 * 16)
        content = self.words(spans)
        for number, entry in enumerate(entries):
            used = many // spans + (number < many % spans)
            content += bytes(i if i < used else 0xFF for i in range(128)) + self.words(entry)
            content += bytes([48, used]).ljust(self.pointer, b"\0")
        self.late.append((array, content))
        values = self.words(many if count is None else count, buckets, 0x77, array + self.pointer)
        self.late.append((head, self.ints(1).ljust(self.pointer, b"\0") + values))
        return self.held(head, Made(block, at, [], entries, [array]))

    def plexes(self, many: int, of_block: int, element: int) -> tuple[list[int], list[int], int]:
        """(elements, blocks, the first block) of an MFC container for `many` elements."""
        header = 16 if self.pointer == 8 else 4
        blocks = self.nodes(-(-many // of_block), header + of_block * element)
        for block, following in zip(blocks, [*blocks[1:], 0], strict=True):
            self.write(block, following)
        places = [block + header + i * element for block in blocks for i in range(of_block)]
        self.rng.shuffle(places)
        return places[:many], blocks, blocks[0]

    def mfc_list(self, many: int, of_block: int = 10, count: int | None = None) -> Made:
        """CObList and its relatives."""
        block, at = self.owner(7)
        places, blocks, first = self.plexes(many, of_block, 3 * self.pointer)
        around = [0, *places, 0]
        for i, place in enumerate(places, 1):
            self.write(place, around[i + 1], around[i - 1], 0x99)
        total = many if count is None else count
        return self.finish(Made(block, at, [self.vtable, places[0], places[-1], total, 0, first, of_block], blocks))

    def mfc_map(self, many: int, of_block: int = 10, buckets: int = 17, count: int | None = None) -> Made:
        """CMap and its relatives."""
        block, at = self.owner(7)
        places, blocks, first = self.plexes(many, of_block, 4 * self.pointer)
        array = self.heap.busy(buckets * self.pointer)
        used = min(many, buckets - 3)
        for i, place in enumerate(places):
            self.write(place, 5, 6, places[i + used] if i + used < many else 0)
        self.write(array, *places[:used], *[0] * (buckets - used))
        total = many if count is None else count
        return self.finish(Made(block, at, [self.vtable, array, buckets, total, 0, first, of_block], blocks, [array]))
