"""What a comparison keeps of one dump: everything but its blocks.

That is little, so that the blocks of one dump at a time are in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heapdump.analyses.compare.groups import Groups
from heapdump.analyses.compare.heaps import HeapKey, HeapNumbers, heap_numbers
from heapdump.analyses.graph.unreachable_report import BlockSum
from heapdump.analyses.memory.address_limit import AddressLimit
from heapdump.analyses.memory.free_runs import FreeSpace, free_runs, free_space
from heapdump.analyses.memory.reconciliation import reconcile
from heapdump.analyses.memory.usage import FREE, UsageMap
from heapdump.blocks.crt_blocks import CrtBlocks
from heapdump.blocks.heap import Heap
from heapdump.blocks.walk import Walk
from heapdump.memory.regions import Kind, State
from heapdump.process.model import Process

Counters = dict[str, int | None]
"""Name of a counter → its value; None where the dump does not tell."""


@dataclass(frozen=True, slots=True)
class CrtRequests:
    """The allocation numbers of the CRT's debug heap in one dump.

    Attributes:
        last: the highest number.
        new_blocks: busy blocks with numbers above the highest one of the first dump; 0 in that dump itself.
        new_bytes: requested bytes of these.
    """

    last: int
    new_blocks: int
    new_bytes: int


def crt_requests(blocks: CrtBlocks, before: int | None) -> CrtRequests | None:
    """The allocation numbers of one dump; `before`: the highest one of the first dump, None in that dump.

    None without blocks of the CRT's debug heap.
    """
    if not len(blocks):
        return None
    is_new = np.zeros(len(blocks), bool) if before is None else blocks.request > before
    return CrtRequests(int(blocks.request.max()), int(is_new.sum()), int(blocks.size[is_new].sum()))


@dataclass(frozen=True, slots=True)
class DumpFacts:
    """The facts of one dump.

    Attributes:
        process: the process.
        time: seconds since 1970 by the header of the dump; None where that is 0.
        usage_map: its memory map with usages.
        counters: counter → value.
        usage: usage → committed and reserved bytes.
        items: item of the reconciliation → committed bytes.
        limit: end of the address space.
        free: free runs in numbers; None without a complete memory map.
        heaps: numbers of each heap, by its comparable key.
        groups: groups of busy blocks, by comparable key.
        busy_bytes: requested bytes of the program's busy blocks.
        busy_blocks: number of these.
        overhead_bytes: bytes of busy entries that were not requested.
        unreachable: sum of the unreachable blocks; None where it was not asked for.
        crt: None unless blocks are grouped by source and some are of the CRT's debug heap.
        gaps: why blocks may be missing.
    """

    process: Process
    time: int | None
    usage_map: UsageMap
    counters: Counters
    usage: dict[str, int]
    items: dict[str, int]
    limit: AddressLimit
    free: FreeSpace | None
    heaps: dict[HeapKey, HeapNumbers]
    groups: Groups
    busy_bytes: int
    busy_blocks: int
    overhead_bytes: int
    unreachable: BlockSum | None
    crt: CrtRequests | None
    gaps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WalkedDump:
    """One dump while its blocks are in memory. `handles`: number of open handles, None where it is not known."""

    process: Process
    time: int | None
    usage: UsageMap
    heaps: Sequence[Heap]
    walk: Walk
    handles: int | None
    limit: AddressLimit


@dataclass(frozen=True, slots=True)
class Extras:
    """Facts that are not always asked for, as in `DumpFacts`."""

    unreachable: BlockSum | None
    crt: CrtRequests | None
    gaps: tuple[str, ...]


def facts_of(
    dump: WalkedDump,
    keys: Sequence[HeapKey],
    groups: Groups,
    extras: Extras,
) -> DumpFacts:
    """The facts of a dump. `keys`: of its heaps in their order."""
    counts = dump.walk.counts
    runs = free_runs(dump.process.regions, dump.limit.end)
    busy_blocks = sum(count.busy_blocks for count in counts.values())
    busy_bytes = sum(count.busy_bytes for count in counts.values())
    return DumpFacts(
        dump.process,
        dump.time,
        dump.usage,
        _counters(dump, busy_blocks, busy_bytes),
        _usage(dump.usage),
        {line.words: line.bytes for line in reconcile(dump.usage, dump.heaps, dump.walk)},
        dump.limit,
        free_space(runs) if dump.process.regions.is_complete_map else None,
        {key: heap_numbers(heap, counts.get(heap.index)) for key, heap in zip(keys, dump.heaps, strict=True)},
        groups,
        busy_bytes,
        busy_blocks,
        _overhead(dump.walk),
        extras.unreachable,
        extras.crt,
        extras.gaps,
    )


def _overhead(walk: Walk) -> int:
    """Bytes of busy entries that the program did not ask for: headers and padding."""
    by_kind = (kind for count in walk.counts.values() for kind in count.kinds)
    return sum(kind.busy_entry_bytes - kind.busy_bytes for kind in by_kind)


def _counters(dump: WalkedDump, busy_blocks: int, busy_bytes: int) -> Counters:
    """The counters in the order of reports."""
    table = dump.process.regions
    committed, private = table.state == State.MEM_COMMIT, table.type == Kind.MEM_PRIVATE
    is_known, counted = table.is_complete_map, dump.process.counters
    by_windows = counted.private if counted else None
    return {
        "private_bytes": int(table.size[committed & private].sum()) if is_known else by_windows,
        "committed_bytes": int(table.size[committed].sum()),
        "reserved_bytes": int(table.size[table.state == State.MEM_RESERVE].sum()) if is_known else None,
        "busy_bytes": busy_bytes,
        "busy_blocks": busy_blocks,
        "heaps": len(dump.heaps),
        "threads": len(dump.process.threads),
        "modules": len(dump.process.modules),
        "handles": dump.handles,
        "working_set_bytes": counted.working_set if counted else None,
    }


def _usage(usage: UsageMap) -> dict[str, int]:
    """Bytes by usage, without free memory."""
    totals = np.bincount(usage.codes, minlength=len(usage.names))
    sizes = usage.table.size
    return {
        name: int(sizes[usage.codes == code].sum())
        for code, name in enumerate(usage.names)
        if totals[code] and name != FREE
    }
