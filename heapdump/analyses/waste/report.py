"""What could be saved, one row for each place, the largest saving first.

In: the block table, types, containers. Out: `Saving`. Savings of different kinds can concern the same bytes: they are
not added up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.types.members import Container, ContainerTable
from heapdump.analyses.types.typing import BlockTyping
from heapdump.analyses.waste.allocator import Overhead, free_blocks, padding, sparse_subsegments
from heapdump.analyses.waste.by_type import copies_by_type, padding_by_type, types_of_rows
from heapdump.analyses.waste.duplicates import Copies, find_copies
from heapdump.analyses.waste.savings import IS_ADDRESS_SPACE, SAMPLES, Saving, WasteContext, WasteKind, heaviest
from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import HeapKind
from heapdump.kernels.row import BUSY, INTERNAL
from heapdump.trust import Trust
from heapdump.wording import plural, short_size


def find_waste(context: WasteContext, kinds: Sequence[WasteKind]) -> list[Saving]:
    """The savings of these kinds, most bytes first."""
    table = context.table
    busy = np.flatnonzero(table.tags & np.uint16(BUSY | INTERNAL) == BUSY)
    found: list[Saving] = []
    if WasteKind.DUPLICATES in kinds or WasteKind.ZEROS in kinds:
        rows = busy[table.sizes(busy) >= context.least]
        copies = find_copies(context.space, table, rows)
        found += copies_by_type(context, copies) if context.by_type else _duplicates(context, copies)
    if WasteKind.CAPACITY in kinds:
        found += _capacity(context)
    if context.by_type and WasteKind.PADDING in kinds:
        found += padding_by_type(context, busy)
    elif not context.by_type:
        found += [_of_heap(WasteKind.PADDING, one) for one in padding(context.heaps, table, busy)]
    found += [_of_heap(WasteKind.SPARSE, one) for one in sparse_subsegments(context.heaps, table)]
    found += [_of_heap(WasteKind.FREE, one) for one in free_blocks(context.heaps, table)]
    found += _reserves(context.heaps)
    found = [one for one in found if one.kind in kinds and one.bytes > 0]
    return sorted(found, key=lambda one: (one.kind in IS_ADDRESS_SPACE, -one.bytes, one.kind, one.text))


def _duplicates(context: WasteContext, copies: Sequence[Copies]) -> Iterator[Saving]:
    """Groups of equal blocks; of each the type of the first one."""
    types = types_of_rows(context, [one.rows[0] for one in copies])
    for one, type_ in zip(copies, types, strict=True):
        sample = one.rows[:SAMPLES]
        if one.size is None:
            text = f"{plural(len(one.rows), 'block')} of {context.least:,} bytes or more that hold only zeros"
            yield Saving(WasteKind.ZEROS, one.saved, one.bytes, len(one.rows), text, sample)
            continue
        text = f"{len(one.rows):,} copies of the same {plural(one.size, 'byte')}{f': {type_}' if type_ else ''}"
        yield Saving(WasteKind.DUPLICATES, one.saved, one.bytes, len(one.rows), text, sample, type=type_)


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
            heaviest(rows[here], found.capacity[here] - found.used[here]), None, Trust.GUESS,
            container=Container(int(found.kind[here[0]])).words,
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


def _of_heap(kind: WasteKind, one: Overhead) -> Saving:
    words = {
        WasteKind.PADDING: f"headers and rounding of {plural(one.count, 'busy block')}",
        WasteKind.SPARSE: f"{plural(one.count, 'LFH subsegment')} of which less than half is in use",
        WasteKind.FREE: f"{plural(one.count, 'free block')} outside of subsegments"
        if one.heap.kind != HeapKind.PAGE
        else f"{plural(one.count, 'freed block')} that page heap keeps",
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
