"""Corrects a damaged list of uncommitted ranges by the memory map (docs/reference/heap-structures.md §2.5).

A range of a private heap holds no committed page, and the ranges of a segment sum up to NumberOfUnCommittedPages * 4096
bytes (every recorded segment, XP to 11). Up to Windows 7 a segment has no other uncommitted page; from 8 on free
entries contain some.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice

from heapdump.blocks.findings import Finding
from heapdump.heaps.allocator import PAGE
from heapdump.heaps.nt.discovery import HeapReader
from heapdump.memory.regions import RegionTable, State
from heapdump.spans import Span


def mapped_ranges(regions: RegionTable, segment: Span, listed: Sequence[Span], counted_bytes: int) -> list[Span] | None:
    """The ranges of a segment by the memory map, ascending; None where the list holds, or the map does not tell.

    The list holds where its bytes are `counted_bytes`, and no page of its ranges is committed. Else the uncommitted
    runs of the map are the ranges, where they have `counted_bytes`, or are those listed. Else one run replaces one
    range: the only one with a committed page; where none has one, the only one that the run meets, which it covers.
    Exactly one such list must have `counted_bytes`.

    A range of which the heap is committing a part has committed pages, too, until the list is changed. So nothing is
    replaced where the listed bytes are `counted_bytes` and an uncommitted run lies inside that range.

    Args:
        regions: the memory map.
        segment: the segment.
        listed: the ranges on its list, ascending, which do not touch.
        counted_bytes: NumberOfUnCommittedPages of the segment, in bytes.
    """
    if not regions.is_complete_map:
        return None
    wrong = [one for one in listed if regions.committed_bytes(one)]
    is_counted = sum(one.size for one in listed) == counted_bytes
    if is_counted and not wrong:
        return None
    runs = list(_uncommitted_runs(regions, segment))
    if sum(run.size for run in runs) == counted_bytes or runs == list(listed):
        return runs
    if len(wrong) > 1 or (is_counted and any(wrong[0].covers(run) for run in runs)):
        return None
    found = list(islice(_replaced(listed, wrong, runs, counted_bytes), 2))
    return found[0] if len(found) == 1 else None


def report_ranges(
    reader: HeapReader, name: str, places: tuple[int, int], listed: Sequence[Span], mapped: Sequence[Span]
) -> None:
    """Adds the error that the memory map proves: a wrong list, or the wrong number of its pages.

    Args:
        reader: the heap's.
        name: the list in words.
        places: (address of the head of the list, where the finding is; of NumberOfUnCommittedPages).
        listed: the ranges on the list.
        mapped: the ranges by the memory map.
    """
    heap, (head, counter) = reader.address, places
    if list(listed) == list(mapped):
        counted, pages = reader.view.space.try_integer(counter, 4), sum(one.size for one in mapped) // PAGE
        message = f"the number of uncommitted pages beside the {name} of heap {heap:#x} contradicts list and memory map"
        reader.findings.append(Finding("ucr", "error", heap, counter, 4, message, f"{pages}", f"{counted}"))
        return
    message = f"the {name} of heap {heap:#x} contradicts the memory map, whose ranges are used"
    expected = ", ".join(f"{one.start:#x}..{one.end:#x}" for one in mapped if one not in listed)
    found = ", ".join(f"{one.start:#x}..{one.end:#x}" for one in listed if one not in mapped)
    reader.findings.append(Finding("ucr", "error", heap, head, reader.view.pointer_bytes, message, expected, found))


def _replaced(
    listed: Sequence[Span], wrong: Sequence[Span], runs: Sequence[Span], counted_bytes: int
) -> Iterator[list[Span]]:
    """The list with a run in place of one range, for each run that gives `counted_bytes` and meets no other range.

    `wrong`: that range alone; empty where it is the one that the run covers.
    """
    total = sum(one.size for one in listed)
    starts, ends = [one.start for one in listed], [one.end for one in listed]
    for run in runs:
        met = listed[bisect_right(ends, run.start) : bisect_left(starts, run.end)]
        one = wrong[0] if wrong else met[0] if len(met) == 1 and run.covers(met[0]) else None
        if one is not None and total - one.size + run.size == counted_bytes and all(other == one for other in met):
            yield sorted([run, *(other for other in listed if other != one)])


def _uncommitted_runs(regions: RegionTable, span: Span) -> Iterator[Span]:
    """The uncommitted runs of a span, ascending, by a complete map."""
    at, start = span.start, span.start
    while at < span.end:
        i = regions.index_at(at)
        if i is None:
            break
        end = min(span.end, int(regions.end[i]))
        if regions.state[i] == State.MEM_COMMIT:
            if at > start:
                yield Span(start, at)
            start = end
        at = end
    if at > start:
        yield Span(start, at)
