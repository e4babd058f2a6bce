"""The LFH of one heap: subsegments whose user blocks lie in a window, and their blocks as rows.

Rules: `lfh_user_blocks`, `lfh_members`, `lfh_encoding`; where they contradict, `lfh_recovery` and `lfh_damage`.
docs/reference/heap-structures.md §3.5.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from heapdump.blocks.findings import Finding
from heapdump.heaps.nt.context import WalkContext
from heapdump.heaps.nt.lfh_blocks import LfhSubsegment, add_lfh_blocks
from heapdump.heaps.nt.lfh_damage import is_doubtful, is_in_heap, report_contradictions
from heapdump.heaps.nt.lfh_encoding import block_coding
from heapdump.heaps.nt.lfh_members import Geometry, Members, first_offset, is_consistent, read_members
from heapdump.heaps.nt.lfh_recovery import Recovered, recover
from heapdump.heaps.nt.lfh_states import BlockPlace
from heapdump.heaps.nt.lfh_user_blocks import UserArea, find_user_areas
from heapdump.heaps.nt.windows import Window
from heapdump.trust import Trust

_KEY_BLOCKS = 64
"""Blocks of one subsegment that are asked for the key."""

_MAX_FAILURES = 64
"""User blocks from which the key is derived at most; in a healthy process the first one gives it."""


@dataclass
class LfhState:
    """The LFH of one view of the process, as far as the walk of its heaps knows it.

    Attributes:
        key: RtlpLFHKey, 32 or 40 bits as the encoding needs; None until user blocks gave it.
        failures: user blocks that did not give it.
        internal: before Vista, addresses of user blocks and subsegments; later ones are marked by Flags.
    """

    key: int | None = None
    failures: int = 0
    internal: set[int] = field(default_factory=set)


class LfhWalk:
    """The walk of the LFH of one heap, window by window."""

    def __init__(self, context: WalkContext, state: LfhState) -> None:
        """`state` is shared by the heaps of a view."""
        self._context, self._state = context, state

    def add(self, window: Window, first_row: int) -> None:
        """Adds the blocks of the subsegments whose user blocks are rows from `first_row` on; sorts these rows."""
        context, state = self._context, self._state
        areas = [
            (area, read_members(context, area))
            for area in find_user_areas(context, window, context.columns.since(first_row))
        ]
        is_partial = bool(window.missing) or not context.heap.is_fully_walked
        for area, members in areas:
            if context.entry_format.is_pre_vista and area.has_signature and is_partial:
                state.internal.add(area.address)
            if state.key is None and state.failures < _MAX_FAILURES and is_consistent(context, area, members, None):
                state.key = self._key(window, area, members)
                state.failures += state.key is None
        found = [one for area, members in areas if (one := self._subsegment(window, area, members)) is not None]
        if found:
            add_lfh_blocks(context, window, found)
            context.columns.sort(first_row)

    def _key(self, window: Window, area: UserArea, members: Members) -> int | None:
        """K as most of the first blocks give it; None where no two agree: they may be damaged."""
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
        """The address of granule 0 of the words that the area lies in."""
        return int(window.bases(np.array([area.address]))[0])

    def _subsegment(self, window: Window, area: UserArea, members: Members) -> LfhSubsegment | None:
        """The subsegment with the place of its blocks; None, and a finding, where they cannot be placed."""
        context, key = self._context, self._state.key
        if is_consistent(context, area, members, key):
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
        self._report_lost(area, members)
        return None

    def _placed(self, window: Window, area: UserArea, found: Recovered, trust: Trust) -> LfhSubsegment:
        context, state = self._context, self._state
        if context.entry_format.is_pre_vista:
            state.internal.add(area.address)
            if found.subsegment is not None and found.subsegment.user_blocks == area.address:
                state.internal.add(found.subsegment.address)
        place = BlockPlace(
            area.address, found.geometry, found.subsegment, _busy_bitmap(context, area, found.geometry.blocks)
        )
        return LfhSubsegment(self._base(window, area), place, found.constant, trust)

    def _report_lost(self, area: UserArea, members: Members) -> None:
        """A finding where user blocks that are in use have no block that can be placed."""
        context, subsegment = self._context, members.subsegment
        if not area.has_signature:
            return
        if subsegment is None:
            if is_in_heap(context, members.pointer):
                where = f"the LFH subsegment at {members.pointer:#x} is not in the dump"
                context.log.gap(f"{context.name}: {where}; blocks of the user blocks at {area.address:#x} are missing")
            return
        if subsegment.user_blocks != area.address:
            return  # free user blocks that the LFH keeps
        message = f"the LFH subsegment at {subsegment.address:#x} of {context.name} cannot be decoded"
        place, length = area.address, context.layout["_HEAP_USERDATA_HEADER"].size
        expected, found = "numbers that its blocks confirm", f"{subsegment.count} blocks of {subsegment.stride} bytes"
        context.log.damage(
            Finding("lfh_subsegment", "error", context.address, place, length, message, expected, found),
            f"{message}: {subsegment.count} blocks are missing",
        )


def _busy_bitmap(context: WalkContext, area: UserArea, count: int) -> bytes | None:
    """BusyBitmap, 32-bit words of one bit for each block; None before 8, and where the dump lacks it."""
    header = context.layout["_HEAP_USERDATA_HEADER"]
    if "BusyBitmap" not in header:
        return None
    return context.space.try_read(area.address + header.offset("BitmapData"), -(-count // 32) * 4)
