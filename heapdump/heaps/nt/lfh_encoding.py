"""Encoding of LFH blocks: the key of the process, and the rule that header words follow.

Source: docs/reference/heap-structures.md §3.3. H is the address of the heap, U of the user blocks, S of the subsegment,
K the key RtlpLFHKey. A header word is good when its low bits are

    8.1 and later, x64    32 bits:  entry >> 4 ^ K ^ H ^ (entry - U) << 12
    8.1 and later, x86    32 bits:  entry >> 3 ^ K ^ H ^ (entry - U) << 13
    Vista and 7, x64      40 bits:  (entry ^ H) >> 4 ^ K ^ S >> 4
    XP to 7, x86          32 bits:  entry >> 3 ^ K ^ H ^ S
    Server 2003, x64      as Vista, 32 bits (no source)
    8                     not known: no header is checked

The key is derived from the first user blocks that decode (§3.4): for the offset of block 0 there are few choices, and
the right one makes several headers good.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from heapdump.heaps.nt.context import HeapContext
from heapdump.heaps.nt.lfh_user_blocks import UserBlocks

_U32 = 0xFFFFFFFF
_U40 = (1 << 40) - 1
_FIRST_OFFSETS = range(0x20, 0x1000, 8)
"""Choices for FirstAllocationOffset."""

_CHECKED_BLOCKS = 4
"""Headers that are tried with a choice; one of them may be bad."""


@dataclass(frozen=True, slots=True)
class BlockEncoding:
    """The rule that the header words of the blocks of one subsegment follow.

    A header word as it lies in memory is good when

        (word ^ entry >> shift ^ constant) & mask == ((entry - user_blocks) << distance_shift) & mask

    and the right side is 0 where `distance_shift` is 0.

    Attributes:
        mask: the bits of the header word that are encoded, 32 or 40; 0 where the key is not known: every word is good.
        constant: K ^ H, up to 7 also ^ S, as above, & mask.
        shift: 4 on x64, 3 on x86.
        user_blocks: address of the user blocks.
        distance_shift: 12 on x64, 13 on x86, from 8.1 on; 0 before.
    """

    mask: int
    constant: int
    shift: int
    user_blocks: int
    distance_shift: int

    def key_of(self, word: int, entry: int) -> int:
        """K by the good header word of an entry (§3.4); this rule must be made with the key 0."""
        distance = entry - self.user_blocks << self.distance_shift if self.distance_shift else 0
        return (word ^ entry >> self.shift ^ self.constant ^ distance) & self.mask


def block_encoding(context: HeapContext, user_blocks: UserBlocks, key: int | None) -> BlockEncoding:
    """The rule for the blocks of one subsegment; `key`: None where it is not known."""
    is_x64, address = context.view.pointer_bytes == 8, user_blocks.address
    shift = 4 if is_x64 else 3
    if key is None:
        return BlockEncoding(0, 0, shift, address, 0)
    if _has(context, "EncodedOffsets"):
        return BlockEncoding(_U32, (key ^ context.address) & _U32, shift, address, 12 if is_x64 else 13)
    if not is_x64:
        return BlockEncoding(_U32, (key ^ context.address ^ user_blocks.subsegment) & _U32, shift, address, 0)
    mask = _U32 if context.entry_format.is_pre_vista else _U40
    constant = key ^ context.address >> 4 ^ user_blocks.subsegment >> 4
    return BlockEncoding(mask, constant & mask, shift, address, 0)


def derive_key(context: HeapContext, user_blocks: UserBlocks) -> int | None:
    """K as far as the encoding needs it, from one subsegment; None where nothing decodes: it may be damaged."""
    if _has(context, "EncodedOffsets"):
        return _key_from_offsets(context, user_blocks)
    if _has(context, "FirstAllocationOffset"):
        return None  # Windows 8: its rule is not known
    keyless = block_encoding(context, user_blocks, 0)
    stride = user_blocks.block_granules * context.entry_format.granule
    first = user_blocks.address + context.layout["_HEAP_USERDATA_HEADER"].size
    entries = [first + i * stride for i in range(min(3, user_blocks.block_count))]
    keys = [keyless.key_of(context.header_word(entry) or 0, entry) for entry in entries]
    most_frequent = max(keys, key=keys.count)
    return most_frequent if keys.count(most_frequent) > 1 else None


def _key_from_offsets(context: HeapContext, user_blocks: UserBlocks) -> int | None:
    """8.1 and later: K = EncodedOffsets ^ U ^ FrontEndHeap ^ (FirstAllocationOffset | BlockStride << 16), 32 bits."""
    encoded = _encoded_offsets(context, user_blocks)
    if encoded is None:
        return None
    keyless = block_encoding(context, user_blocks, 0)
    stride = user_blocks.block_granules * context.entry_format.granule
    checked = min(_CHECKED_BLOCKS, user_blocks.block_count)
    key_at = cache(lambda entry: keyless.key_of(context.header_word(entry) or 0, entry))
    for offset in _FIRST_OFFSETS:
        key, first = encoded ^ (offset | stride << 16 & _U32), user_blocks.address + offset
        good = sum(key_at(first + i * stride) == key for i in range(checked))
        if good >= max(1, checked - 1):
            return key
    return None


def first_block_offset(context: HeapContext, user_blocks: UserBlocks, key: int | None) -> int | None:
    """Bytes from the user blocks to block 0; None where the dump lacks it, or it needs a key that is not known."""
    header = context.layout["_HEAP_USERDATA_HEADER"]
    if "FirstAllocationOffset" in header:
        return context.space.try_integer(user_blocks.address + header.offset("FirstAllocationOffset"), 2)
    if "EncodedOffsets" not in header:
        return header.size
    encoded = _encoded_offsets(context, user_blocks)
    return None if encoded is None or key is None else (encoded ^ key) & 0xFFFF


def _encoded_offsets(context: HeapContext, user_blocks: UserBlocks) -> int | None:
    """EncodedOffsets ^ U ^ FrontEndHeap, 32 bits: what K is still to be XORed with."""
    place = user_blocks.address + context.layout["_HEAP_USERDATA_HEADER"].offset("EncodedOffsets")
    encoded = context.space.try_integer(place, 4)
    return None if encoded is None else (encoded ^ user_blocks.address ^ context.heap_pointer("FrontEndHeap")) & _U32


def _has(context: HeapContext, member: str) -> bool:
    """True when the _HEAP_USERDATA_HEADER of the build has the member."""
    return member in context.layout["_HEAP_USERDATA_HEADER"]
