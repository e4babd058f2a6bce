"""The record of `gaps` (interface.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.render.view import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from heapdump.analyses.memory.address_space import AddressSpaceReport, ExplainedDivider
    from heapdump.analyses.memory.allocations import VirtualAllocation
    from heapdump.analyses.memory.gaps import Neighbours


def report_record(
    report: AddressSpaceReport | None, findings: Sequence[str], divider_record: Callable[[ExplainedDivider], Record]
) -> Record:
    """The whole report; what is not known without a memory map is null or empty."""
    free = report.free if report else None
    limit = report.limit if report else None
    request = report.request if report else None
    return {
        "largest_free_bytes": free.largest_bytes if free else None,
        "free_bytes": free.free_bytes if free else None,
        "free_runs": free.runs if free else None,
        "fragmentation": free.fragmentation if free else None,
        "limit_bytes": limit.end if limit else None,
        "large_address_aware": limit.is_large_address_aware if limit else None,
        "large_address_gain_bytes": limit.gain_bytes if limit else None,
        "size_classes": _classes(report),
        "request": {"bytes": request.bytes, "fitting_runs": request.fitting} if request else None,
        "findings": list(findings),
        "runs": [_run(run) for run in report.runs] if report else [],
        "culprits": [divider_record(one) for one in report.dividers] if report else [],
        "usage": [
            {
                "name": share.name,
                "regions": share.regions,
                "bytes": share.bytes,
                "committed_bytes": share.committed_bytes,
                "reserved_bytes": share.reserved_bytes,
            }
            for share in report.usage
        ]
        if report
        else [],
    }


def _classes(report: AddressSpaceReport | None) -> list[Record]:
    from heapdump.analyses.memory.free_runs import SIZE_CLASSES

    counts = report.free.counts if report else ()
    return [{"least_bytes": least, "runs": count} for least, count in zip(SIZE_CLASSES, counts, strict=False)]


def _run(run: Neighbours) -> Record:
    return {
        "address": hex(run.span.start),
        "bytes": run.span.size,
        "before": _neighbour(run.before),
        "after": _neighbour(run.after),
    }


def _neighbour(allocation: VirtualAllocation | None) -> Record | None:
    if allocation is None:
        return None
    return {"address": hex(allocation.span.start), "usage": allocation.usage, "detail": allocation.detail}
