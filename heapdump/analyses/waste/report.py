"""What could be saved, one row for each place, the largest saving first.

In: the block table, types, containers. Out: `Saving`. Savings of different kinds can concern the same bytes: they are
not added up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.types.members import Container, ContainerTable
from heapdump.analyses.types.typing import BlockTyping
from heapdump.analyses.waste.allocator import Overhead, free_blocks, padding, sparse_subsegments
from heapdump.analyses.waste.duplicates import Copies, find_copies
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import BlockTable
from heapdump.kernels.row import BUSY, INTERNAL
from heapdump.memory.space import AddressSpace
from heapdump.trust import Trust
from heapdump.wording import plural, short_size

_SAMPLES = 5


class WasteKind(StrEnum):
    """A kind of waste; its value is the word of the JSON and of `--kind`."""

    DUPLICATES = "duplicates"
    ZEROS = "zeros"
    CAPACITY = "capacity"
    PADDING = "padding"
    SPARSE = "sparse"
    FREE = "free"
    RESERVE = "reserve"


IS_ADDRESS_SPACE = (WasteKind.RESERVE,)
"""Kinds that cost address space and no memory."""


@dataclass(frozen=True, slots=True)
class Saving:
    """Memory that could be saved.

    Attributes:
        kind: kind of waste.
        bytes: bytes that could be saved.
        of_bytes: bytes of all the blocks, containers or subsegments concerned.
        count: number of these.
        text: the case, in words.
        sample: rows of the block table, at most five.
        heap: the heap, for waste of the allocator itself; else None.
        trust: in the numbers.
    """

    kind: WasteKind
    bytes: int
    of_bytes: int
    count: int
    text: str
    sample: tuple[int, ...] = ()
    heap: Heap | None = None
    trust: Trust = Trust.EXACT


@dataclass(frozen=True)
class WasteContext:
    """The facts of the dump that waste is searched in.

    Attributes:
        space: the memory.
        heaps: the heaps.
        table: the block table.
        graph: gives the pointer graph; called only for kinds of waste that need it.
        typing: gives the types of blocks; likewise.
        containers: gives the containers; likewise.
        least: blocks with fewer bytes are not compared with each other.
    """

    space: AddressSpace
    heaps: tuple[Heap, ...]
    table: BlockTable
    graph: Callable[[], PointerGraph]
    typing: Callable[[], BlockTyping]
    containers: Callable[[], ContainerTable]
    least: int


def find_waste(context: WasteContext, kinds: Sequence[WasteKind]) -> list[Saving]:
    """The savings of these kinds, most bytes first."""
    table = context.table
    busy = np.flatnonzero(table.tags & np.uint16(BUSY | INTERNAL) == BUSY)
    found: list[Saving] = []
    if WasteKind.DUPLICATES in kinds or WasteKind.ZEROS in kinds:
        rows = busy[table.sizes(busy) >= context.least]
        found += _duplicates(context, find_copies(context.space, table, rows))
    if WasteKind.CAPACITY in kinds:
        found += _capacity(context)
    found += [_of_heap(WasteKind.PADDING, one) for one in padding(context.heaps, table, busy)]
    found += [_of_heap(WasteKind.SPARSE, one) for one in sparse_subsegments(context.heaps, table)]
    found += [_of_heap(WasteKind.FREE, one) for one in free_blocks(context.heaps, table)]
    found += _reserves(context.heaps)
    found = [one for one in found if one.kind in kinds and one.bytes > 0]
    return sorted(found, key=lambda one: (one.kind in IS_ADDRESS_SPACE, -one.bytes, one.kind, one.text))


def _duplicates(context: WasteContext, copies: Sequence[Copies]) -> Iterator[Saving]:
    """Groups of equal blocks; of each the type of the first one."""
    for one in copies:
        sample = one.rows[:_SAMPLES]
        if one.size is None:
            text = f"{plural(len(one.rows), 'block')} of {context.least:,} bytes or more that hold only zeros"
            yield Saving(WasteKind.ZEROS, one.saved, one.bytes, len(one.rows), text, sample)
            continue
        text = f"{len(one.rows):,} copies of the same {plural(one.size, 'byte')}"
        yield Saving(WasteKind.DUPLICATES, one.saved, one.bytes, len(one.rows), text, sample)


def _capacity(context: WasteContext) -> Iterator[Saving]:
    """Unused capacity of containers, by what the containers are members of."""
    found = context.containers()
    if not len(found):
        return
    graph, typing = context.graph(), context.typing()
    rows = graph.rows[found.buffer].astype(np.int64)
    label = typing.of_rows(rows)
    for number in np.unique(label).tolist():
        here = np.flatnonzero(label == number)
        used, of_bytes = int(found.used[here].sum()), int(found.capacity[here].sum())
        yield Saving(
            WasteKind.CAPACITY, of_bytes - used, of_bytes, len(here),
            _capacity_words(typing, number, found, here, of_bytes - used),
            _sample(rows[here], found.capacity[here] - found.used[here]), None, Trust.GUESS,
        )  # fmt: skip


def _capacity_words(
    typing: BlockTyping, number: int, found: ContainerTable, here: NDArray[np.int64], unused: int
) -> str:
    """`120 of a std::vector at +24 of class Foo: 41 % of 3.1 GB is unused capacity`."""
    label = typing.labels[number].label if number < len(typing.labels) else ""
    kind = Container(int(found.kind[here[0]])).words
    member = label.removeprefix("buffer of ") if label.startswith("buffer of ") else f"a {kind} with {label}"
    of_bytes = int(found.capacity[here].sum())
    return f"{len(here):,} × {member}: {unused / max(1, of_bytes):.0%} of {short_size(of_bytes)} is unused capacity"


def _sample(rows: NDArray[np.int64], weight: NDArray[np.int64]) -> tuple[int, ...]:
    """The rows with most weight, at most five."""
    return tuple(rows[np.argsort(-weight, kind="stable")[:_SAMPLES]].tolist())


def _of_heap(kind: WasteKind, one: Overhead) -> Saving:
    words = {
        WasteKind.PADDING: f"headers and rounding of {plural(one.count, 'busy block')}",
        WasteKind.SPARSE: f"{plural(one.count, 'LFH subsegment')} of which less than half is in use",
        WasteKind.FREE: f"{plural(one.count, 'free block')} outside of subsegments",
    }
    text = f"heap {one.heap.address:#x}: {words[kind]}"
    return Saving(kind, one.bytes, one.of_bytes, one.count, text, (), one.heap)


def _reserves(heaps: Sequence[Heap]) -> Iterator[Saving]:
    """Reserved and not committed memory of heaps."""
    for heap in heaps:
        if heap.reserved_bytes is not None and heap.committed_bytes is not None:
            left = max(0, heap.reserved_bytes - heap.committed_bytes)
            text = f"heap {heap.address:#x}: address space that is reserved and not committed"
            yield Saving(WasteKind.RESERVE, left, heap.reserved_bytes, len(heap.segments), text, (), heap)
