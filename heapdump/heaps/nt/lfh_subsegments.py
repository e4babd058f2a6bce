"""The walk of the LFH of one heap: from user blocks in a window to the rows of their blocks.

Source: docs/reference/heap-structures.md §3.5. The steps are in the modules `lfh_…`; `heaps.nt` lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from heapdump.blocks.findings import Finding
from heapdump.blocks.kind import BlockKind
from heapdump.heaps.integers import signed64
from heapdump.heaps.nt.context import WalkContext
from heapdump.heaps.nt.lfh_blocks import LfhSubsegment, add_lfh_blocks
from heapdump.heaps.nt.lfh_by_headers import has_no_lfh_header, unplaced_user_areas
from heapdump.heaps.nt.lfh_damage import is_doubtful, is_in_heap, report_contradictions
from heapdump.heaps.nt.lfh_encoding import block_coding
from heapdump.heaps.nt.lfh_members import Geometry, Members, first_offset, is_consistent, read_members
from heapdump.heaps.nt.lfh_recovery import Recovered, has_marked_word, recover
from heapdump.heaps.nt.lfh_sound import add_sound_subsegments
from heapdump.heaps.nt.lfh_states import BlockPlace
from heapdump.heaps.nt.lfh_user_blocks import UserArea, UserAreas, find_user_areas
from heapdump.heaps.nt.lfh_zones import zones
from heapdump.heaps.nt.unplaced_spans import UnplacedSpan
from heapdump.heaps.nt.windows import Window, windows_of_run
from heapdump.heaps.workload import Workload
from heapdump.kernels.row import INTERNAL, KIND_MASK
from heapdump.trust import Trust
from heapdump.wording import plural

_KEY_BLOCKS = 64
"""Number of blocks of one subsegment whose headers are used to derive the key."""

_MAX_FAILURES = 64
"""Number of user blocks from which the key is tried to be derived; in a healthy process the first ones give it."""


@dataclass
class LfhState:
    """The facts about the LFH of one view that the walk of its heaps has found so far.

    Attributes:
        key: RtlpLFHKey, 32 or 40 bits as the encoding needs; None until it was derived.
        failures: number of user blocks from which it could not be derived.
        internal: before Vista: addresses inside blocks that the LFH uses itself. Later Flags mark such blocks.
    """

    key: int | None = None
    failures: int = 0
    internal: set[int] = field(default_factory=set)


class LfhWalk:
    """The walk of the LFH of one heap, window by window."""

    def __init__(self, context: WalkContext, state: LfhState, workload: Workload) -> None:
        """`state` is shared by the heaps of a view; `workload`: of the walk of all heaps."""
        self._context, self._state, self._workload = context, state, workload
        self._placed_areas = set[int]()

    def add(self, window: Window, first_row: int) -> None:
        """Adds the blocks of the subsegments whose user blocks are rows from `first_row` on; sorts these rows."""
        context = self._context
        areas = find_user_areas(context, window, context.columns.since(first_row))
        if window.missing:
            self._state.internal |= zones(context, context.columns.since(first_row))
        if not len(areas):
            return
        self._learn(window, areas)
        key = self._state.key
        if key is not None and not context.entry_format.is_pre_vista:
            is_added = add_sound_subsegments(context, window, first_row, areas, key, self._workload)
            self._placed_areas |= set(areas.address[is_added].tolist())
            areas = areas.of(~is_added)
        found = [one for area in areas if (one := self._subsegment(window, area)) is not None]
        if found:
            add_lfh_blocks(context, window, found)
            context.columns.sort(first_row)

    def _learn(self, window: Window, areas: UserAreas) -> None:
        """Derives the key from these areas unless it is known; before Vista also notes which blocks are internal."""
        context, state = self._context, self._state
        if context.entry_format.is_pre_vista and (window.missing or not context.heap.is_fully_walked):
            state.internal |= set(areas.address[areas.has_signature].tolist())
        for area in areas:
            if state.key is not None or state.failures >= _MAX_FAILURES:
                return
            members = read_members(context, area)
            if is_consistent(context, area, members, None):
                state.key = self._key(window, area, members)
                state.failures += state.key is None

    def add_unplaced(self, unplaced: Iterable[UnplacedSpan]) -> None:
        """Adds LFH blocks in unplaced spans, by their own headers; leaves the rows unsorted.

        Called after the walk of all heaps of a share, so that the key is known if any of them gives it.
        """
        context, areas, before = self._context, list[int](), len(self._context.columns)
        for one in unplaced:
            if has_no_lfh_header(context, one.span):
                continue
            for window in windows_of_run(context.space, context.entry_format.granule, one.span):
                found = list(
                    self._placed_by_headers(window, unplaced_user_areas(context, window, one, self._state.key))
                )
                if found:
                    add_lfh_blocks(context, window, found)
                areas += [placed.place.user_blocks for placed in found]
        if areas:
            self._mark_internal(areas)
            rows = len(context.columns) - before
            origin = f"{rows:,} of their blocks were told by their own headers"
            context.log.add_gap(f"{context.name}: {plural(len(areas), 'header')} of LFH user blocks are lost; {origin}")

    def _placed_by_headers(self, window: Window, areas: Iterable[UserArea]) -> Iterator[LfhSubsegment]:
        """The subsegments of the areas that hold blocks; of two overlapping areas only the first."""
        end = 0
        for area in areas:
            placed = (
                None if area.address in self._placed_areas or area.address < end else self._by_headers(window, area)
            )
            if placed is not None:
                end = area.address + area.size
                yield placed

    def _by_headers(self, window: Window, area: UserArea) -> LfhSubsegment | None:
        """The subsegment of an unplaced area by the headers of its blocks alone; None where none of them is busy."""
        context = self._context
        recovered = recover(context, window, area, read_members(context, area), self._state.key)
        if recovered is None or not recovered.is_busy:
            return None
        if context.entry_format.is_pre_vista:
            self._state.internal.add(area.address)
        place = BlockPlace(area.address, recovered.geometry, None, None)
        return LfhSubsegment(self._base(window, area), place, recovered.constant, Trust.DERIVED, is_by_headers=True)

    def _mark_internal(self, areas: list[int]) -> None:
        """Makes the rows of entries that hold these user blocks internal."""
        rows = self._context.columns.since(0)
        inside = np.isin(rows.entry + rows.header8 * np.uint64(8), np.array(areas, np.uint64))
        rows.tags[inside & (rows.heap == self._context.heap.index) & (rows.tags & KIND_MASK == BlockKind.BACKEND)] |= (
            INTERNAL
        )

    def _key(self, window: Window, area: UserArea, members: Members) -> int | None:
        """The key that most of the first blocks give; None where no two agree."""
        context, subsegment, entry_format = self._context, members.subsegment, self._context.entry_format
        assert subsegment is not None
        coding = block_coding(entry_format)
        base = self._base(window, area)
        first = area.address + first_offset(context, subsegment.count)
        entries = first + np.arange(min(subsegment.count, _KEY_BLOCKS)) * subsegment.stride
        words = window.words[(entries - base) // 8 + entry_format.word_index]
        lfh = coding.are_lfh(words)
        values, counts = np.unique(coding.constants(words, entries, area.address)[lfh], return_counts=True)
        if not len(values) or (counts.max() < 2 and subsegment.count > 1):
            return None
        key = coding.key(int(values[counts.argmax()]), context.address, subsegment.address)
        if counts.max() < 2 and (members.offsets is None or not is_consistent(context, area, members, key)):
            return None
        return key

    def _base(self, window: Window, area: UserArea) -> int:
        """The address that granule 0 of the window's words has for the part of a run that holds the area."""
        return int(window.bases(np.array([area.address]))[0])

    def _subsegment(self, window: Window, area: UserArea) -> LfhSubsegment | None:
        """The subsegment of an area; None, with a finding, where its blocks cannot be placed."""
        context, key = self._context, self._state.key
        if not area.has_signature and not has_marked_word(context, window, area):
            return None
        members = read_members(context, area)
        if is_consistent(context, area, members, key) and not self._is_contradicted(window, area, members):
            subsegment = members.subsegment
            assert subsegment is not None
            constant = None
            if key is not None:
                constant = block_coding(context.entry_format).constant(key, context.address, subsegment.address)
            geometry = Geometry(first_offset(context, subsegment.count), subsegment.stride, subsegment.count)
            return self._placed(window, area, Recovered(geometry, constant, subsegment, True), Trust.EXACT)
        recovered = recover(context, window, area, members, key)
        if recovered is not None and not is_doubtful(context, area, members, recovered, key):
            is_damaged = report_contradictions(context, area, members, recovered, key)
            return self._placed(window, area, recovered, Trust.DERIVED if is_damaged else Trust.EXACT)
        self._report_unplaced(area, members)
        return None

    def _is_contradicted(self, window: Window, area: UserArea, members: Members) -> bool:
        """True where the last header is none, and the headers place the blocks elsewhere than consistent members do.

        A BlockSize that is wrong by one granule may fit the same number of blocks.
        """
        context, subsegment = self._context, members.subsegment
        if subsegment is None or subsegment.count < 2:
            return False
        geometry = Geometry(first_offset(context, subsegment.count), subsegment.stride, subsegment.count)
        last = area.address + geometry.first + (geometry.blocks - 1) * geometry.stride
        word = context.header_word(last)
        if word is None or block_coding(context.entry_format).are_lfh(np.array([signed64(word)])).all():
            return False
        recovered = recover(context, window, area, members, self._state.key)
        return recovered is not None and recovered.geometry != geometry

    def _placed(self, window: Window, area: UserArea, found: Recovered, trust: Trust) -> LfhSubsegment:
        context, state = self._context, self._state
        if context.entry_format.is_pre_vista:
            state.internal.add(area.address)
            if found.subsegment is not None and found.subsegment.user_blocks == area.address:
                state.internal.add(found.subsegment.address)
        self._placed_areas.add(area.address)
        place = BlockPlace(
            area.address, found.geometry, found.subsegment, _busy_bitmap(context, area, found.geometry.blocks)
        )
        return LfhSubsegment(self._base(window, area), place, found.constant, trust)

    def _report_unplaced(self, area: UserArea, members: Members) -> None:
        """Adds a finding where user blocks are in use, but none of their blocks can be placed."""
        context, subsegment = self._context, members.subsegment
        if not area.has_signature:
            return
        if subsegment is None:
            if is_in_heap(context, members.pointer):
                where = f"the LFH subsegment at {members.pointer:#x} is not in the dump"
                context.log.add_gap(
                    f"{context.name}: {where}; blocks of the user blocks at {area.address:#x} are missing"
                )
            return
        if subsegment.user_blocks != area.address:
            return  # free user blocks that the LFH keeps for later
        message = f"the LFH subsegment at {subsegment.address:#x} of {context.name} cannot be decoded"
        place, length = area.address, context.layout["_HEAP_USERDATA_HEADER"].size
        expected, found = "numbers that its blocks confirm", f"{subsegment.count} blocks of {subsegment.stride} bytes"
        context.log.add_damage(
            Finding("lfh_subsegment", "error", context.address, place, length, message, expected, found),
            f"{message}: {subsegment.count} blocks are missing",
        )


def _busy_bitmap(context: WalkContext, area: UserArea, count: int) -> bytes | None:
    """The bytes of BusyBitmap for `count` blocks, in whole 32-bit words; None before 8, or where it is missing."""
    header = context.layout["_HEAP_USERDATA_HEADER"]
    if "BusyBitmap" not in header:
        return None
    return context.space.try_read(area.address + header.offset("BitmapData"), -(-count // 32) * 4)
