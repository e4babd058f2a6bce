"""The records of waste: a saving, its kinds, and what they are searched in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.types.members import ContainerTable
from heapdump.analyses.types.typing import BlockTyping
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import BlockTable
from heapdump.memory.space import AddressSpace
from heapdump.trust import Trust

SAMPLES = 5


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
        type: of the blocks; "" where they have none in common.
        container: name of the containers, for unused capacity; else "".
    """

    kind: WasteKind
    bytes: int
    of_bytes: int
    count: int
    text: str
    sample: tuple[int, ...] = ()
    heap: Heap | None = None
    trust: Trust = Trust.EXACT
    type: str = ""
    container: str = ""


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
        by_type: True for padding and zeros of each type of blocks, not of each heap; copies of one type are one saving.
    """

    space: AddressSpace
    heaps: tuple[Heap, ...]
    table: BlockTable
    graph: Callable[[], PointerGraph]
    typing: Callable[[], BlockTyping]
    containers: Callable[[], ContainerTable]
    least: int
    by_type: bool = False


def heaviest(rows: NDArray[np.int64], weight: NDArray[np.int64]) -> tuple[int, ...]:
    """The rows with most weight, at most five."""
    return tuple(rows[np.argsort(-weight, kind="stable")[:SAMPLES]].tolist())
