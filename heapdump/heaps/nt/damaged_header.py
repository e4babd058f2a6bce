"""Reports a header at which the chain of entries stopped: a finding, a gap, and a row for its entry where it is known.

The PreviousSize of the next good header (`resync`) decides between three cases:

- the header *before* this one has a wrong Size: its row is corrected;
- this header alone is damaged: its entry gets a row, and the finding names the changed bytes (`header_repair`);
- neither: blocks between the two headers may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from heapdump.blocks.findings import Finding
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import lower_trust, tag
from heapdump.heaps.jobs import MOST_ASSUMED_BUSY, AssumedBusy
from heapdump.heaps.nt.chain import MOST_ROWS
from heapdump.heaps.nt.context import WalkContext
from heapdump.heaps.nt.header_repair import HeaderDamage, expected_segment, header_damage
from heapdump.heaps.nt.header_word import BUSY_FLAG, INTERNAL_FLAG
from heapdump.heaps.nt.in_place import PlainEntry
from heapdump.heaps.nt.lfh_user_blocks import SIGNATURE
from heapdump.heaps.nt.resync import GoodHeader, next_good_header
from heapdump.heaps.nt.unused_bytes import FRONT_PREFIX, USUAL_PREFIX, has_usual_prefix, unused_bytes_of_one
from heapdump.heaps.nt.windows import RunPart, Window
from heapdump.kernels import nt_chain
from heapdump.kernels.row import BUSY, FLAGS_SHIFT, INTERNAL, TRUST_GUESS
from heapdump.trust import Trust

_LONGEST_ENTRY = 0xFFFF
"""Granules of the longest entry: Size has 16 bits."""

HEADER_BYTES = 8
"""The smallest UnusedBytes of a busy entry, Vista and later (heap-structures.md §2.3)."""


class EntryState(Enum):
    """The state of the entry behind a damaged header, in words where it is assumed."""

    KNOWN = "known"
    FREE = "free"
    COUNTED_AS_FREE = "free, as TotalFreeSize counts them"
    BUSY = "busy"
    USER_BLOCKS = "to be LFH user blocks"


DISAGREEMENT = "the entries around it do not agree"
"""What follows from a header that equals the one that its neighbours restore."""

_REASONS = {
    nt_chain.CHECKSUM: ("a header whose checksum holds", "checksum"),
    nt_chain.PREVIOUS: ("the size of the entry before it", "previous size"),
    nt_chain.SIZE: ("a size that stays inside the segment", "size"),
}
"""Why the chain stopped → (what was expected, the wrong member), in words."""


@dataclass(frozen=True, slots=True)
class DamagedHeader:
    """The header at which the chain of a heap stopped.

    Attributes:
        context: the walk of the heap.
        window: the words that the header lies in.
        part: the part of a run that it lies in.
        granule: granule of its entry in the words of the window.
        previous_size: granules of the entry before it; 0 at the start of a run.
        reason: CHECKSUM, PREVIOUS or SIZE of `kernels.nt_chain`.
        free_nodes: gives the nodes that free lists link (`free_lists.linked_nodes`).
    """

    context: WalkContext
    window: Window
    part: RunPart
    granule: int
    previous_size: int
    reason: int
    free_nodes: Callable[[], frozenset[int]]

    def address_of(self, granule: int) -> int:
        """The address of a granule of the same part."""
        return self.part.base + granule * self.window.granule

    @property
    def address(self) -> int:
        """The address of the entry."""
        return self.address_of(self.granule)

    @property
    def word(self) -> int:
        """The header word as it lies in memory, unsigned."""
        entry_format = self.context.entry_format
        return int(self.window.words[self.granule * entry_format.stride + entry_format.word_index]) & (1 << 64) - 1

    def next_good_header(self) -> GoodHeader | None:
        """The header at which the chain goes on; None where no later header of the part can be trusted."""
        entry_format, words, part = self.context.entry_format, self.window.words, self.part
        entry_before = self.granule - self.previous_size
        if entry_format.is_pre_vista and self.previous_size and entry_before >= part.start:
            # the Size of the entry before may be wrong: search for the header that really follows it
            good = next_good_header(entry_format, words, entry_before + 1, self.granule, part.end)
            if good is not None and good.granule - good.previous_size == entry_before:
                return good
        # an entry that begins in this window may end in the next one
        return next_good_header(
            entry_format, words, self.granule + 1, min(part.stop + _LONGEST_ENTRY, part.end), part.end
        )


def report_damage(damaged: DamagedHeader, good: GoodHeader | None) -> None:
    """Adds the finding, the gap and the row that follow from a damaged header and the next good header."""
    until = damaged.address_of(good.granule if good else damaged.part.stop)
    entry_of_size = None if good is None else good.granule - good.previous_size
    if good is not None and damaged.previous_size and entry_of_size == damaged.granule - damaged.previous_size:
        _report_wrong_size(damaged, good.previous_size)
    elif good is not None and entry_of_size == damaged.granule:
        _report_one_header(damaged, good.previous_size)
    else:
        say_unknown(damaged, f"going on at {until:#x}" if good else f"no header holds up to {until:#x}")


def add_plain_entries(damaged: DamagedHeader, plain: Sequence[PlainEntry]) -> None:
    """Adds rows for entries whose headers ntdll has decoded in place (`in_place`); `damaged` is the first of them."""
    for one in plain:
        _add_row(replace(damaged, granule=one.granule), one.word, Trust.DERIVED)
    damaged.context.log.headers += len(plain)
    damaged.context.log.good_headers += len(plain)


def _report_wrong_size(damaged: DamagedHeader, size: int) -> None:
    """Corrects the row of the entry before. `size`: its right size in granules, by the next good header."""
    context, entry_format = damaged.context, damaged.context.entry_format
    entry = damaged.address_of(damaged.granule - damaged.previous_size)
    rows = context.columns.since(max(0, len(context.columns) - MOST_ROWS))
    row = np.flatnonzero(rows.entry == entry)[-1:]
    if not len(row):
        return
    stride, granule = entry_format.stride, entry_format.granule
    found = int(rows.size8[row[0]]) // stride
    rows.size8[row] = size * stride
    if int(rows.unused[row[0]]) >= found * granule:  # cut to the wrong size: the header has the whole number
        rows.unused[row] = _unused_in_header(damaged, entry)
        lower_trust(rows.tags[row[0] :], slice(1), Trust.DERIVED)
    rows.unused[row] = np.minimum(rows.unused[row], size * granule)
    wanted, there = size.to_bytes(2, "little"), found.to_bytes(2, "little")
    first = int(wanted[0] == there[0])
    last = 1 if wanted[1] != there[1] else first
    place, length = entry + entry_format.word_offset + first, last - first + 1
    says = f"says {found * granule:,} bytes, the next one {size * granule:,}"
    message = f"{context.name}: the entry at {entry:#x} {says}"
    expected, found_bytes = wanted[first : last + 1].hex(" "), there[first : last + 1].hex(" ")
    context.log.headers += 1
    context.log.add_finding(
        Finding("size_chain", "error", context.address, place, length, message, expected, found_bytes)
    )


def _unused_in_header(damaged: DamagedHeader, entry: int) -> int:
    """UnusedBytes of the entry at an address, bytes; 0 where its header is not in the dump."""
    context, entry_format = damaged.context, damaged.context.entry_format
    word = context.header_word(entry)
    return 0 if word is None else (word ^ entry_format.unsigned_key) >> entry_format.bits.unused & 0xFF


def _report_one_header(damaged: DamagedHeader, size: int) -> None:
    """Reports a single damaged header and adds the row of its entry. `size`: its granules, by the next good header."""
    context, address = damaged.context, damaged.address
    segment = expected_segment(context, address)
    damage = header_damage(context.entry_format, damaged.word, segment, size, damaged.previous_size)
    if damage is None:
        say_unknown(damaged, DISAGREEMENT)
        return
    state = EntryState.KNOWN
    if damage.word is None:
        state = _add_guess(damaged, size)
    else:
        _add_row(damaged, damage.word, Trust.DERIVED)
    say_one_header(context, address, damaged.reason, damage, size, state)


def say_one_header(
    context: WalkContext, address: int, reason: int, damage: HeaderDamage, size: int, state: EntryState
) -> None:
    """Adds what is said of a single damaged header.

    Args:
        context: the walk of the heap.
        address: of the entry.
        reason: CHECKSUM, PREVIOUS or SIZE of `kernels.nt_chain`.
        damage: of the header.
        size: granules of the entry.
        state: what its row says.
    """
    header = f"{context.name}: the entry header at {address:#x} is damaged ({_REASONS[reason][1]})"
    message, gap = header, None
    if state is not EntryState.KNOWN:
        message = gap = _assumption(header, size * context.entry_format.granule, state)
    place = address + context.entry_format.word_offset + damage.first
    length, found = len(damage.found), damage.found.hex(" ")
    context.log.headers += 1
    finding = Finding("entry_header", "error", context.address, place, length, message, damage.expected, found)
    context.log.add_damage(finding, gap)
    if state is EntryState.BUSY and len(context.log.assumed_busy) <= MOST_ASSUMED_BUSY:
        if_free = _assumption(header, size * context.entry_format.granule, EntryState.COUNTED_AS_FREE)
        context.log.assumed_busy.append(AssumedBusy(address, finding, if_free))


def say_unknown(damaged: DamagedHeader, consequence: str) -> None:
    """Reports that more than one header is damaged, or that no later header holds. `consequence`: the gap, in words."""
    context, place = damaged.context, damaged.address + damaged.context.entry_format.word_offset
    expected, member = _REASONS[damaged.reason]
    if damaged.reason == nt_chain.PREVIOUS:
        expected = f"{expected}: {damaged.previous_size:#x} granules"
    found = f"{member} of {damaged.word.to_bytes(8, 'little').hex(' ')}"
    message = f"{context.name}: the entry header at {damaged.address:#x} is damaged ({member}); {consequence}"
    context.log.headers += 1
    context.log.add_damage(
        Finding("entry_header", "error", context.address, place, 8, message, expected, found),
        f"{message}; blocks between may be missing",
    )


def _assumption(header: str, size: int, state: EntryState) -> str:
    """The message about a header whose Flags are lost. `header`: its first half; `size`: bytes of the entry."""
    return f"{header}; its {size:,} bytes are assumed {state.value}"


def _add_guess(damaged: DamagedHeader, size: int) -> EntryState:
    """Adds the row of an entry whose Flags are not known: free where a free list links it, else busy.

    Before Vista a busy entry may be on a lookaside list; `pre_vista_states` makes those free later.

    Returns:
        The state that the row says.
    """
    context, entry_format = damaged.context, damaged.context.entry_format
    bits, granule = entry_format.bits, entry_format.granule
    if _is_linked(damaged):
        _add_row(damaged, size, Trust.GUESS)
        return EntryState.FREE
    prefixed = has_usual_prefix(entry_format, damaged.window.words, damaged.granule)
    header = context.layout["_HEAP_USERDATA_HEADER"]
    place = damaged.address + (1 + USUAL_PREFIX * bool(prefixed)) * granule + header.offset("Signature")
    is_user_blocks = context.space.try_integer(place, 4) == SIGNATURE
    flags = BUSY_FLAG | INTERNAL_FLAG * (is_user_blocks and not entry_format.is_pre_vista)
    _add_row(
        damaged, size | flags << bits.flags | (FRONT_PREFIX if prefixed else HEADER_BYTES) << bits.unused, Trust.GUESS
    )
    return EntryState.USER_BLOCKS if is_user_blocks else EntryState.BUSY


def _is_linked(damaged: DamagedHeader) -> bool:
    """True where the entry is on a free list, by its own links or by the links of sound free entries."""
    space, pointer = damaged.context.space, damaged.context.view.pointer_bytes
    node = damaged.address + damaged.context.entry_format.granule
    after, before = space.try_pointer(node), space.try_pointer(node + pointer)
    if after and before and space.try_pointer(after + pointer) == node and space.try_pointer(before) == node:
        return True
    return node in damaged.free_nodes()


def _add_row(damaged: DamagedHeader, word: int, trust: Trust) -> None:
    """Adds the row of the entry by its decoded header word `word`."""
    context, entry_format = damaged.context, damaged.context.entry_format
    bits, size, stride = entry_format.bits, word & 0xFFFF, entry_format.stride
    flags, code = word >> bits.flags & 0xFF, word >> bits.unused & 0xFF
    tags = tag(BlockKind.BACKEND, trust=trust) | flags << FLAGS_SHIFT
    unused, header, is_guess = min(entry_format.granule, size * entry_format.granule), 1, False
    if flags & BUSY_FLAG:
        place = (damaged.granule, size)
        unused, header, is_guess = unused_bytes_of_one(entry_format, damaged.window.words, place, code)
        is_internal = flags & INTERNAL_FLAG and not entry_format.is_pre_vista
        tags |= BUSY | (INTERNAL if is_internal else 0) | (TRUST_GUESS if is_guess else 0)
    context.columns.append_row(context.heap.index, (damaged.address, size * stride, unused, header * stride, tags))
