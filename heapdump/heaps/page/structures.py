"""Reads members of many structures of a page heap at once, and computes the address of its root."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.allocator import PAGE
from heapdump.layouts import Struct
from heapdump.memory.structures import StructureArrays
from heapdump.process.model import View


def root_of(heap: int) -> int:
    """The address of the root of the page heap with handle `heap` (docs/reference/heap-structures.md §5.3)."""
    return heap + PAGE


def light_heap_member(view: View, heap: int) -> int:
    """The value of _DPH_BLOCK_INFORMATION.Heap of a light block: the root's address with the top bit set (§5.1)."""
    return root_of(heap) | 1 << 8 * view.pointer_bytes - 1


def members(view: View, struct: Struct, addresses: NDArray[np.uint64], name: str) -> NDArray[np.uint64]:
    """(n,) uint64 values of a member of the structures at these addresses; 0 where it is not in the dump."""
    return members_of(view, struct, StructureArrays(view.space.mapped, addresses, struct.size), name)


def members_of(view: View, struct: Struct, found: StructureArrays, name: str) -> NDArray[np.uint64]:
    """`members` of structures that were looked for before."""
    field = struct.fields[name]
    return found.member(field.offset, {"u32": 4, "u64": 8}.get(field.type, view.pointer_bytes))[0]
