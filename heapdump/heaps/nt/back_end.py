"""Walks the back-end blocks of one NT heap: the chain of entries through each committed run.

Runs are separated by the heap's own uncommitted ranges, never by the pages in the dump. Free entries of 8 and later
contain decommitted pages that no range names (docs/reference/heap-structures.md §2.4), and a shared csr heap of a
recorded Windows 7 has committed pages inside its ranges. At a damaged header the walk makes one finding and goes on at
the next place where three headers in a row hold. Blocks behind it in the same run are `derived`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from heapdump.blocks.findings import Finding
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import tag
from heapdump.heaps.nt.chain import MOST_ROWS, ChainPosition, ChainSection, add_entries
from heapdump.heaps.nt.context import WalkContext
from heapdump.heaps.nt.damaged_header import DamagedHeader, add_plain_entries, report_damage
from heapdump.heaps.nt.damaged_headers import pass_damaged_headers
from heapdump.heaps.nt.holes import HeadersBehindHoles
from heapdump.heaps.nt.in_place import decoded_in_place, previous_size_at
from heapdump.heaps.nt.many_repairs import DamagedPart
from heapdump.heaps.nt.resync import GoodHeader, next_good_header
from heapdump.heaps.nt.segment_headers import mark_segment_headers
from heapdump.heaps.nt.unplaced_spans import UnplacedSpans
from heapdump.heaps.nt.windows import RunPart, Window, windows
from heapdump.heaps.workload import Workload
from heapdump.kernels import nt_chain
from heapdump.kernels.nt_chain import DAMAGE
from heapdump.spans import Span
from heapdump.trust import Trust

_FIRST_BATCH = 1 << 12
"""Headers in the first batch of array arithmetic, which reads a batch and then checks it; each next batch is twice as
long."""

_NEAR_DAMAGE = 64
"""The same behind damage, where the chain often stops again soon; there it is followed past damaged headers."""


class BackEndWalk:
    """The walk of neighbouring committed runs of one heap, window by window.

    Attributes:
        unplaced: memory whose entries could not be placed.
    """

    def __init__(self, context: WalkContext, workload: Workload, free_nodes: Callable[[], frozenset[int]]) -> None:
        """`workload`: estimate of the blocks of the whole walk. `free_nodes`: see `DamagedHeader`."""
        self._context, self._workload = context, workload
        self.unplaced = UnplacedSpans()
        self._is_undamaged = True
        self._is_out_of_step = False
        self._has_run_ended = False
        self._next_address, self._previous_size = 0, 0
        self._batch = _FIRST_BATCH
        self._free_nodes = free_nodes
        self._hole_start: int | None = None
        self._behind_holes: tuple[RunPart, HeadersBehindHoles] | None = None

    def windows(self, runs: Sequence[Span]) -> Iterator[tuple[Window, int]]:
        """Walks the runs, ascending, and yields (window, number of its first row) after the rows of each window."""
        space, columns = self._context.space, self._context.columns
        present = [run for run in runs if self._is_present(run)]
        for window in windows(space, self._context.entry_format, present):
            first_row = len(columns)
            part = 0
            while part < len(window.run_parts):
                part = self._walk(window, part)
            mark_segment_headers(self._context, window, first_row)
            yield window, first_row

    def _is_present(self, run: Span) -> bool:
        if self._context.space.mapped.is_mostly_present(run):
            return True
        where = f"{run.start:#x}..{run.end:#x}"
        self._context.log.add_gap(f"{self._context.name}: most of its memory at {where} is not in the dump")
        return False

    def _walk(self, window: Window, index: int) -> int:
        """Adds the entries of part `index`, and of the next parts up to damage. Returns the index of the next part."""
        granule = self._enter(window.run_parts[index])
        while granule < window.run_parts[index].stop and not self._has_run_ended:
            if self._is_out_of_step:
                granule = self._resynchronise(window, window.run_parts[index], granule)
                continue
            index, granule, reason = self._follow_chain(window, index, granule)
            if reason == nt_chain.RUN_END:
                self._end_run(window.run_parts[index], granule)
            elif reason not in (nt_chain.END, nt_chain.FULL):
                granule = self._pass_damage(window, window.run_parts[index], granule, reason)
        self._next_address = window.address(index, granule)
        return index + 1

    def _enter(self, part: RunPart) -> int:
        """The granule of the first entry of a part: start of the run, or where the walk of the last window ended."""
        if part.is_first:
            self._is_undamaged, self._is_out_of_step, self._has_run_ended = True, False, False
            self._previous_size, self._hole_start = 0, None
            return part.start
        return max(part.start, (self._next_address - part.base) // self._context.entry_format.granule)

    def _follow_chain(self, window: Window, index: int, granule: int) -> tuple[int, int, int]:
        """Follows the chain. Returns (index of the part where it stopped, granule there, reason)."""
        damaged = self._damaged_part(window, window.run_parts[index])
        if damaged is not None and self._batch <= _NEAR_DAMAGE:
            return index, *self._follow_past_damage(damaged, granule)
        section = ChainSection(
            until_part=len(window.run_parts) if self._is_undamaged else index + 1,
            common_tags=tag(BlockKind.BACKEND, trust=Trust.EXACT if self._is_undamaged else Trust.DERIVED),
            batch=self._batch,
            expected_blocks=self._workload.expected(),
        )
        stop = add_entries(self._context, window, ChainPosition(index, granule, self._previous_size), section)
        if stop.position.part == index:
            self._workload.add(stop.rows, (stop.position.granule - granule) * window.granule)
        self._batch = min(2 * self._batch, MOST_ROWS)
        self._previous_size = stop.position.previous_size
        self._context.log.headers += stop.rows
        self._context.log.good_headers += stop.rows
        if damaged is not None and stop.reason in DAMAGE:
            self._batch = _NEAR_DAMAGE
            return index, stop.position.granule, nt_chain.FULL
        return stop.position.part, stop.position.granule, stop.reason

    def _damaged_part(self, window: Window, part: RunPart) -> DamagedPart | None:
        """The part where damaged headers are passed many at once; None where they are passed one by one.

        Those before Vista have no checksum: there the search for the next good header needs more than the loop knows.
        """
        context = self._context
        if self._is_undamaged or window.missing or context.entry_format.is_pre_vista or context.segments.overlap:
            return None
        segment = context.segments.at(part.run.start)
        if segment is None:
            return None
        return DamagedPart(context, window, part, segment.address, self._free_nodes)

    def _follow_past_damage(self, damaged: DamagedPart, granule: int) -> tuple[int, int]:
        """Follows the chain past damaged headers. Returns (granule where it stopped, reason)."""
        stop = pass_damaged_headers(damaged, granule, self._previous_size, self.unplaced, self._workload.expected())
        self._workload.add(stop.rows, (stop.granule - granule) * damaged.window.granule)
        self._previous_size = stop.previous_size
        if not stop.damaged:
            self._batch = 2 * _NEAR_DAMAGE
        return stop.granule, stop.reason

    def _resynchronise(self, window: Window, part: RunPart, granule: int) -> int:
        """Goes on behind damage that began in an earlier window. Returns the granule to go on with."""
        if self._hole_start is not None:
            return self._pass_hole(window, part, granule)
        good = next_good_header(self._context.entry_format, window.words, granule, part.stop, part.end)
        self._add_unplaced(window, part, granule, good)
        if good is None:
            return part.stop
        self._is_out_of_step, self._previous_size = False, good.previous_size
        start = part.base + good.granule * window.granule
        self._context.log.add_gap(f"{self._context.name}: its entries hold again from {start:#x} on")
        return good.granule

    def _pass_damage(self, window: Window, part: RunPart, granule: int, reason: int) -> int:
        """Reports a header that does not hold. Returns the granule to go on with."""
        if window.lacks_word(part.base + granule * window.granule + self._context.entry_format.word_offset):
            self._hole_start = part.base + granule * window.granule
            return self._pass_hole(window, part, granule)
        plain = decoded_in_place(self._context, window, part, granule, self._previous_size)
        damaged = DamagedHeader(self._context, window, part, granule, self._previous_size, reason, self._free_nodes)
        if plain:
            add_plain_entries(damaged, plain)
            end = plain[-1].granule + plain[-1].size
            self._previous_size = previous_size_at(self._context.entry_format, window.words, end, part.end)
            return end
        good = damaged.next_good_header()
        self._is_undamaged, self._is_out_of_step = False, good is None
        self._batch = _NEAR_DAMAGE
        report_damage(damaged, good)
        self._add_unplaced(window, part, granule, good)
        if good is None:
            return part.stop
        self._previous_size = good.previous_size
        return good.granule

    def _pass_hole(self, window: Window, part: RunPart, granule: int) -> int:
        """Goes on behind headers that are not in the dump. Returns the granule to go on with."""
        if self._behind_holes is None or self._behind_holes[0] is not part:
            has_all = next((s.has_all_ranges for s in self._context.heap.segments if part.run.start in s.span), True)
            self._behind_holes = part, HeadersBehindHoles(self._context, window, part, not has_all)
        start_granule = ((self._hole_start or 0) - part.base) // window.granule
        good = self._behind_holes[1].next_header(granule, start_granule)
        self._add_unplaced(window, part, granule, good)
        self._is_undamaged, self._is_out_of_step = False, good is None
        if good is None:
            return part.stop
        self._hole_start, self._previous_size = None, good.previous_size
        return good.granule

    def _add_unplaced(self, window: Window, part: RunPart, granule: int, good: GoodHeader | None) -> None:
        """Notes the memory from a granule to the next good header, or to the end of the part, as unplaced."""
        if good is None:
            self.unplaced.add(part.base + granule * window.granule, part.base + part.stop * window.granule)
            return
        entry = good.granule - good.previous_size if good.previous_size else good.granule
        is_inside = granule <= entry < good.granule
        places = (part.base + place * window.granule for place in (granule, good.granule, entry))
        start, end, last = places
        self.unplaced.add(start, end, last if is_inside else None)

    def _end_run(self, part: RunPart, granule: int) -> None:
        """Reports a last entry of a run behind which, by the heap's list, no uncommitted range begins."""
        context, end = self._context, part.run.end
        address = part.base + granule * context.entry_format.granule
        if address >= end:
            self._has_run_ended = True
            return
        if not all(segment.has_all_ranges for segment in context.heap.segments if part.run.start in segment.span):
            # the list of uncommitted ranges may lack this one
            self._is_undamaged, self._is_out_of_step, self._hole_start = False, True, address
            return
        # the entry may not be the last one: search for entries behind it
        self._is_undamaged, self._is_out_of_step, self._batch = False, True, _NEAR_DAMAGE
        message = f"{context.name}: the entries end at {address:#x}, the run at {end:#x}"
        finding = Finding("ucr", "error", context.address, address, 1, message, f"{end:#x}", f"{address:#x}")
        context.log.add_damage(finding, message)
