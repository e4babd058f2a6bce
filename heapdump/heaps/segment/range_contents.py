"""Decides the content of page ranges whose flags contradict their unused bytes or the header of a subsegment.

In every recorded heap the unused bytes of a VS subsegment are one unit, those of an LFH subsegment 0, those of a block
less than a unit. Where the flags contradict that, the header at the start of the range decides.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.lfh_coding import are_lfh_subsegments
from heapdump.heaps.segment.page_ranges import RangeKind, Ranges
from heapdump.heaps.segment.vs_subsegments import are_vs_subsegments

_MANY = 8
"""From this many ranges of a kind on, the majority defines how the build writes them."""

_WORDS = {
    RangeKind.FREE: "nothing", RangeKind.PAGES: "a block", RangeKind.LFH: "an LFH subsegment",
    RangeKind.VS: "a VS subsegment", RangeKind.INTERNAL: "something internal",
}  # fmt: skip


def with_content_kind(walk: SegmentWalk, ranges: Ranges) -> Ranges:
    """The ranges with the kinds of their contents; adds a finding for each range whose flags name another kind."""
    kind = _content_kind(walk, ranges)
    is_inside = _is_inside(ranges)
    _report_kind(walk, ranges, kind)
    for i in np.flatnonzero((kind == RangeKind.INTERNAL) & is_inside).tolist():
        # no recorded heap has such a range
        at = int(ranges.start[i])
        walk.add_gap(f"{walk.name}: the page range at {at:#x} is of an unknown kind: what it holds is missing")
    found = replace(ranges, kind=kind, is_sound=ranges.is_sound & (kind == ranges.kind))
    _report_unused(walk, found)
    return found


def _is_inside(ranges: Ranges) -> NDArray[np.bool_]:
    """(n,) False for the ranges of the descriptors themselves."""
    inside: NDArray[np.bool_] = ranges.start != ranges.descriptor
    return inside


def _content_kind(walk: SegmentWalk, ranges: Ranges) -> NDArray[np.int64]:
    """(n,) int64 `RangeKind` by flags, unused bytes and headers."""
    kind, flagged, is_inside = ranges.kind.copy(), ranges.kind, _is_inside(ranges)
    has_guard, is_full, in_use = ranges.unused >= ranges.unit, ranges.unused == 0, flagged != RangeKind.FREE

    def vs(where: NDArray[np.bool_], *, holds: bool) -> NDArray[np.int64]:
        """Indices of the ranges `where` that begin with the header of a VS subsegment; `holds` False: that do not."""
        rows = np.flatnonzero(where & is_inside)
        return rows[are_vs_subsegments(walk, ranges, rows) == holds] if len(rows) else rows

    def lfh(where: NDArray[np.bool_], *, holds: bool) -> NDArray[np.int64]:
        """Indices of the ranges `where` that begin with the header of an LFH subsegment; `holds` False: that do not."""
        rows = np.flatnonzero(where & is_inside)
        return rows[are_lfh_subsegments(walk, ranges, rows) == holds] if len(rows) else rows

    kind[vs(has_guard & in_use & (flagged != RangeKind.VS), holds=True)] = RangeKind.VS
    kind[vs(~has_guard & (flagged == RangeKind.VS), holds=False)] = RangeKind.PAGES
    kind[lfh(~has_guard & ~is_full & (flagged == RangeKind.LFH), holds=False)] = RangeKind.PAGES
    kind[lfh(is_full & in_use & (flagged != RangeKind.LFH), holds=True)] = RangeKind.LFH
    for each in RangeKind:
        same = np.flatnonzero(flagged == each)
        if len(same) >= _MANY and 2 * int((kind[same] != each).sum()) > len(same):
            kind[same] = each  # the rules above do not hold in this build
    return kind


def _report_kind(walk: SegmentWalk, ranges: Ranges, kind: NDArray[np.int64]) -> None:
    for i in np.flatnonzero((kind != ranges.kind) & ranges.is_sound).tolist():
        at = int(ranges.descriptor[i])
        expected, found = _WORDS[RangeKind(kind[i])], _WORDS[RangeKind(ranges.kind[i])]
        walk.report(
            DamagedBytes("segment", at, 4 * walk.pointer_bytes, expected, found),
            f"{walk.name}: the page descriptor at {at:#x} is damaged: its range at {int(ranges.start[i]):#x} is of "
            "another kind",
        )
        walk.count_headers(0, -1)


def _report_unused(walk: SegmentWalk, ranges: Ranges) -> None:
    """Adds a finding for each block with a unit or more unused bytes, and each VS subsegment without exactly a unit."""
    is_vs = (ranges.kind == RangeKind.VS) & ranges.is_sound
    other = is_vs & (ranges.unused != ranges.unit)
    if 2 * int(other.sum()) >= int(is_vs.sum()):
        other[:] = False  # most ranges have other numbers: so the build writes them
    for i in np.flatnonzero(~ranges.is_size_possible & ranges.is_sound | other).tolist():
        at, unused, unit = int(ranges.descriptor[i]), int(ranges.unused[i]), int(ranges.unit[i])
        expected, what = (f"{unit:,}", "a VS subsegment") if other[i] else (f"less than {unit:,}", "a block")
        walk.report(
            DamagedBytes("segment", at, 4 * walk.pointer_bytes, expected, f"{unused:,}"),
            f"{walk.name}: the page descriptor at {at:#x} is damaged: {unused:,} bytes not used at the end of {what}",
        )
        walk.count_headers(0, -1)
