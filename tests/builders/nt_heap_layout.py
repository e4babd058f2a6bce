"""Offsets of _HEAP and its parts for every generation, one row each.

In: architecture and build number. Out: a `HeapLayout`. Everything here is restated by hand on purpose and
must stay independent of the tool's own tables: a wrong offset on either side then shows as a failing test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HeapArch = Literal["x64", "x86"]


@dataclass(frozen=True)
class HeapLayout:
    """Offsets within a _HEAP of one generation; `segment_*` are those of a _HEAP_SEGMENT."""

    pointer: int
    size: int
    signature: int
    flags: int
    threshold: int
    segment_reserve: int
    total_free: int
    list_index: int
    header_length: int
    align_round: int
    virtual_blocks: int
    free_lists: int
    lock: int
    front_end: int
    front_end_type: int
    # 6000 and later only
    encode_mask: int = 0
    encoding: int = 0
    pointer_key: int = 0
    ucr_list: int = 0
    segment_list: int = 0
    blocks_index: int = 0
    counters: int = 0
    # 2600 and 3790 only
    segments: int = 0
    unused_ranges: int = 0
    lists_in_use: int = 0
    dedicated_off_count: int = 0
    last_segment: int = 0

    @property
    def granule(self) -> int:
        """Bytes of one heap granule, which is the size of an entry header."""
        return 2 * self.pointer

    @property
    def code(self) -> int:
        """Offset of the eight meaningful header bytes within an entry."""
        return 8 if self.pointer == 8 else 0


def _x86_modern(size: int, front_end: int, counters: int) -> HeapLayout:
    return HeapLayout(
        pointer=4, size=size, flags=0x40, encode_mask=0x4C, encoding=0x50,
        threshold=0x5C, signature=0x60, segment_reserve=0x64, total_free=0x74, list_index=0x7C,
        header_length=0x7E, ucr_list=0x8C, align_round=0x94, virtual_blocks=0x9C, segment_list=0xA4,
        blocks_index=0xB4, free_lists=0xC0, lock=0xC8,
        front_end=front_end, front_end_type=front_end + 6, counters=counters,
    )  # fmt: skip


def _x64_modern(size: int, front_end: int, counters: int) -> HeapLayout:
    return HeapLayout(
        pointer=8, size=size, flags=0x70, encode_mask=0x7C, encoding=0x80,
        threshold=0x94, signature=0x98, segment_reserve=0xA0, total_free=0xC0, list_index=0xD0,
        header_length=0xD2, ucr_list=0xF0, align_round=0x100, virtual_blocks=0x110, segment_list=0x120,
        blocks_index=0x138, free_lists=0x150, lock=0x160,
        front_end=front_end, front_end_type=front_end + 10, counters=counters,
    )  # fmt: skip


def _x86_vista(size: int) -> HeapLayout:
    return HeapLayout(
        pointer=4, size=size, flags=0x40, encode_mask=0x4C, encoding=0x50, pointer_key=0x58,
        threshold=0x60, signature=0x64, segment_reserve=0x68, total_free=0x78, list_index=0x80,
        header_length=0x82, ucr_list=0x90, align_round=0x98, virtual_blocks=0xA0, segment_list=0xA8,
        blocks_index=0xB8, free_lists=0xC4, lock=0xCC,
        front_end=0xD4, front_end_type=0xDA, counters=0xDC,
    )  # fmt: skip


def _x64_vista(size: int) -> HeapLayout:
    return HeapLayout(
        pointer=8, size=size, flags=0x70, encode_mask=0x7C, encoding=0x80, pointer_key=0x90,
        threshold=0x9C, signature=0xA0, segment_reserve=0xA8, total_free=0xC8, list_index=0xD8,
        header_length=0xDA, ucr_list=0xF8, align_round=0x108, virtual_blocks=0x118, segment_list=0x128,
        blocks_index=0x140, free_lists=0x158, lock=0x168,
        front_end=0x178, front_end_type=0x182, counters=0x188,
    )  # fmt: skip


_X86_CLASSIC = HeapLayout(
    pointer=4, size=0x588, signature=0x08, flags=0x0C, threshold=0x14, segment_reserve=0x18,
    total_free=0x28, list_index=0x30, header_length=0x32, unused_ranges=0x44, align_round=0x48,
    virtual_blocks=0x50, segments=0x58, lists_in_use=0x158, dedicated_off_count=0x16C, free_lists=0x178,
    lock=0x578, front_end=0x580, front_end_type=0x586, last_segment=0x587,
)  # fmt: skip
_X64_CLASSIC = HeapLayout(
    pointer=8, size=0xAE8, signature=0x10, flags=0x14, threshold=0x1C, segment_reserve=0x20,
    total_free=0x40, list_index=0x50, header_length=0x52, unused_ranges=0x78, align_round=0x80,
    virtual_blocks=0x90, segments=0xA0, lists_in_use=0x2A0, dedicated_off_count=0x2B4, free_lists=0x2C8,
    lock=0xAC8, front_end=0xAD8, front_end_type=0xAE2, last_segment=0xAE3,
)  # fmt: skip

_X86: tuple[tuple[int, HeapLayout], ...] = (
    (17763, _x86_modern(0x258, 0xE4, 0x1F4)),
    (14393, _x86_modern(0x248, 0xD4, 0x1E4)),
    (9200, _x86_modern(0x248, 0xD0, 0x1E0)),
    (7600, _x86_vista(0x138)),
    (6000, _x86_vista(0x130)),
    (2600, _X86_CLASSIC),
)
_X64: tuple[tuple[int, HeapLayout], ...] = (
    (17763, _x64_modern(0x2C0, 0x198, 0x238)),
    (14393, _x64_modern(0x2A0, 0x178, 0x218)),
    (9200, _x64_modern(0x298, 0x170, 0x210)),
    (7600, _x64_vista(0x208)),
    (6000, _x64_vista(0x1F8)),
    (3790, _X64_CLASSIC),
)


def heap_layout(arch: HeapArch, build: int) -> HeapLayout:
    """Layout of the newest generation that is not newer than `build`.

    Raises:
        ValueError: no such Windows.
    """
    for first, layout in _X64 if arch == "x64" else _X86:
        if build >= first:
            return layout
    raise ValueError(f"no {arch} heap layout for build {build}")
