"""The first 64 bytes of many blocks, as numbers: what the tests of formats read.

In: addresses and sizes of blocks. Out: `FirstBytes`, whose methods give one number for each block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.memory.mapped import MappedMemory
from heapdump.trust import Trust

FIRST_BYTES = 64
"""Bytes of each block that are read."""

Mask = NDArray[np.bool_]
Numbers = NDArray[np.int64]
_WORD = 8


@dataclass(frozen=True)
class FirstBytes:
    """The first bytes of n blocks. `address` (n,) uint64; `size` (n,) int64: requested bytes.

    `raw` (n, 64) uint8: the first bytes, 0 behind the requested ones; `known` (n,) int64: min(size, 64).
    """

    memory: MappedMemory
    address: NDArray[np.uint64]
    size: Numbers
    raw: NDArray[np.uint8]
    known: Numbers

    def __len__(self) -> int:
        """The number of blocks."""
        return len(self.size)

    def take(self, places: NDArray[np.int64]) -> FirstBytes:
        """The blocks at these places."""
        return FirstBytes(self.memory, self.address[places], self.size[places], self.raw[places], self.known[places])

    def little_endian(self, at: int, width: int) -> Numbers:
        """The little-endian number of `width` bytes, at most 4, at an offset; (n,)."""
        return self.raw[:, at : at + width].astype(np.int64) @ (1 << 8 * np.arange(width, dtype=np.int64))

    def big_endian(self, at: int, width: int) -> Numbers:
        """The big-endian number of `width` bytes, at most 4, at an offset; (n,)."""
        return self.raw[:, at : at + width].astype(np.int64) @ (1 << 8 * np.arange(width, dtype=np.int64)[::-1])

    def is_at(self, at: int, data: bytes) -> Mask:
        """True for blocks with these bytes at an offset; those behind the end of a block count as zeros."""
        same: Mask = (self.raw[:, at : at + len(data)] == np.frombuffer(data, np.uint8)).all(axis=1)
        return same

    def further(self, at: Numbers, width: int) -> Numbers:
        """The little-endian number of `width` bytes, a power of two and at most 4, at an offset of each block's own.

        -1 where the block ends before it, or the dump does not hold it.
        """
        out = np.full(len(self), -1, np.int64)
        inside = np.flatnonzero((at >= 0) & (at + width <= self.size))
        found, is_present = self.memory.gather(self.address[inside] + at[inside].astype(np.uint64), width)
        out[inside] = np.where(is_present, found.astype(np.int64), -1)
        return out


Test = Callable[[FirstBytes], Mask]


def always(blocks: FirstBytes) -> Mask:
    """True for all_of block: the signature is enough."""
    return np.ones(len(blocks), bool)


@dataclass(frozen=True, slots=True)
class Format:
    """A format of data. `word`: its name in tables; `prefix`: the bytes at offset `at` (0 or 4).

    `test`: what its header must fulfil besides. `proof`: a last test of one block's bytes, for signatures of two bytes.
    `detail`: what the first bytes of one block, and its size, say besides the name; "" for nothing.
    """

    word: str
    prefix: bytes
    test: Test = always
    at: int = 0
    trust: Trust = Trust.DERIVED
    proof: Callable[[bytes], bool] | None = None
    detail: Callable[[bytes, int], str] | None = None


def all_of(*masks: Mask | np.bool_) -> Mask:
    """True where all masks are True."""
    good: Mask = np.logical_and.reduce(masks)
    return good


def one_of(values: Numbers, *wanted: int) -> Mask:
    """True for values that are one of the wanted."""
    return np.isin(values, wanted)


def within(values: Numbers, low: int, high: int) -> Mask:
    """True for low <= value <= high."""
    inside: Mask = (values >= low) & (values <= high)
    return inside


def read_first_bytes(memory: MappedMemory, address: NDArray[np.uint64], size: NDArray[np.uint64]) -> FirstBytes:
    """The first bytes of n blocks with these addresses and requested bytes; bytes absent from the dump are 0.

    Some 2 million blocks a second.
    """
    words, _ = read_words(memory, address, FIRST_BYTES // _WORD)
    raw = words.astype("<u8").view(np.uint8).reshape(-1, FIRST_BYTES)
    known = np.minimum(size, np.uint64(FIRST_BYTES)).astype(np.int64)
    short = np.flatnonzero(known < FIRST_BYTES)
    raw[short] = np.where(np.arange(FIRST_BYTES) < known[short, None], raw[short], 0)
    return FirstBytes(memory, address, np.minimum(size, np.uint64(1 << 62)).astype(np.int64), raw, known)


def read_words(memory: MappedMemory, address: NDArray[np.uint64], many: int) -> tuple[NDArray[np.uint64], Mask]:
    """((n, many) words of 8 bytes from each address on, 0 where one is missing; (n, many) True where it is there).

    The place of all words of a block is looked up once, where one range of the dump holds them.
    """
    place = memory.places(address, _WORD * many)
    words, is_there = np.zeros((len(address), many), np.uint64), np.ones((len(address), many), bool)
    present = np.flatnonzero(place >= 0)
    phases = place[present] % _WORD
    for phase in np.unique(phases).tolist():
        rows = present[phases == phase]
        first = (place[rows] // _WORD)[:, None] + np.arange(many)
        words[rows] = memory.file_words(phase).view(np.uint64)[first]
    rows = np.flatnonzero(place < 0)
    for number in range(many if len(rows) else 0):
        words[rows, number], is_there[rows, number] = memory.gather(address[rows] + np.uint64(number * _WORD), _WORD)
    return words, is_there
