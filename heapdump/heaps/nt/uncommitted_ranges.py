"""Corrects a damaged list of uncommitted ranges by the memory map (docs/reference/heap-structures.md §2.5).

A range of a private heap holds no committed page, and all ranges of a segment have NumberOfUnCommittedPages together
(every recorded segment, XP to 11). Up to Windows 7 a segment has no other uncommitted page; from 8 on free entries
contain some.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from heapdump.blocks.findings import Finding
from heapdump.heaps.nt.discovery import HeapReader
from heapdump.memory.regions import RegionTable, State
from heapdump.spans import Span, merged


def mapped_ranges(regions: RegionTable, segment: Span, listed: Sequence[Span], counted_bytes: int) -> list[Span] | None:
    """The ranges of a segment by the memory map, ascending; None where the list holds, or nothing better is known.

    Where the uncommitted pages of the map are as many as the segment counts, they are the ranges. Else one range is
    replaced by the one run of the map that makes the ranges as long as counted.

    Args:
        regions: the memory map.
        segment: the segment.
        listed: the ranges on its list, which is closed.
        counted_bytes: NumberOfUnCommittedPages of the segment, in bytes.
    """
    if not regions.is_complete_map:
        return None
    wrong = [one for one in listed if regions.committed_bytes(one)]
    if not wrong and sum(one.size for one in listed) == counted_bytes:
        return None
    runs = list(_uncommitted_runs(regions, segment))
    if sum(run.size for run in runs) == counted_bytes:
        return runs
    if len(wrong) > 1:
        return None
    found = {tuple(one) for number in wrong or listed for one in _replaced(listed, number, runs, counted_bytes)}
    return list(found.pop()) if len(found) == 1 else None


def report_ranges(reader: HeapReader, name: str, head: int, listed: Sequence[Span], mapped: Sequence[Span]) -> None:
    """Adds an error about a list that contradicts the memory map. `head`: its address; `name`: of the list."""
    message = f"the {name} of heap {reader.address:#x} contradicts the memory map, whose ranges are used"
    wrong = [one for one in listed if one not in mapped]
    expected = ", ".join(f"{one.start:#x}..{one.end:#x}" for one in mapped if one not in listed)
    found = ", ".join(f"{one.start:#x}..{one.end:#x}" for one in wrong)
    pointer = reader.view.pointer_bytes
    reader.findings.append(Finding("ucr", "error", reader.address, head, pointer, message, expected, found))


def _replaced(listed: Sequence[Span], one: Span, runs: Sequence[Span], counted_bytes: int) -> Iterator[list[Span]]:
    """The list with a run in place of `one`, for each run that makes it as long as counted."""
    others = list(listed)
    others.remove(one)
    missing = counted_bytes - sum(other.size for other in others)
    for run in runs:
        if run.size == missing and not any(run & other for other in others):
            yield merged([*others, run])


def _uncommitted_runs(regions: RegionTable, span: Span) -> Iterator[Span]:
    """The uncommitted runs of a span, ascending, by a complete map."""
    at, start = span.start, span.start
    while at < span.end:
        i = regions.index_at(at)
        if i is None:
            return
        end = min(span.end, int(regions.end[i]))
        if regions.state[i] == State.MEM_COMMIT:
            if at > start:
                yield Span(start, at)
            start = end
        at = end
    if at > start:
        yield Span(start, at)
