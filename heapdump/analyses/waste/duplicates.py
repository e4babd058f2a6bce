"""Busy blocks of equal content, and blocks that hold only zeros.

In: rows of the block table. Out: `Copies`. Blocks of one size whose first, middle and last 8 bytes are equal are
compared whole, by a hash of 128 bits.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.table import BlockTable
from heapdump.memory.space import AddressSpace

_WORD = 8
_SALTS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)


@dataclass(frozen=True, slots=True)
class Copies:
    """Busy blocks of equal content.

    Attributes:
        rows: of the block table, ascending.
        size: requested bytes of each; None for blocks that hold only zeros, whose sizes differ.
        bytes: requested bytes of all.
    """

    rows: tuple[int, ...]
    size: int | None
    bytes: int

    @property
    def saved(self) -> int:
        """Bytes that could be saved: those of all blocks but one; of blocks of zeros those of all."""
        return self.bytes if self.size is None else self.bytes - self.size


def find_copies(space: AddressSpace, table: BlockTable, rows: NDArray[np.int64]) -> list[Copies]:
    """The groups of two blocks or more with equal content, and the blocks of zeros as one group.

    `rows`: of busy blocks. Reads 24 bytes of each block, and whole those that may be equal.
    """
    groups: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    zeros: list[int] = []
    zero_bytes = 0
    for row, address, size in _candidates(space, table, rows):
        data = space.try_read(address, size)
        if data is None:
            continue
        if not data.strip(b"\0"):
            zeros.append(row)
            zero_bytes += size
        else:
            groups[size, hashlib.blake2b(data, digest_size=16).digest()].append(row)
    found = [Copies(tuple(same), size, size * len(same)) for (size, _), same in groups.items() if len(same) > 1]
    return found + ([Copies(tuple(zeros), None, zero_bytes)] if zeros else [])


def _candidates(space: AddressSpace, table: BlockTable, rows: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """(row, address, size) of blocks that may have a copy, and of those that may be zeros, ascending by row."""
    address, size = table.addresses(rows), table.sizes(rows)
    middle = address + (size // np.uint64(2) & ~np.uint64(_WORD - 1))
    key, is_zero = size.copy(), np.ones(len(rows), bool)
    for place, salt in zip((address, middle, address + size - np.uint64(_WORD)), _SALTS, strict=True):
        word, is_present = space.mapped.gather(place, _WORD)
        is_zero &= is_present & (word == 0)
        key = (key ^ word) * np.uint64(salt)
        key ^= key >> np.uint64(29)
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    same = ordered[1:] == ordered[:-1]
    has_twin = np.zeros(len(rows), bool)
    has_twin[order[1:][same]] = has_twin[order[:-1][same]] = True
    chosen = np.flatnonzero(has_twin | is_zero)
    return zip(rows[chosen].tolist(), address[chosen].tolist(), size[chosen].tolist(), strict=True)
