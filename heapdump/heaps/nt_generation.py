"""What differs between generations of the NT heap when its blocks are walked, as data for the walker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from heapdump.blocks.records import Heap
from heapdump.kernels import chain
from heapdump.layouts import Layout, load
from heapdump.process.model import View

_SIGN = 1 << 63


@dataclass(frozen=True, slots=True)
class Generation:
    """`stride`, `lead`: where header words lie (`kernels.chain`); `key`, `mask`: the heap's header encoding."""

    layout: Layout
    is_old: bool
    stride: int
    lead: int
    granule: int
    key: int
    mask: int

    @property
    def walk(self) -> Callable[..., tuple[int, int, int, int]]:
        """The chain kernel of this generation."""
        return chain.chain_old if self.is_old else chain.chain_modern


def generation_of(view: View, heap: Heap) -> Generation:
    """The generation of a verified NT heap: by its layout, and by the encoding in its own header."""
    assert heap.layout is not None
    layout = load(heap.layout)
    struct = layout["_HEAP"]
    wide = view.pointer_bytes == 8
    key = mask = 0
    if "Encoding" in struct:
        # the useful half of an x64 entry header is its second 8 bytes
        key = view.space.try_integer(heap.address + struct.offset("Encoding") + (8 if wide else 0), 8) or 0
        mask = view.space.try_integer(heap.address + struct.offset("EncodeFlagMask"), 4) or 0
    return Generation(
        layout, "Segments" in struct, 2 if wide else 1, 1 if wide else 0, view.granularity, signed(key), mask
    )


def signed(value: int) -> int:
    """A 64-bit word as the kernels take it."""
    return value - 2 * _SIGN if value & _SIGN else value
