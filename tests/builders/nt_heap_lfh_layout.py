"""Layouts and codes of the low fragmentation heap, from Windows XP to 11.

In: architecture, build, addresses, the process-wide key. Out: offsets, and the bytes of a block's header. Everything here
is restated by hand on purpose and must stay independent of the tool's own tables. Every formula holds for each LFH block
of the recordings of 2600 x86, 7601 x64 and x86, 9200 x86, 9600 to 26100 x64 and 19041 x86 (`tests/real/test_lfh_coding.py`).
Never seen are 3790 x64, 6000 to 6002 and 9200 x64: there the formula is that of the nearest build.
"""

from __future__ import annotations

from dataclasses import dataclass

from .nt_heap_layout import HeapArch

SIGNATURE = 0xF0E0D0C0
_U32 = 0xFFFFFFFF


@dataclass(frozen=True)
class LfhLayout:
    """Offsets in bytes; `signature` to `bits` of _HEAP_USERDATA_HEADER, `exchange` to `size_index` of _HEAP_SUBSEGMENT.

    `header_bytes`: distance of block 0 from the user data header where there is no bitmap. `offsets`, `bitmap` and
    `bits` (FirstAllocationOffset and BlockStride, BusyBitmap, BitmapData) are 0 before Windows 8. `context_bytes`,
    `zones` and `back`: size of _LFH_HEAP, its list of zones, its pointer to the heap.
    """

    pointer: int
    build: int
    signature: int
    header_bytes: int
    exchange: int
    block_size: int
    block_count: int
    size_index: int
    subsegment_bytes: int
    context_bytes: int
    zones: int
    back: int
    offsets: int = 0
    bitmap: int = 0
    bits: int = 0

    @property
    def granule(self) -> int:
        """Bytes of an entry header, the unit of block sizes."""
        return 2 * self.pointer

    @property
    def user_blocks(self) -> int:
        """Offset of the pointer from a subsegment to its user data header."""
        return self.pointer

    @property
    def zone_header_bytes(self) -> int:
        """Bytes of a zone before its first subsegment."""
        return 4 * self.pointer

    @property
    def is_classic(self) -> bool:
        """True before Vista: flags and unused bytes have bytes of their own in a block's header."""
        return self.build < 6000

    @property
    def has_encoded_offsets(self) -> bool:
        """True from 8.1 on: offsets are encoded, and a header's code holds the distance to the user data header."""
        return self.build >= 9600

    @property
    def code_bytes(self) -> int:
        """Bytes at the start of a block's header word that its code takes."""
        return 5 if self.pointer == 8 and 6000 <= self.build < 9600 else 4

    def first_offset(self, count: int) -> int:
        """Bytes from the user data header to block 0 of `count` blocks."""
        if not self.bitmap:
            return self.header_bytes
        return (self.header_bytes + (count + 31) // 8) & -self.granule

    def encoded_offsets(self, *, key: int, context: int, user_blocks: int, first: int, stride: int) -> int:
        """The u32 at `offsets`; `context` is the address of _LFH_HEAP. Plain in Windows 8.0."""
        plain = first | stride << 16
        return (plain ^ user_blocks ^ context ^ key) & _U32 if self.has_encoded_offsets else plain

    def code(self, *, key: int, heap: int, subsegment: int, user_blocks: int, entry: int) -> bytes:
        """The code at the start of the header word of the block at `entry`."""
        shift = 4 if self.pointer == 8 else 3
        if self.has_encoded_offsets:
            value = (entry - user_blocks << (12 if self.pointer == 8 else 13)) ^ entry >> shift ^ key ^ heap
        elif self.pointer == 8:
            value = key ^ (entry ^ heap ^ subsegment) >> 4
        else:
            value = key ^ entry >> 3 ^ heap ^ subsegment
        return (value & (1 << 8 * self.code_bytes) - 1).to_bytes(self.code_bytes, "little")

    def header_word(self, code: bytes, number: int, unused: int | None, stale: int) -> bytes:
        """The 8 bytes that count of block `number`'s header.

        `unused`: its unused bytes as the byte says them, None for a free block. `stale`: byte that the allocator left
        as it found it.
        """
        left = bytes([stale])
        if self.is_classic:
            return code + left + bytes([unused is not None, 8 if unused is None else unused, 0xFF])
        state = bytes([0x80 | (unused or 0)])
        if self.bitmap:
            return (code + left)[:5] + number.to_bytes(2, "little") + state
        return (code + 2 * left)[:6] + b"\0" + state


def _x86_old(build: int, context_bytes: int) -> LfhLayout:
    return LfhLayout(
        pointer=4, build=build, signature=0xC, header_bytes=0x10, exchange=8, block_size=0x10, block_count=0x14,
        size_index=0x16, subsegment_bytes=0x20, context_bytes=context_bytes, zones=0x18, back=0x24,
    )  # fmt: skip


def _x64_old(build: int, context_bytes: int) -> LfhLayout:
    return LfhLayout(
        pointer=8, build=build, signature=0x18, header_bytes=0x20, exchange=0x10, block_size=0x18, block_count=0x1C,
        size_index=0x1E, subsegment_bytes=0x30, context_bytes=context_bytes, zones=0x28, back=0x40,
    )  # fmt: skip


def _x86_new(build: int) -> LfhLayout:
    return LfhLayout(
        pointer=4, build=build, signature=0xC, header_bytes=0x20, exchange=0x10, block_size=0x14, block_count=0x18,
        size_index=0x1A, subsegment_bytes=0x28, context_bytes=0x7E8, zones=4, back=0xC,
        offsets=0x10, bitmap=0x14, bits=0x1C,
    )  # fmt: skip


def _x64_new(build: int) -> LfhLayout:
    return LfhLayout(
        pointer=8, build=build, signature=0x14, header_bytes=0x40, exchange=0x20, block_size=0x24, block_count=0x28,
        size_index=0x2A, subsegment_bytes=0x40, context_bytes=0xCF0, zones=8, back=0x18,
        offsets=0x18, bitmap=0x20, bits=0x30,
    )  # fmt: skip


def lfh_layout(arch: HeapArch, build: int) -> LfhLayout:
    """The layout of a build; `context_bytes` before Vista is that of 2600, on x64 twice as much (not seen)."""
    if build >= 9200:
        return _x64_new(build) if arch == "x64" else _x86_new(build)
    if arch == "x64":
        return _x64_old(build, 0x1CFF0 if build < 6000 else 0x6420)
    return _x86_old(build, 0xE7F8 if build < 6000 else 0x3728)
