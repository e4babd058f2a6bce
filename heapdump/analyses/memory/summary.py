"""The summary of memory: WinDbg's `!address -summary` tables, and the reconciliation of committed memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.memory.reconciliation import ItemBytes, reconcile
from heapdump.analyses.memory.unknown_memory import OwnerShare, owners_of_unknown
from heapdump.analyses.memory.usage import FREE, UNKNOWN, UsageMap
from heapdump.blocks.heap import Heap
from heapdump.blocks.walk import Walk
from heapdump.memory.regions import Kind, RegionTable, State, known, protection_name
from heapdump.process.image_header import is_large_address_aware
from heapdump.process.model import Process

_GRANULARITY = 0x10000
_NO_TOP, _LARGE_TOP, _SMALL_TOP = (1 << 64) - 1, 0xFFFF0000, 0x7FFF0000
"""Ends of the address space of 32-bit programs on 64-bit Windows: large-address aware ones, and others."""


@dataclass(frozen=True, slots=True)
class Share:
    """One row of a table of `summary`.

    Attributes:
        name: usage, type, state or protection.
        regions: number of touching ranges with the same attributes.
        bytes: bytes of these.
        busy_share: part of all memory that is not free, 0 to 1; None without a complete map.
        total_share: part of the whole map, 0 to 1; None without a complete map.
        committed_bytes: committed bytes; None except in rows of usages.
        reserved_bytes: bytes that are reserved and not committed; None except in rows of usages.
    """

    name: str
    regions: int
    bytes: int
    busy_share: float | None
    total_share: float | None
    committed_bytes: int | None = None
    reserved_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Largest:
    """The largest region of a usage."""

    usage: str
    address: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The tables of `summary`.

    `largest_allocatable`: the largest free run from a 64 KiB boundary on, None without a complete map.
    `explained_share`: of the committed bytes, None where these are not known. `private_bytes`: committed private memory
    by the memory map. `is_whole_process`: the dump has a memory map; else the tables count the memory in the dump.
    `unknown`: the usage `<unknown>` by owner.
    """

    usage: tuple[Share, ...]
    type: tuple[Share, ...]
    state: tuple[Share, ...]
    protect: tuple[Share, ...]
    largest: tuple[Largest, ...]
    largest_allocatable: Largest | None
    reconciliation: tuple[ItemBytes, ...]
    committed_bytes: int
    explained_share: float | None
    private_bytes: int | None
    is_whole_process: bool
    unknown: tuple[OwnerShare, ...] = ()


def summarize(usage: UsageMap, heaps: Sequence[Heap], walk: Walk) -> Summary:
    """The tables of `summary`. The cost grows with the number of regions."""
    table = usage.process.regions
    totals = _Totals(usage)
    reconciliation = reconcile(usage, heaps, walk)
    committed = sum(line.bytes for line in reconciliation)
    unknown = sum(line.bytes for line in reconciliation if not line.item.is_known)
    return Summary(
        usage=_usage_rows(usage, totals),
        type=totals.rows(table.type, table.size, table.state != State.MEM_FREE, _type_name),
        state=totals.rows(table.state, table.size, np.ones(len(table), bool), _state_name),
        protect=totals.rows(table.protect, table.size, table.state == State.MEM_COMMIT, _protect_name),
        largest=_largest(usage),
        largest_allocatable=_allocatable(usage),
        reconciliation=reconciliation,
        committed_bytes=committed,
        explained_share=1 - unknown / committed if committed and table.is_complete_map else None,
        private_bytes=_private_bytes(table) if table.is_complete_map else None,
        is_whole_process=table.is_complete_map,
        unknown=owners_of_unknown(usage),
    )


def _top(process: Process) -> np.uint64:
    """The end of the addresses that the program can use."""
    if not process.is_wow64:
        return np.uint64(_NO_TOP)
    return np.uint64(_LARGE_TOP if is_large_address_aware(process) else _SMALL_TOP)


def _private_bytes(table: RegionTable) -> int:
    return int(table.size[(table.state == State.MEM_COMMIT) & (table.type == Kind.MEM_PRIVATE)].sum())


class _Totals:
    """Bytes of the whole map, and of everything that is not free."""

    def __init__(self, usage: UsageMap) -> None:
        table = usage.process.regions
        self.is_complete = table.is_complete_map
        self.total = int(table.size.sum())
        self.busy = int(table.size[table.state != State.MEM_FREE].sum())

    def share(self, name: str, regions: int, size: int, committed: int | None = None) -> Share:
        """One row."""
        is_free = name in (FREE, State.MEM_FREE.name)
        busy_share = size / self.busy if self.is_complete and self.busy and not is_free else None
        total_share = size / self.total if self.is_complete and self.total else None
        reserved = None if committed is None or not self.is_complete or is_free else size - committed
        return Share(name, regions, size, busy_share, total_share, committed, reserved)

    def rows(
        self, values: NDArray[np.uint32], sizes: NDArray[np.uint64], rows: NDArray[np.bool_], name: Callable[[int], str]
    ) -> tuple[Share, ...]:
        """One row for each distinct value in `rows` of the map, most bytes first."""
        order = np.argsort(values[rows], kind="stable")
        ordered, sizes = values[rows][order], sizes[rows][order]
        if not len(ordered):
            return ()
        firsts = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])
        counts = np.diff(np.append(firsts, len(ordered))).tolist()
        totals = np.add.reduceat(sizes, firsts).tolist()
        out = [
            self.share(name(int(kind)), count, total)
            for kind, count, total in zip(ordered[firsts], counts, totals, strict=True)
        ]
        return tuple(sorted(out, key=lambda row: (-row.bytes, row.name)))


def _state_name(value: int) -> str:
    return known(State, value).name if known(State, value) else UNKNOWN


def _type_name(value: int) -> str:
    return known(Kind, value).name if known(Kind, value) else UNKNOWN


def _protect_name(value: int) -> str:
    return protection_name(value) or UNKNOWN


def _usage_rows(usage: UsageMap, totals: _Totals) -> tuple[Share, ...]:
    """A row for each usage in WinDbg's order: Free first, then by size."""
    table, out = usage.table, []
    is_committed = table.state == State.MEM_COMMIT
    for code, name in enumerate(usage.names):
        rows = usage.codes == code
        if rows.any():
            sizes = table.size
            committed = None if name == FREE else int(sizes[rows & is_committed].sum())
            out.append(totals.share(name, int(rows.sum()), int(sizes[rows].sum()), committed))
    return tuple(sorted(out, key=lambda row: (row.name != FREE, -row.bytes, row.name)))


def _largest(usage: UsageMap) -> tuple[Largest, ...]:
    out, table = [], usage.table
    for code, name in enumerate(usage.names):
        rows = np.flatnonzero(usage.codes == code)
        if len(rows):
            i = int(rows[np.argmax(table.size[rows])])
            out.append(Largest(name, int(table.start[i]), int(table.size[i])))
    return tuple(sorted(out, key=lambda row: (row.usage != FREE, -row.bytes, row.usage)))


def _allocatable(usage: UsageMap) -> Largest | None:
    """The largest run of free memory from a 64 KiB boundary on: VirtualAlloc starts reservations on these.

    Of a WOW64 process the 32-bit part of its memory counts.
    """
    table, top = usage.process.regions, _top(usage.process)
    free = (table.state == State.MEM_FREE) & (table.start < top)
    if not table.is_complete_map or not free.any():
        return None
    step = np.uint64(_GRANULARITY)
    first, end = table.start[free], np.minimum(table.end[free], top)
    gap = (step - first % step) % step  # to the next boundary; there may be none below the top of the address space
    room = np.where(end - first > gap, end - first - np.minimum(gap, end - first), np.uint64(0))
    start = np.where(room > 0, first + np.minimum(gap, end - first), first)
    i = int(np.argmax(room))
    return Largest(FREE, int(start[i]), int(room[i]))
