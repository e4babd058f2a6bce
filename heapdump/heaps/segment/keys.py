"""Keys and rules that are common to all segment heaps of one view, as a walk finds them.

Formulas: docs/reference/heap-structures.md §6.4, §6.5, §6.8, §6.9.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.walk import Fact, HeapFacts
from heapdump.heaps.ntdll_words import ntdll_words
from heapdump.layouts import Struct
from heapdump.process.model import Process, View

_PADDING_FACT = "padding_bytes"
_MOST_PADDING_BYTES = 16


@dataclass(frozen=True, slots=True)
class LfhCoding:
    """Layout and coding of the headers of LFH subsegments (docs/reference/heap-structures.md §6.5).

    For the header at address a, with u32(x) = x & 0xFFFFFFFF, the decoded BlockOffsets (32 bits) is

        BlockOffsets ^ key ^ (u32(a) >> 12)     up to 22000
        BlockOffsets ^ key ^ u32(a >> 12)       26100

    Its bits 0-15 are the bytes of a block, bits 16-31 the bytes from a to the first block.

    Attributes:
        struct: the version of the structure.
        key: 32 bits, the low half of the process's LfhKey.
        shifts_first: True for the formula of 26100.
    """

    struct: Struct
    key: int
    shifts_first: bool


class RangeCodes(NamedTuple):
    """The codes of LFH and VS subsegments in the flags of page descriptors; plain pages have 0 (`range_codes`)."""

    lfh: int
    vs: int


class Keys:
    """Keys and rules that one walk of all segment heaps of a view has found so far.

    Later heaps use the values that earlier heaps have shown. An object lives for one walk. `facts` makes them part of
    the result of the walk.

    Attributes:
        vs_key: key of VS chunk headers, 64 bits on x64 and 32 on x86: the sizes word of the chunk at address a is
            u64[a] ^ a ^ vs_key (x86: u32[a]). It is the process's HeapKey, up to 15063 its LfhKey. None: not known.
        vs_page_offset_key: bits 0-7 of the key that page offsets in headers of busy VS chunks are encoded with
            (`vs_page_offsets`). None: not known, or the build writes no page offsets.
        lfh: coding of LFH subsegment headers. None: not known.
        range_codes: codes of the kinds of page ranges. None: no heap with two subsegments was walked.
        lfh_subsegments_are_full: True where in most LFH subsegments blocks begin directly behind the commit states and
            one more block does not fit. Then any two of block size, number and offset determine the third.
        lfh_has_other_unused_bits: True where most LFH bitmaps have other bits behind the last block than recorded
            builds; then these bits prove no damage.
        padding_bytes: bytes between the start of a block, or the end of its VS chunk header, and its user data: 0, 8
            (x86) or 16 (x64). None: no heap with enough blocks was walked.
    """

    def __init__(self, process: Process, view: View) -> None:
        """Nothing is known yet."""
        self._process, self._view = process, view
        self.vs_key: int | None = None
        self.vs_page_offset_key: int | None = None
        self.lfh: LfhCoding | None = None
        self.range_codes: RangeCodes | None = None
        self.lfh_subsegments_are_full = False
        self.lfh_has_other_unused_bits = False
        self.padding_bytes: int | None = None

    @cached_property
    def ntdll_words(self) -> NDArray[np.uint64]:
        """The words of ntdll's memory (`heaps.ntdll_words`), read once."""
        return ntdll_words(self._process, self._view)

    def facts(self, padding_bytes: int) -> dict[str, Fact]:
        """Name → value of all keys and rules, as facts of a heap whose rows were made with this padding."""
        return {
            "vs_key": self.vs_key,
            "vs_page_offset_key": self.vs_page_offset_key,
            "lfh_key": None if self.lfh is None else self.lfh.key,
            "lfh_layout": self._lfh_layout(),
            "lfh_shifts_first": None if self.lfh is None else self.lfh.shifts_first,
            "lfh_range_code": None if self.range_codes is None else self.range_codes.lfh,
            "vs_range_code": None if self.range_codes is None else self.range_codes.vs,
            "lfh_subsegments_are_full": self.lfh_subsegments_are_full,
            "lfh_has_other_unused_bits": self.lfh_has_other_unused_bits,
            _PADDING_FACT: padding_bytes,
        }

    def _lfh_layout(self) -> str | None:
        """The name of the layout that `lfh.struct` comes from; None without one."""
        name = "_HEAP_LFH_SUBSEGMENT"
        layouts = (layout for layout in self._view.layouts if self.lfh is not None and name in layout)
        return next((layout.name for layout in layouts if self.lfh and layout[name] is self.lfh.struct), None)


def padding_fact(facts: HeapFacts) -> int:
    """The padding bytes by the facts of a walked heap; 0 where they name none, or an impossible number."""
    padding = facts.get(_PADDING_FACT)
    return padding if type(padding) is int and 0 < padding <= _MOST_PADDING_BYTES else 0
