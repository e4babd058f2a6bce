"""Page heaps as ntdll (XP) and verifier.dll lay them out: handle page, root, nodes, blocks beside guard pages.

Layouts restated by hand: XP and 10 as recorded dumps show them, Vista to 8.1 as published for ntdll (unconfirmed by any
recording). Nothing of the tool under test is imported.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

from .memory_image import PAGE, MemoryImage
from .nt_heap_layout import HeapArch
from .nt_heap_truth import Region

PageGeneration = Literal["xp", "vista", "ten"]
_STAMPS = {
    "busy": (0xABCDBBBB, 0xDCBABBBB),
    "light busy": (0xABCDAAAA, 0xDCBAAAAA),
    "light freed": (0xABCDAAA9, 0xDCBAAAA9),
}


@dataclass(frozen=True)
class PageBlockTruth:
    """One block: what the program got, asked for, its virtual block, its guard page, its trace record."""

    user: int
    size: int
    state: str
    virtual: int
    virtual_size: int
    guard: int
    node: int
    trace: int
    thread: int


@dataclass(frozen=True)
class PageHeapTruth:
    """The page heap: `address` its handle."""

    arch: HeapArch
    address: int
    blocks: tuple[PageBlockTruth, ...]


@dataclass(frozen=True)
class BuiltPageHeap:
    """Committed memory, regions and truth, as `ProcessBuilder.heap` takes them."""

    memory: tuple[tuple[int, bytes], ...]
    zeros: tuple[tuple[int, int], ...]
    regions: tuple[Region, ...]
    truth: PageHeapTruth


class PageHeapBuilder:
    """A page heap in the making, in one reservation of `reserve` bytes at `base`.

    `room`: bytes for the heap's own structures; nodes fit in all but 0x12000 of them.
    """

    def __init__(self, base: int, *, arch: HeapArch = "x64", generation: PageGeneration = "ten", reserve: int = 0x400000,
                 normal_heap: int = 0, flags: int = 0x1002, extra_flags: int = 3, room: int = 0x30000) -> None:  # fmt: skip
        self.base, self.arch, self.generation, self.reserve = base, arch, generation, reserve
        self.wide = arch == "x64"
        self.pointer = 8 if self.wide else 4
        self.information = 8 * self.pointer
        self.granule = 2 * self.pointer
        self._normal_heap, self._flags, self._extra = normal_heap, flags, extra_flags
        self._blocks: list[PageBlockTruth] = []
        self._nodes = base + 0x2000
        self._traces, self._room = base + room - 0x10000, room
        self._next_node, self._next_trace, self._next_block = self._nodes, self._traces, base + room
        self._image = MemoryImage(self.pointer)
        self._image.commit(base, room)
        self._committed: list[tuple[int, int]] = []
        self._inaccessible: list[tuple[int, int]] = []

    @property
    def node_size(self) -> int:
        """Bytes of a node."""
        return {"xp": 0x28, "vista": 0x80 if self.wide else 0x40, "ten": 0x68 if self.wide else 0x34}[self.generation]

    def trace(self, *frames: int) -> int:
        """Writes the record of a stack; its address."""
        at = self._next_trace
        packed = struct.pack(f"<{len(frames)}{'Q' if self.wide else 'I'}", *frames)
        if self.generation == "xp":  # RTL_TRACE_BLOCK
            self._image.u32(at, 0xABCDAAAA, 1, len(frames), 0, 0, 0, 0, at + 0x20)
            self._image.write(at + 0x20, packed)
        else:  # _RTL_STACK_TRACE_ENTRY
            place = 0x10 if self.wide else 0xC
            self._image.u32(at + self.pointer, 0x801)
            self._image.u16(at + place - 2, len(frames))
            self._image.write(at + place, packed)
        self._next_trace += 0x20 + -(-len(packed) // 16) * 16
        return at

    def block(self, size: int, *, state: str = "busy", trace: int = 0, thread: int = 0, backward: bool = False,
              aligned: bool = True, fill: bytes = b"", is_in_dump: bool = True) -> int:  # fmt: skip
        """Adds a block with pages of its own, `busy` or `freed`; what the program got.

        `is_in_dump`: False for a busy block whose pages the dump lacks.
        """
        rounded = -(-size // self.granule) * self.granule if aligned else size
        head = 0 if backward else self.information
        data_size = -(-(rounded + head) // PAGE) * PAGE
        virtual, whole = self._next_block, data_size + PAGE
        self._next_block += whole
        data, guard = (virtual + PAGE, virtual) if backward else (virtual, virtual + data_size)
        user = data if backward else guard - rounded
        if state == "busy":
            self._committed.append((data, data_size))
        if state == "busy" and is_in_dump:
            self._image.commit(data, data_size)
            self._image.write(user, fill[:size])
            end = data + data_size
            self._image.write(user + size, b"\xd0" * (end - user - size))
            if not backward:
                self._image.write(user - self.information, self._header("busy", size, data_size, trace))
        if state != "busy":
            self._inaccessible.append((data, data_size))
        self._inaccessible.append((guard, PAGE))
        node = self._next_node
        self._next_node += self.node_size
        self._blocks.append(PageBlockTruth(user, size, state, virtual, whole, guard, node, trace, thread))
        return user

    def light(self, size: int, *, state: str = "light busy", trace: int = 0, fill: bytes = b"") -> bytes:
        """What a block of the ordinary heap contains whose user asked for `size` bytes in light mode."""
        data = b"\xf0" * size if state == "light freed" else fill[:size].ljust(size, b"\xe0")
        return self._header(state, size, size + self.information + self.granule, trace) + data + b"\xa0" * self.granule

    def _header(self, state: str, size: int, actual: int, trace: int) -> bytes:
        first, last = _STAMPS[state]
        root = self.base + PAGE | (1 << 8 * self.pointer - 1 if state.startswith("light") else 0)
        if self.wide:
            return struct.pack("<IIQQQQQQII", first, 0, root, size, actual, 0, 0, trace, 0, last)
        return struct.pack("<IIIIIIII", first, root, size, actual, 0, 0, trace, last)

    def build(self) -> BuiltPageHeap:
        """Writes handle page, root, nodes and lists."""
        self._image.write(self.base, b"\xee" * PAGE)
        busy = sorted((b for b in self._blocks if b.state == "busy"), key=lambda b: b.user)
        freed = [b for b in self._blocks if b.state != "busy"]
        for block in self._blocks:
            self._node(block)
        storage = self._next_node
        self._storage(storage)
        self._root(busy, freed, storage)
        for chain in (freed, busy if self.generation == "xp" else []):
            for one, following in zip(chain, [*chain[1:], None], strict=False):
                self._image.word(one.node, following.node if following else 0)
        truth = PageHeapTruth(self.arch, self.base, tuple(self._blocks))
        return BuiltPageHeap(self._image.pieces(), (), tuple(self._regions()), truth)

    def _node(self, block: PageBlockTruth) -> None:
        image, at = self._image, block.node
        if self.generation == "xp":
            image.u32(at + 4, block.virtual, block.virtual_size, block.virtual_size - PAGE, block.user, block.size)
            image.u32(at + 0x24, block.trace)
            return
        p = self.pointer
        image.word(at + 4 * p, block.user, block.virtual, block.virtual_size)
        image.word(at + 8 * p, block.size)
        image.word(at + 12 * p, block.trace)
        if self.generation == "ten":
            image.u32(at + 7 * p, 0x20 if block.state == "busy" else 4)
            image.u32(at + (0x5C if self.wide else 0x2C), block.thread)
        else:
            image.word(at + 7 * p, block.virtual_size - PAGE)

    def _storage(self, node: int) -> None:
        """The node of the one reservation."""
        if self.generation == "xp":
            self._image.u32(node, 0, self.base, self.reserve)
        else:
            self._image.word(node + 5 * self.pointer, self.base, self.reserve)

    def _root(self, busy: list[PageBlockTruth], freed: list[PageBlockTruth], storage: int) -> None:
        image, root = self._image, self.base + PAGE
        image.u32(root, 0xFFEEDDCC, self._flags)
        if self.generation == "xp":
            image.u32(root + 0x10, storage, storage)
            image.u32(root + 0x20, busy[0].node if busy else 0, busy[-1].node if busy else 0, len(busy))
            image.u32(root + 0x30, freed[0].node if freed else 0, freed[-1].node if freed else 0, len(freed))
            image.u32(root + 0x80, self._extra, 0, self._normal_heap)
            return
        wide = self.wide
        head = root + (0x18 if wide else 0x10)
        if self.generation == "ten":
            image.ring(head, [storage])
        else:
            image.word(head, storage, storage)
        table = root + (0x38 if wide else 0x20)
        image.word(table, table, 0, self._tree(busy, table))
        image.u32(table + (0x2C if wide else 0x18), len(busy))
        image.u32(root + (0xA8 if wide else 0x5C), len(busy))
        image.word(root + (0xB8 if wide else 0x64), freed[0].node if freed else 0, freed[-1].node if freed else 0)
        count = {"ten": 0xD8 if wide else 0x74, "vista": 0xC8 if wide else 0x6C}[self.generation]
        image.u32(root + count, len(freed))
        lists = root + (0x138 if wide else 0xA4)
        image.word(lists, lists, lists)
        image.u32(root + (0x148 if wide else 0xAC), self._extra)
        image.word(root + (0x150 if wide else 0xB4), self._normal_heap)

    def _tree(self, blocks: list[PageBlockTruth], parent: int) -> int:
        """A balanced tree of the blocks; the node at its root."""
        if not blocks:
            return 0
        middle = len(blocks) // 2
        node = blocks[middle].node
        self._image.word(node, parent, self._tree(blocks[:middle], node), self._tree(blocks[middle + 1 :], node))
        return node

    def _regions(self) -> list[Region]:
        base, kind = self.base, "MEM_PRIVATE"
        out: list[Region] = [(base, self._room, "MEM_COMMIT", kind, 0x04, base)]
        out += [(start, size, "MEM_COMMIT", kind, 0x04, base) for start, size in self._committed]
        out += [(start, size, "MEM_COMMIT", kind, 0x01, base) for start, size in self._inaccessible]
        rest = base + self.reserve - self._next_block
        if rest > 0:
            out.append((self._next_block, rest, "MEM_RESERVE", kind, 0, base))
        return sorted(out)
