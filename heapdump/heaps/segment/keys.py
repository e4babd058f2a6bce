"""The two keys of a process' segment heaps, without symbols: what chunk headers and what LFH offsets are XORed with.

The heap key follows from the signature of a segment, and is verified by the chunks it decodes. Up to 15063 chunks are
coded with the LFH key instead (recorded 14393; the reference has the heap key for all builds): so the words of ntdll's
data are tried too, where both keys stand. What one heap shows holds for the later heaps of its view in the same walk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.walk import Fact
from heapdump.heaps.integers import signed64
from heapdump.heaps.jobs import Job
from heapdump.heaps.ntdll_words import ntdll_words
from heapdump.heaps.segment.vs_recovery import Chunks
from heapdump.layouts import Struct
from heapdump.process.model import Process, View
from heapdump.spans import Span

PADDING = "padding_bytes"
"""The fact that says how many bytes lie in front of user data."""

_PROOF = 8
_FEW = 4
_MOST_CANDIDATES = 64


class Keys:
    """Keys and rules that the walk of the segment heaps of one view has inferred so far; it lives for that walk.

    `chunk`, `slots`: the keys; `padding`: bytes before user data.
    `slot_rule`: the structure of LFH subsegments, and whether 32 bits of their shifted address count; `has_full_slots`:
    most of them were seen to have no room for another block, right behind their commit states; `has_other_bits`: most
    bitmaps were seen to have other unused bits than the recorded builds'.
    """

    def __init__(self, process: Process, view: View) -> None:
        """Nothing is known yet."""
        self._process, self._view = process, view
        self.chunk: int | None = None
        self.slots: int | None = None
        self.slot_rule: tuple[Struct, bool] | None = None
        self.has_full_slots = self.has_other_bits = False
        self.padding: int | None = None

    @cached_property
    def ntdll_words(self) -> NDArray[np.uint64]:
        """See `heaps.ntdll_words`; read once."""
        return ntdll_words(self._process, self._view)

    def facts(self, padding: int) -> dict[str, Fact]:
        """What is known after the walk of one heap, by name; `padding`: of this heap, in bytes."""
        struct, is_wide = self.slot_rule or (None, None)
        return {
            "chunk_key": self.chunk,
            "lfh_key": self.slots,
            "lfh_bitmap_offset": None if struct is None else struct.offset("BlockBitmap"),
            "lfh_key_takes_32_bits": is_wide,
            "has_full_slots": self.has_full_slots,
            "has_other_bits": self.has_other_bits,
            PADDING: padding,
        }


@dataclass
class SegmentHeapJob(Job):
    """One segment heap to walk; `keys`: what the walk has learnt from the heaps of this view before."""

    keys: Keys = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class Chain:
    """The chunks of one subsegment: [start, end)."""

    start: int
    end: int


def chunk_key(job: SegmentHeapJob, chains: Sequence[Chain], likely: Sequence[int]) -> int | None:
    """The key that decodes most of these chains; None where none does.

    What is known and the `likely` ones are tried first, and again behind damage at the chains' starts.
    """
    known, view = job.keys, job.view
    sure = [] if known.chunk is None else [known.chunk]
    best = _best(view, chains[:: max(1, len(chains) // _FEW)], sure, _is_whole) or _best(
        view, chains, likely, _is_whole
    )
    best = best or _best(view, chains, [*sure, *likely], _has_good_headers)
    best = best or _best(view, chains, list(_from_ntdll(job, chains)), _is_whole)
    if best is not None:
        known.chunk = best
    return best


def _best(
    view: View, chains: Sequence[Chain], candidates: Sequence[int], holds: Callable[[View, Chain, int], bool]
) -> int | None:
    found = [(sum(holds(view, chain, key) for chain in chains), key) for key in dict.fromkeys(candidates)]
    score, key = max(found, key=lambda pair: pair[0], default=(0, 0))
    return key if score else None


def _has_good_headers(view: View, chain: Chain, key: int) -> bool:
    """True when some headers in a row hold anywhere in the chain."""
    words, _ = view.space.mapped.words64(Span(chain.start, chain.end))
    is_wide = view.pointer_bytes == 8
    chunks = Chunks(words, chain.start, (chain.end - chain.start) // view.granularity, signed64(key), is_wide)
    return bool(chunks.good_from(0, ()))


def _is_whole(view: View, chain: Chain, key: int) -> bool:
    """True when the chain decodes to its end, or so many of its chunks that only the right key can do it."""
    at, previous = chain.start, 0
    for _ in range(_PROOF):
        if at == chain.end:
            return True
        header = read_header(view, at, key)
        if (
            header is None
            or header[1] != previous
            or not 0 < header[0] * view.granularity <= chain.end - at
            or header[2] > 1
        ):
            return False
        at, previous = at + header[0] * view.granularity, header[0]
    return True


def read_header(view: View, at: int, key: int) -> tuple[int, int, int] | None:
    """(granules of the chunk, of the one before, busy byte) as this key decodes them; None: not in the dump."""
    raw = view.space.try_pointer(at)
    if raw is None:
        return None
    head = raw ^ at ^ key
    if view.pointer_bytes == 8:
        return head >> 16 & 0xFFFF, head >> 32 & 0xFFFF, head >> 48 & 0xFFFF
    return head >> 1 & 0x7FFF, head >> 16 & 0x7FFF, head >> 31 & 1


def _from_ntdll(job: SegmentHeapJob, chains: Sequence[Chain]) -> Iterator[int]:
    """Words of ntdll's data that decode the first chunks of some chains."""
    words, view = job.keys.ntdll_words, job.view
    for chain in chains[:4]:
        raw = view.space.try_pointer(chain.start)
        if raw is None:
            continue
        head = words ^ np.uint64(raw ^ chain.start)
        most = np.uint64((chain.end - chain.start) // view.granularity)
        if view.pointer_bytes == 8:
            size, before, busy = head >> np.uint64(16), head >> np.uint64(32), head >> np.uint64(48)
            size, before = size & np.uint64(0xFFFF), before & np.uint64(0xFFFF)
        else:
            size, before, busy = head >> np.uint64(1), head >> np.uint64(16), head >> np.uint64(31)
            size, before = size & np.uint64(0x7FFF), before & np.uint64(0x7FFF)
        fits = (before == 0) & (size > 0) & (size <= most) & (busy <= 1)
        yield from words[fits][:_MOST_CANDIDATES].tolist()
