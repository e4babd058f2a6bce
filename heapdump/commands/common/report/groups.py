"""Busy blocks in groups, by allocation stack or by type: the leaves of the treemap, and the icicle graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from heapdump.commands.common.graph_overview import group_rows
from heapdump.render.report.content import ReportFrame

if TYPE_CHECKING:
    from heapdump.analyses.allocated.leaks import LeakGroup, Leaks
    from heapdump.analyses.memory.memory_tree import MemoryNode
    from heapdump.commands.common.request import Request
    from heapdump.snapshot import Snapshot

FREE_BLOCKS, OVERHEAD, RESERVED = "free blocks", "headers, padding and other structures", "reserved"
_MOST_FRAMES, _LEAST_SHARE = 2500, 5000
"""Boxes of the icicle graph; one of less than this part of all bytes is left out."""


@dataclass(frozen=True, slots=True)
class HeapPart:
    """Blocks of a group in one heap, or other bytes of the heap.

    Attributes:
        committed: committed bytes.
        size: committed and reserved bytes.
        css: class of the style sheet; "" for busy blocks.
        command: words behind `heapdump`, without the dump.
    """

    committed: int
    size: int
    css: str
    command: tuple[str, ...]


class GroupedBlocks:
    """The busy blocks of one dump in groups, each byte once."""

    def __init__(self, request: Request, snapshot: Snapshot) -> None:
        """Groups on demand."""
        self._request, self._snapshot = request, snapshot

    @cached_property
    def leaks(self) -> Leaks:
        """All groups, most bytes first."""
        return group_rows(self._request, self._snapshot, None)

    @cached_property
    def _labels(self) -> dict[int, LeakGroup]:
        return {found.group.value: found for found in self.leaks.groups}

    @cached_property
    def _by_heap(self) -> dict[int, dict[int, tuple[int, int]]]:
        """Index of a heap → value of a group → (bytes, number) of its blocks there."""
        leaks, table = self.leaks, self._snapshot.walk.table
        width = int(leaks.values.max()) + 1 if len(leaks.values) else 1
        keys = table.heap[leaks.rows].astype(np.int64) * width + leaks.values
        found, places = np.unique(keys, return_inverse=True)
        totals = np.zeros(len(found), np.int64)
        np.add.at(totals, places, table.sizes(leaks.rows).astype(np.int64))
        counts = np.bincount(places, minlength=len(found))
        out: dict[int, dict[int, tuple[int, int]]] = {}
        for key, size, count in zip(found.tolist(), totals.tolist(), counts.tolist(), strict=True):
            out.setdefault(key // width, {})[key % width] = size, count
        return out

    def of_heap(self, node: MemoryNode) -> dict[str, HeapPart]:
        """Name → bytes of a part of the heap; empty where the block table and the memory map contradict each other."""
        index = node.heap if node.heap is not None else -1
        count = self._snapshot.walk.counts.get(index)
        groups = self._by_heap.get(index, {})
        busy = sum(size for size, _ in groups.values())
        if count is None or busy > node.committed_bytes:
            return {}
        rest = node.committed_bytes - busy
        free = min(rest, max(0, count.free_bytes + count.lfh_free_bytes - count.uncommitted_free_bytes))
        heap = ("heap", f"{self._snapshot.heaps[index].address:#x}")
        out = {self._labels[value].key: self._group(value, size) for value, (size, _) in groups.items()}
        out[FREE_BLOCKS] = HeapPart(free, free, "cf", heap)
        out[OVERHEAD] = HeapPart(rest - free, rest - free, "co", heap)
        out[RESERVED] = HeapPart(0, node.bytes - node.committed_bytes, "co", heap)
        return {name: part for name, part in out.items() if part.size}

    def boxes(self, found: LeakGroup) -> Iterator[tuple[list[str], int, int]]:
        """(names from the outermost on, bytes, blocks) of a group: its stack, else its key and its heaps."""
        if found.frames:
            yield [str(frame) for frame in reversed(found.frames)], found.group.bytes, found.group.count
            return
        heaps = self._snapshot.heaps
        for index, groups in self._by_heap.items():
            size, blocks = groups.get(found.group.value, (0, 0))
            if blocks:
                yield [found.key, f"heap #{index} {heaps[index].address:#x}"], size, blocks

    def _group(self, value: int, size: int) -> HeapPart:
        return HeapPart(size, size, "", ("block", f"{self._labels[value].group.sample[0]:#x}"))

    def graph(self, old: GroupedBlocks | None) -> ReportFrame:
        """The icicle graph: by stack from the outermost frame on, else by type. `old`: of the older dump."""
        tree = _Node()
        for one, is_new in ((self, True), *(((old, False),) if old else ())):
            for found in one.leaks.groups:
                for names, size, blocks in one.boxes(found):
                    tree.add(names, size, blocks, is_new=is_new)
        least = max(1, self.leaks.bytes // _LEAST_SHARE)
        children = tuple(tree.frames(least, [_MOST_FRAMES], compares=old is not None))
        delta = self.leaks.bytes - old.leaks.bytes if old else None
        return ReportFrame("all busy blocks", self.leaks.bytes, self.leaks.blocks, children, delta)

    @property
    def words(self) -> str:
        """The key of the groups: `stack`, `type`."""
        return self.leaks.by.value


class _Node:
    """A box that is still added to. `old`: its bytes in the older dump."""

    def __init__(self) -> None:
        self.bytes = self.blocks = self.old = 0
        self.children: dict[str, _Node] = {}

    def add(self, names: list[str], size: int, blocks: int, *, is_new: bool) -> None:
        """Adds a stack below this box."""
        node = self
        for name in names:
            node = node.children.setdefault(name, _Node())
            if is_new:
                node.bytes += size
                node.blocks += blocks
            else:
                node.old += size

    def frames(self, least: int, budget: list[int], *, compares: bool) -> Iterator[ReportFrame]:
        """The boxes below, the largest first; of too many small ones the sum."""
        ordered = sorted(self.children.items(), key=lambda item: (-item[1].bytes, item[0]))
        small: list[_Node] = []
        for name, node in ordered:
            if node.bytes < least or budget[0] <= 0:
                small.append(node)
                continue
            budget[0] -= 1
            delta = node.bytes - node.old if compares else None
            below = tuple(node.frames(least, budget, compares=compares))
            yield ReportFrame(name, node.bytes, node.blocks, below, delta)
        if small:
            size, blocks = sum(node.bytes for node in small), sum(node.blocks for node in small)
            delta = size - sum(node.old for node in small) if compares else None
            yield ReportFrame(f"{len(small):,} smaller", size, blocks, (), delta)
