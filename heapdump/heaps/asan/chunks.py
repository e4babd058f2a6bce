"""Chunk headers of AddressSanitizer, decoded in batches and held against the shadow.

A header has 16 bytes and ends where the user data begin. Two formats (LLVM: asan_allocator.cpp):

    LLVM 12 and later  u8 state · u8 kind in bits 0-1 · u16 size, bits 32-47 · u32 size, bits 0-31 · u32 stack id · u32 thread
    before             u32 state in bits 0-7, thread · u32 freeing thread, kind in bits 25-26 · u32 size in bits 0-28 · u32 stack id

State: 2 allocated, 3 in quarantine. Kind: 1 malloc, 2 new, 3 new[].
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
    """Chunk headers as columns of one length.

    `user`: (n,) uint64 addresses of user data. `state`: (n,) uint8. `size`: (n,) uint64 requested bytes. `stack`: (n,)
    uint64 id of the allocation stack. `is_there`: (n,) bool, whether the dump has the header. `fits`: (n,) bool, whether
    state, kind and size make sense and the shadow agrees with them.
    """

    user: NDArray[np.uint64]
    state: NDArray[np.uint8]
    size: NDArray[np.uint64]
    stack: NDArray[np.uint64]
    is_there: NDArray[np.bool_]
    fits: NDArray[np.bool_]


def read_chunks(shadow: Shadow, user: NDArray[np.uint64], *, is_old: bool) -> Chunks:
    """The headers before these addresses, in the format before LLVM 12 (`is_old`) or the later one."""
    mapped = shadow.space.mapped
    first, is_there = mapped.gather(user - _U64(HEADER), 8)
    second, has_second = mapped.gather(user - _U64(8), 8)
    state = (first & _U64(0xFF)).astype(np.uint8)
    if is_old:
        kind = first >> _U64(57) & _U64(3)
        size, stack = second & _U64(_OLD_SIZE), second >> _U64(32)
    else:
        kind = first >> _U64(8) & _U64(3)
        size, stack = first >> _U64(32) | (first >> _U64(16) & _U64(0xFFFF)) << _U64(32), second & _U64(0xFFFFFFFF)
    is_there &= has_second
    sound = is_there & ((state == ALLOCATED) | (state == QUARANTINED)) & (size > 0) & (kind > 0 if not is_old else True)
    return Chunks(user, state, size, stack, is_there, sound & _agrees(shadow, user, state, size))


def _agrees(
    shadow: Shadow, user: NDArray[np.uint64], state: NDArray[np.uint8], size: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """True where the shadow of the first and of the last byte is that of a chunk of this state and size."""
    first, _ = shadow.at(user)
    last, has_last = shadow.at(user + size - _U64(1))
    tail = (size & _U64(7)).astype(np.uint8)
    allocated = IS_ALLOCATED[first] & ((last == tail) | IS_SPECIAL[last])
    agrees: NDArray[np.bool_] = np.where(state == ALLOCATED, allocated, (first == FREED) & (last == FREED)) & has_last
    return agrees


def is_old_format(shadow: Shadow, sample: NDArray[np.uint64]) -> bool:
    """True when more headers of a sample fit in the format before LLVM 12 than in the later one."""
    old, new = (int(read_chunks(shadow, sample, is_old=is_old).fits.sum()) for is_old in (True, False))
    return old > new
