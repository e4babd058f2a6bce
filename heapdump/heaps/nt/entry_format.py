"""The format of entry headers of one NT heap: a header word of 64 bits (docs/reference/heap-structures.md §2.3).

An entry is a whole number of granules and begins with a header of one granule. All members of the header lie in 8
bytes, the *header word*. On x64 it is bytes 8-15 of the 16-byte header; bytes 0-7 belong to the user data of the entry
before. On x86 it is the whole header. Memory is read as little-endian 64-bit words:

    header word of granule g = words[g * stride + word_index]
    decoded header word      = header word ^ key

    bits of the decoded word    Vista and later    XP, Server 2003
    Size                        0-15               0-15
    PreviousSize                32-47              16-31
    Flags                       16-23              40-47
    SmallTagIndex               24-31              32-39
    SegmentOffset, SegmentIndex 48-55              56-63
    UnusedBytes                 56-63              48-55

From Vista on SmallTagIndex is a checksum: bits 24-31 == bits 0-7 ^ bits 8-15 ^ bits 16-23.
"""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.blocks.heap import Heap
from heapdump.heaps.integers import signed64
from heapdump.heaps.nt.header_key import header_key
from heapdump.kernels.nt_chain import HeaderCoding
from heapdump.layouts import Layout, load
from heapdump.process.model import View

ENCODE_FLAG_MASK = 0x00100000
"""`_HEAP.EncodeFlagMask` of heaps that encode headers: the key has this bit, so every encoded header has it as well."""


@dataclass(frozen=True, slots=True)
class MemberBits:
    """The number of the lowest bit of each member of the decoded header word. Size has bits 0-15 in every version.

    Attributes:
        previous_size: PreviousSize, 16 bits.
        flags: Flags, 8 bits.
        segment: SegmentOffset, before Vista SegmentIndex, 8 bits.
        unused: UnusedBytes, 8 bits.
    """

    previous_size: int
    flags: int
    segment: int
    unused: int


_VISTA = MemberBits(previous_size=32, flags=16, segment=48, unused=56)
_PRE_VISTA = MemberBits(previous_size=16, flags=40, segment=56, unused=48)


@dataclass(frozen=True, slots=True)
class EntryFormat:
    """Layout and encoding of the entry headers of one heap.

    Attributes:
        layout: the layout of the build, for structures other than the header.
        is_pre_vista: True for XP and Server 2003: headers are plain and have no checksum.
        bits: where the members lie in the decoded header word.
        stride: 64-bit words in a granule: 2 on x64, 1 on x86.
        word_index: index of the header word among the words of its granule: 1 on x64, 0 on x86.
        granule: bytes in a granule, the unit of Size and PreviousSize: stride * 8, so 16 on x64, 8 on x86.
        key: 64-bit key that header words are XORed with, as a signed integer: `_HEAP.Encoding` & 0x0000FFFFFFFFFFFF.
            Where `mask` is 0, only PreviousSize is encoded: `_HEAP.Encoding` & 0x0000FFFF00000000. Before Vista 0.
        mask: `_HEAP.EncodeFlagMask`: the bit of the header word, before decoding, that is set in every encoded header,
            0x00100000. 0 where headers are plain, and before Vista.
    """

    layout: Layout
    is_pre_vista: bool
    bits: MemberBits
    stride: int
    word_index: int
    granule: int
    key: int
    mask: int

    @property
    def coding(self) -> HeaderCoding:
        """The same, in the form that kernels take."""
        return HeaderCoding(self.stride, self.word_index, self.key, self.mask)

    @property
    def word_offset(self) -> int:
        """Bytes from the entry to its header word: 8 on x64, 0 on x86."""
        return 8 * self.word_index

    @property
    def unsigned_key(self) -> int:
        """The key as an unsigned number of 64 bits."""
        return self.key & (1 << 64) - 1


def entry_format_of(view: View, heap: Heap) -> EntryFormat:
    """The entry format of an NT heap: by its layout, and by the key that `header_key` finds."""
    assert heap.layout is not None
    layout = load(heap.layout)
    struct = layout["_HEAP"]
    is_pre_vista = "Segments" in struct
    stride = view.granularity // 8
    word_index = stride - 1
    key = mask = 0
    if "Encoding" in struct:
        key, mask = header_key(view.space, heap.address, layout)
    if heap.entry_key is not None:
        key, mask = heap.entry_key, ENCODE_FLAG_MASK
    bits = _PRE_VISTA if is_pre_vista else _VISTA
    return EntryFormat(layout, is_pre_vista, bits, stride, word_index, view.granularity, signed64(key), mask)
