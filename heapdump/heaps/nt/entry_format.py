"""What differs between entry_formats of the NT heap when its blocks are walked, as data for the walker."""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.blocks.heap import Heap
from heapdump.layouts import Layout, load
from heapdump.process.model import View

_SIGN = 1 << 63
_ENCODED, _PREVIOUS_SIZE = 0xFFFF_FFFF_FFFF, 0xFFFF_0000_0000


@dataclass(frozen=True, slots=True)
class EntryFormat:
    """`stride`, `word_index`: where header words lie (`kernels.chain`); `mask`: EncodeFlagMask, 0 = headers are plain.

    `key`: what the 8 meaningful bytes of every header are XORed with. PreviousSize is so even where `mask` is 0, the
    last two bytes never are (heap-structures.md §2.3).
    """

    layout: Layout
    is_pre_vista: bool
    stride: int
    word_index: int
    granule: int
    key: int
    mask: int


def entry_format_of(view: View, heap: Heap) -> EntryFormat:
    """The entry_format of a verified NT heap: by its layout, and by the encoding in its own header."""
    assert heap.layout is not None
    layout = load(heap.layout)
    struct = layout["_HEAP"]
    wide = view.pointer_bytes == 8
    key = mask = 0
    if "Encoding" in struct:
        # the useful half of an x64 entry header is its second 8 bytes
        key = view.space.try_integer(heap.address + struct.offset("Encoding") + (8 if wide else 0), 8) or 0
        key &= _ENCODED
        mask = view.space.try_integer(heap.address + struct.offset("EncodeFlagMask"), 4) or 0
    key = key if mask else key & _PREVIOUS_SIZE
    return EntryFormat(
        layout, "Segments" in struct, 2 if wide else 1, 1 if wide else 0, view.granularity, signed(key), mask
    )


def signed(value: int) -> int:
    """A 64-bit word as the kernels take it."""
    return value - 2 * _SIGN if value & _SIGN else value
