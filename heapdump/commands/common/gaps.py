"""Gaps: lines on the parts of an answer that are missing, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heapdump.blocks.damage import UncheckedHeap
    from heapdump.blocks.heap import Heap
    from heapdump.snapshot import Snapshot


def heap_gaps(heaps: Sequence[Heap]) -> tuple[str, ...]:
    """The notes of heaps of which some memory was not found."""
    return tuple(note for heap in heaps if not heap.is_fully_walked for note in heap.notes)


def walk_gaps(snapshot: Snapshot) -> tuple[str, ...]:
    """A line for each reason why the block table may lack blocks."""
    return (*snapshot.gaps, *heap_gaps(snapshot.heaps), *snapshot.walk.gaps)


def report_gaps(snapshot: Snapshot) -> tuple[str, ...]:
    """A line for each report of AddressSanitizer that was cut, and one for those that were left out."""
    from heapdump.analyses.damage.asan import asan_gaps

    return asan_gaps(snapshot.report_context)


def shown_damage(snapshot: Snapshot) -> tuple[str, ...]:
    """The gaps that are damage: a page with the incidents, and how many more `check` shows, says them itself."""
    return tuple(one.finding.message for one in snapshot.explained_findings)


def shown_unchecked(snapshot: Snapshot, unchecked: Sequence[UncheckedHeap]) -> tuple[str, ...]:
    """The lines on heaps that no allocator recognises: another gap says why, the page counts the heaps."""
    unknown = [one for one in unchecked if snapshot.heaps[one.heap].kind == "unknown"]
    return unchecked_lines(snapshot.heaps, unknown)


def unchecked_lines(heaps: Sequence[Heap], unchecked: Sequence[UncheckedHeap]) -> tuple[str, ...]:
    """A line for each heap that was not checked, and why."""
    named = ((heaps[one.heap], one.why) for one in unchecked)
    return tuple(f"heap {heap.address:#x} ({heap.kind}) is not checked: {why.words}" for heap, why in named)


def file_changes(snapshots: Sequence[Snapshot]) -> tuple[str, ...]:
    """A line for each dump that was written to since it was opened.

    Raises:
        TruncatedDump: one was cut short, or could not be read to its end: no answer about it stands.
    """
    return tuple(change for snapshot in snapshots for change in snapshot.dump.changes())
