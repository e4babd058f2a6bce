"""The records of `diff` (interface.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.frames import frame_record
from heapdump.commands.modules import version_words
from heapdump.render.view import Record

if TYPE_CHECKING:
    from heapdump.analyses.compare.difference import Difference, Row
    from heapdump.analyses.compare.facts import DumpFacts
    from heapdump.analyses.compare.filled_gaps import FilledGap
    from heapdump.analyses.compare.groups import ComparedGroup
    from heapdump.analyses.compare.heaps import ComparedHeap, HeapNumbers
    from heapdump.analyses.compare.large_blocks import ComparedLargeBlocks
    from heapdump.analyses.compare.modules import ModuleChange
    from heapdump.analyses.compare.trend import Trend
    from heapdump.analyses.memory.allocations import VirtualAllocation
    from heapdump.process.model import Module


def group_record(group: ComparedGroup) -> Record:
    """The record of a group."""
    return {
        "key": group.label,
        "id": group.id,
        "frames": [frame_record(frame) for frame in group.frames],
        "old_count": group.old.count,
        "new_count": group.new.count,
        "delta_count": group.delta_count,
        "old_bytes": group.old.bytes,
        "new_bytes": group.new.bytes,
        "delta_bytes": group.delta_bytes,
        "values": [{"count": value.count, "bytes": value.bytes} for value in group.values],
        "trend": _group_trend(group),
        "min_size": group.min_size,
        "max_size": group.max_size,
        "sample": [hex(address) for address in group.sample],
        "trust": group.trust.value,
    }


def dump_facts_record(facts: DumpFacts, path: str) -> Record:
    """The record that identifies one of the dumps."""
    process = facts.process
    created = process.misc.create_time if process.misc else None
    return {
        "path": path,
        "time": facts.time,
        "image": process.image,
        "pid": process.pid,
        "create_time": created or None,
        "uptime_seconds": facts.time - created if created and facts.time and facts.time >= created else None,
    }


def difference_record(
    difference: Difference, groups: list[ComparedGroup], paths: list[str], findings: list[str]
) -> Record:
    """The record of the comparison. `groups`: those that are listed; `findings`: the sentences."""
    found, reconciliation = difference.comparability, difference.reconciliation
    unreachable = [facts.unreachable for facts in difference.dumps]
    return {
        "same_process": found.is_same_process,
        "relation": found.relation.value,
        "equal": [witness.value for witness in found.equal],
        "different": [witness.value for witness in found.different],
        "seconds": difference.seconds,
        "dumps": [dump_facts_record(facts, path) for facts, path in zip(difference.dumps, paths, strict=True)],
        "findings": findings,
        "counters": [row_record(row) for row in difference.counters],
        "usage": [row_record(row) for row in difference.usage],
        "items": [row_record(row) for row in difference.items],
        "address_space": [row_record(row) for row in difference.address_space],
        "gaps": [_gap_record(gap) for gap in difference.gaps],
        "modules": [_change_record(change) for change in difference.modules],
        "heaps": [_heap_record(heap) for heap in difference.heaps],
        "large_blocks": [_large_record(row) for row in difference.large_blocks],
        "unreachable": None
        if None in unreachable
        else [{"blocks": one.blocks, "bytes": one.bytes} for one in unreachable if one],
        "trends": [{"name": one.row.name, **trend_record(one.trend)} for one in difference.trends],
        "outlook": _outlook_record(difference),
        "crt": _crt_record(difference),
        "groups": [group_record(group) for group in groups],
        "reconciliation": {
            "groups_delta": reconciliation.groups_delta,
            "busy_delta": reconciliation.busy_delta,
            "omitted_delta": reconciliation.omitted_delta,
            "old_bytes": reconciliation.old_bytes,
            "new_bytes": reconciliation.new_bytes,
        },
    }


def _group_trend(group: ComparedGroup) -> Record | None:
    trend = group.trend
    if trend is None:
        return None
    return {**trend_record(trend.bytes), "slope_count": trend.slope_count, "share": trend.share}


def trend_record(trend: Trend) -> Record:
    """The record of a trend; its `slope` is in units per hour, or per dump."""
    return {
        "class": trend.shape.value if trend.shape else None,
        "slope": trend.slope,
        "per": "hour" if trend.is_per_hour else "dump",
        "share_up": trend.share_up,
        "kendall_s": trend.kendall_s,
        "p_value": trend.p_value,
    }


def _outlook_record(difference: Difference) -> Record | None:
    outlook = difference.outlook
    if outlook is None:
        return None
    return {"bytes_left": outlook.bytes_left, "bytes_per_hour": outlook.bytes_per_hour, "hours": outlook.hours}


def _crt_record(difference: Difference) -> Record | None:
    first, last = difference.dumps[0].crt, difference.dumps[-1].crt
    if first is None or last is None or not difference.comparability.is_same_process:
        return None
    return {"last_request": first.last, "new_blocks": last.new_blocks, "new_bytes": last.new_bytes}


def row_record(row: Row) -> Record:
    """The record of one number in every dump."""
    return {"name": row.name, "values": list(row.values), "delta": row.delta}


def _gap_record(gap: FilledGap) -> Record:
    now = gap.largest_now
    return {
        "address": hex(gap.span.start),
        "bytes": gap.span.size,
        "largest_now": {"address": hex(now.start), "bytes": now.size} if now else None,
        "occupants": [_allocation_record(one) for one in gap.occupants],
        "more_occupants": gap.hidden,
    }


def _allocation_record(allocation: VirtualAllocation) -> Record:
    return {
        "address": hex(allocation.span.start),
        "bytes": allocation.span.size,
        "committed_bytes": allocation.committed_bytes,
        "usage": allocation.usage,
        "detail": allocation.detail,
    }


def _change_record(change: ModuleChange) -> Record:
    return {
        "name": change.name,
        "change": change.change.value,
        "old": _module_record(change.old),
        "new": _module_record(change.new),
        "memory_imports": list(change.memory_imports),
        "at_old_base": [_allocation_record(one) for one in change.at_old_base],
    }


def _module_record(module: Module | None) -> Record | None:
    if module is None:
        return None
    return {
        "address": hex(module.span.start),
        "size": module.span.size,
        "timestamp": module.timestamp,
        "version": version_words(module),
        "path": module.path,
    }


def _heap_record(heap: ComparedHeap) -> Record:
    first, last = heap.values[0], heap.values[-1]
    return {
        "address": hex(heap.last.address),
        "old_address": hex(first.address) if first else None,
        "kind": heap.last.kind,
        "role": heap.last.role,
        "change": "new" if first is None else "gone" if last is None else None,
        "values": [_heap_numbers(value) for value in heap.values],
        "delta_bytes": heap.delta_bytes,
    }


def _large_record(row: ComparedLargeBlocks) -> Record:
    return {"heap": hex(row.heap), "bytes": row.bytes, "values": list(row.counts), "delta_bytes": row.delta_bytes}


def _heap_numbers(numbers: HeapNumbers | None) -> Record | None:
    if numbers is None:
        return None
    return {
        "busy_blocks": numbers.busy_blocks,
        "busy_bytes": numbers.busy_bytes,
        "reserved_bytes": numbers.reserved_bytes,
        "committed_bytes": numbers.committed_bytes,
        "free_bytes": numbers.free_bytes,
        "virtual_blocks": numbers.large_blocks,
        "virtual_bytes": numbers.large_bytes,
    }
