"""The low fragmentation heap of an NT heap in the making: its context, zones, subsegments and their blocks.

In: entries that `NtHeapBuilder` appended for it. Out: bytes in a `MemoryImage`, and the truth. Restated by hand on
purpose; nothing of the tool under test is imported.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

from .memory_image import MemoryImage
from .nt_heap_lfh_layout import SIGNATURE, LfhLayout
from .nt_heap_records import Entry, HeapPlan, Subsegment
from .nt_heap_truth import LfhBlockTruth, SubsegmentTruth

ZONE_BYTES = 1024
"""Bytes of the entry of a zone."""

FREE = -1
_END_OF_CHAIN = 0xFFFF
_LONG, _LONG_CLASSIC, _PREFIX = 0x3F, 0xFF, 0x42

Append = Callable[[int], Entry]
"""Appends an internal entry for a request of this size."""


class LfhPlan:
    """Plans the front end of one heap; `context` is the entry of its _LFH_HEAP."""

    def __init__(self, layout: LfhLayout, context: Entry) -> None:
        """Begin without any zone."""
        self.layout, self.context = layout, context
        self.zones: list[Entry] = []
        self.subsegments: list[Subsegment] = []

    def add(self, append: Append, units: int, asked: Sequence[int], trace: int, spare: int) -> Subsegment:
        """Appends a zone where none has room left, then the user blocks of a new subsegment.

        Raises:
            ValueError: the blocks cannot be of this size, or not hold that.
        """
        at, p = self.layout, self.layout.pointer
        stride = units * at.granule
        most = stride - 8 - (2 * at.granule if trace else 0)
        if not asked or units < 2 or stride > 0xFFFF or max(asked) > most or (trace and at.is_classic):
            raise ValueError(
                f"no subsegment has {len(asked)} blocks of {stride} bytes for up to {max(asked, default=0)}"
            )
        if at.is_classic and p == 8 and any(0 <= size <= stride - _LONG_CLASSIC for size in asked):
            raise ValueError("where x64 puts counts of 255 unused bytes and more before Vista is not known")
        per_zone = (ZONE_BYTES - at.granule - at.zone_header_bytes) // at.subsegment_bytes
        number = len(self.subsegments) % per_zone
        if number == 0:
            self.zones.append(append(ZONE_BYTES - (at.granule if p == 8 else 8)))
        address = self.zones[-1].address + at.granule + at.zone_header_bytes + number * at.subsegment_bytes
        first = at.first_offset(len(asked))
        # on x64 the last block's user area reaches 8 bytes beyond it
        entry = append(first + stride * len(asked) + (8 if p == 8 else 0) + spare)
        self.subsegments.append(Subsegment(address, entry, units, first, tuple(asked), trace))
        return self.subsegments[-1]


class LfhEncoder:
    """Writes the front end of one heap."""

    def __init__(self, plan: HeapPlan, front_end: LfhPlan, image: MemoryImage) -> None:
        """Prepare; what the allocator leaves as it finds it comes from the plan's seed."""
        self._plan, self._at, self._image = plan, front_end.layout, image
        self._front_end = front_end
        self._context = front_end.context.address + front_end.layout.granule
        self._random = random.Random(plan.seed)

    def encode(self) -> None:
        """Write everything into the image, whose runs are committed already."""
        at, image = self._at, self._image
        zones = [entry.address + at.granule for entry in self._front_end.zones]
        image.ring(self._context + at.zones, zones)
        image.word(self._context + at.back, self._plan.base)
        per_zone = (ZONE_BYTES - at.granule - at.zone_header_bytes) // at.subsegment_bytes
        for i, zone in enumerate(zones):
            used = min(per_zone, len(self._front_end.subsegments) - i * per_zone)
            if at.build >= 9600:
                image.u32(zone + 2 * at.pointer, used)  # NextIndex
            else:  # FreePointer, Limit
                free = zone + at.zone_header_bytes + used * at.subsegment_bytes
                image.word(zone + 2 * at.pointer, free, zone + ZONE_BYTES - at.granule)
        for subsegment in self._front_end.subsegments:
            self._header(subsegment)
            self._descriptor(subsegment)
            for number in range(len(subsegment.asked)):
                self._block(subsegment, number)
            if not at.bitmap:
                self._chain(subsegment)

    def _header(self, subsegment: Subsegment) -> None:
        """_HEAP_USERDATA_HEADER."""
        at, image, user = self._at, self._image, subsegment.user_blocks(self._at.granule)
        image.word(user, subsegment.address, self._plan.base)
        image.u8(user + 2 * at.pointer, (subsegment.entry.units * at.granule - 1).bit_length())
        image.u32(user + at.signature, SIGNATURE)
        if not at.bitmap:
            return
        stride = subsegment.units * at.granule
        offsets = at.encoded_offsets(
            key=self._plan.lfh_key, context=self._context, user_blocks=user, first=subsegment.first, stride=stride
        )
        image.u32(user + at.offsets, offsets)
        count = len(subsegment.asked)
        image.u32(user + at.bitmap, count)
        image.word(user + at.bitmap + at.pointer, user + at.bits)
        word_bits = 8 * at.pointer
        whole = -(-count // word_bits) * word_bits  # the bits behind the last block's are set
        bits = (1 << whole) - 1 & ~sum(1 << i for i, size in enumerate(subsegment.asked) if size == FREE)
        image.write(user + at.bits, bits.to_bytes(whole // 8, "little"))

    def _descriptor(self, subsegment: Subsegment) -> None:
        """_HEAP_SUBSEGMENT."""
        at, image = self._at, self._image
        image.word(subsegment.address, self._context + 0x100, subsegment.user_blocks(at.granule))
        free = [i for i, size in enumerate(subsegment.asked) if size == FREE]
        if at.bitmap:
            hint = free[0] if free else 0
        else:
            hint = self._granules(subsegment, free[-1]) if free else _END_OF_CHAIN
        image.write(subsegment.address + at.exchange, struct.pack("<HH", len(free), hint))
        image.u16(subsegment.address + at.block_size, subsegment.units)
        image.u16(subsegment.address + at.block_count, len(subsegment.asked))
        image.u8(subsegment.address + at.size_index, min(subsegment.units - 1, 0x7F))

    def _granules(self, subsegment: Subsegment, number: int) -> int:
        """Granules from the user data header to a block."""
        return subsegment.first // self._at.granule + number * subsegment.units

    def _chain(self, subsegment: Subsegment) -> None:
        """Before Windows 8 each free block names the one freed before it, in granules from the user data header."""
        following = _END_OF_CHAIN
        for number, size in enumerate(subsegment.asked):
            if size == FREE:
                self._image.u16(subsegment.block(number, self._at.granule) + self._at.granule, following)
                following = self._granules(subsegment, number)

    def _block(self, subsegment: Subsegment, number: int) -> None:
        at, image, size = self._at, self._image, subsegment.asked[number]
        stride, entry = subsegment.units * at.granule, subsegment.block(number, at.granule)
        code = at.code(
            key=self._plan.lfh_key, heap=self._plan.base, subsegment=subsegment.address,
            user_blocks=subsegment.user_blocks(at.granule), entry=entry,
        )  # fmt: skip
        unused: int | None = None
        user = entry + at.granule
        if size != FREE:
            unused = stride - size
            if subsegment.trace:
                image.word(user, subsegment.trace)
                second = user + at.granule + (8 if at.pointer == 8 else 0)
                image.write(second, struct.pack("<IHBB", 1, unused, 2, 5))
                user += 2 * at.granule
                unused = _PREFIX
            elif unused >= (_LONG_CLASSIC if at.is_classic else _LONG):
                image.word(entry + stride - (0 if at.pointer == 8 else 4), unused)
                unused = _LONG_CLASSIC if at.is_classic else _LONG
            image.write(user, bytes([0xA0 | number & 0xF]) * size)
        word = at.header_word(code, number, unused, self._random.randrange(256))
        image.write(entry + (8 if at.pointer == 8 else 0), word)


def subsegment_truth(layout: LfhLayout, subsegment: Subsegment) -> SubsegmentTruth:
    """What a subsegment holds."""
    granule = layout.granule
    stride, lead = subsegment.units * granule, granule * (3 if subsegment.trace else 1)
    user = subsegment.user_blocks(granule)
    blocks = tuple(
        LfhBlockTruth(entry, entry + (granule if size == FREE else lead), None if size == FREE else size, stride)
        for number, size in enumerate(subsegment.asked)
        for entry in [subsegment.block(number, granule)]
    )
    return SubsegmentTruth(subsegment.address, user, subsegment.entry.address, blocks)
