"""Chunk headers of AddressSanitizer, decoded in batches and compared with the shadow.

A header has 16 bytes and ends where the user data begin (LLVM: asan_allocator.cpp, `ChunkHeader`). Two formats:

    offset   LLVM 12 and later                              before LLVM 12
    0        u8 state                                       u32: state in bits 0-7, thread in bits 8-31
    1        u8: function in bits 0-1
    2        u16 bits 32-47 of the size
    4        u32 bits 0-31 of the size                      u32: freeing thread in bits 0-23, function in bits 25-26
    8        u32 id of the allocation stack                 u32: size in bits 0-28
    12       u32 thread                                     u32 id of the allocation stack

State: 2 allocated, 3 in quarantine. Function (`AllocType`): 1 malloc, 2 operator new, 3 operator new[].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.asan.shadow import FREED, IS_ALLOCATED, IS_SPECIAL, Shadow

HEADER = 16
ALLOCATED, QUARANTINED = 2, 3
_U64 = np.uint64
_OLD_SIZE = (1 << 29) - 1


@dataclass(frozen=True, slots=True)
class Chunks:
    """n chunk headers as columns.

    Attributes:
        user: (n,) uint64 address of the user data.
        state: (n,) uint8, see the module.
        size: (n,) uint64 requested bytes.
        stack: (n,) uint64 id of the allocation stack.
        is_there: (n,) True where the dump has the whole header.
        fits: (n,) True where state, function and size are possible and the shadow agrees with them.
    """

    user: NDArray[np.uint64]
    state: NDArray[np.uint8]
    size: NDArray[np.uint64]
    stack: NDArray[np.uint64]
    is_there: NDArray[np.bool_]
    fits: NDArray[np.bool_]


def read_chunks(shadow: Shadow, user: NDArray[np.uint64], *, is_old: bool) -> Chunks:
    """The headers of the chunks with these user addresses. `is_old`: the format before LLVM 12."""
    mapped = shadow.space.mapped
    first, is_there = mapped.gather(user - _U64(HEADER), 8)
    second, has_second = mapped.gather(user - _U64(8), 8)
    state = (first & _U64(0xFF)).astype(np.uint8)
    if is_old:
        function = first >> _U64(57) & _U64(3)
        size, stack = second & _U64(_OLD_SIZE), second >> _U64(32)
    else:
        function = first >> _U64(8) & _U64(3)
        size, stack = first >> _U64(32) | (first >> _U64(16) & _U64(0xFFFF)) << _U64(32), second & _U64(0xFFFFFFFF)
    is_there &= has_second
    sound = is_there & ((state == ALLOCATED) | (state == QUARANTINED)) & (size > 0) & (function > 0)
    return Chunks(user, state, size, stack, is_there, sound & _agrees(shadow, user, state, size))


def _agrees(
    shadow: Shadow, user: NDArray[np.uint64], state: NDArray[np.uint8], size: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """True where the shadow of the chunk's first and last byte is that of a chunk of this state and size; (n,)."""
    first, _ = shadow.at(user)
    last, has_last = shadow.at(user + size - _U64(1))
    tail = (size & _U64(7)).astype(np.uint8)
    allocated = IS_ALLOCATED[first] & ((last == tail) | IS_SPECIAL[last])
    agrees: NDArray[np.bool_] = np.where(state == ALLOCATED, allocated, (first == FREED) & (last == FREED)) & has_last
    return agrees


def is_old_format(shadow: Shadow, sample: NDArray[np.uint64]) -> bool:
    """True when more headers of a sample fit the format before LLVM 12 than the later one. `sample`: user addresses."""
    old, new = (int(read_chunks(shadow, sample, is_old=is_old).fits.sum()) for is_old in (True, False))
    return old > new
