"""The classes of VMMap, for the memory of a dump: Image, Mapped File, Shareable, Heap, Stack, Private Data and others.

A dump holds the memory map but not the names of mapped files. Mapped memory is therefore `Mapped File or Shareable`,
except where its first bytes are those of a known kind of file. Page tables belong to the kernel, and no user-mode dump
counts them.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.memory.items import Item
from heapdump.analyses.memory.usage import UsageKind, UsageMap
from heapdump.memory.regions import Kind, State

GRANULARITY = 0x10000


class MemoryClass(StrEnum):
    """A class of memory as VMMap names it, in VMMap's order; the last two are those of dumps alone."""

    IMAGE = "Image"
    MAPPED_FILE = "Mapped File"
    SHAREABLE = "Shareable"
    HEAP = "Heap"
    MANAGED_HEAP = "Managed Heap"
    STACK = "Stack"
    PRIVATE = "Private Data"
    PAGE_TABLE = "Page Table"
    UNUSABLE = "Unusable"
    FREE = "Free"
    MAPPED = "Mapped File or Shareable"
    UNKNOWN = "Unknown"

    @property
    def number(self) -> int:
        """The index in the order of the classes, from 0 on."""
        return list(MemoryClass).index(self)

    @property
    def is_used(self) -> bool:
        """False for addresses that nothing occupies."""
        return self not in (MemoryClass.FREE, MemoryClass.UNUSABLE)


_OF_USAGE = {
    UsageKind.IMAGE: MemoryClass.IMAGE,
    UsageKind.HEAP: MemoryClass.HEAP,
    UsageKind.PAGE_HEAP: MemoryClass.HEAP,
    UsageKind.STACK: MemoryClass.STACK,
    UsageKind.FREE: MemoryClass.FREE,
    UsageKind.ASAN_SHADOW: MemoryClass.PRIVATE,
    UsageKind.PEB: MemoryClass.PRIVATE,
    UsageKind.TEB: MemoryClass.PRIVATE,
}
_OF_TYPE = {
    Kind.MEM_IMAGE: MemoryClass.IMAGE,
    Kind.MEM_MAPPED: MemoryClass.MAPPED,
    Kind.MEM_PRIVATE: MemoryClass.PRIVATE,
}
_MANAGED = {Item.MANAGED_HEAP, Item.COLLECTOR}


def classes_of(usage: UsageMap) -> NDArray[np.int64]:
    """The number of the class of each region of the map; (n,) int64."""
    table = usage.table
    out = np.full(len(table), MemoryClass.UNKNOWN.number, np.int64)
    for kind, found in _OF_TYPE.items():
        out[table.type == kind] = found.number
    out[_mapped_files(usage)] = MemoryClass.MAPPED_FILE.number
    managed = np.array(
        [Item(claim.item) in _MANAGED if claim.item else False for claim in table.claims] + [False], bool
    )
    out[managed[table.claim]] = MemoryClass.MANAGED_HEAP.number
    for code in range(len(usage.names)):
        by_usage = _OF_USAGE.get(usage.kind(code))
        if by_usage is not None:
            out[usage.codes == code] = by_usage.number
    return out


def _mapped_files(usage: UsageMap) -> NDArray[np.int64]:
    """Rows of mapped memory that was recognised by its first bytes.

    The bitmap of Control Flow Guard is recognised too, by its size; nothing is committed where it begins.
    """
    table, space = usage.table, usage.process.space
    owned = np.array([bool(claim.owner) for claim in table.claims] + [False], bool)[table.claim]
    mapped = (table.type == Kind.MEM_MAPPED) & owned
    bases = np.unique(table.allocation_base[mapped])
    files = [base for base in bases.tolist() if space.try_read(base, 2) is not None]
    return np.flatnonzero(mapped & np.isin(table.allocation_base, np.array(files, np.uint64)))


def unusable_bytes(usage: UsageMap) -> NDArray[np.uint64]:
    """Bytes of each free region that VirtualAlloc cannot hand out; (n,) uint64, 0 for regions that are not free.

    Reservations begin at multiples of 64 KiB. What lies below the first one in a free region stays unused, and so do
    the lowest 64 KiB.
    """
    table, step = usage.table, np.uint64(GRANULARITY)
    first = np.maximum(table.start + (step - table.start % step) % step, step)
    is_free = table.state == State.MEM_FREE
    wraps = first < table.start
    return np.where(is_free, np.minimum(np.where(wraps, table.end, first), table.end) - table.start, np.uint64(0))
