"""The nature of a word, as a letter: zero, a pointer, a number, text, and so on.

In: words of memory. Out: letters, the values of `Letter`. A word of 8 bytes may hold two numbers of 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Letters = NDArray[np.uint8]
Words = NDArray[np.uint64]
Mask = NDArray[np.bool_]


class Letter(IntEnum):
    """The nature of a word.

    BEYOND: it lies behind the end of the block, or is not in the dump. ZERO: 0. FILL: one repeated byte. MODULE: an
    address in a module. STALE: an address in a heap that is in no busy block of the program. POINTER: an address in a
    busy block. FIRST, SECOND, THIRD: likewise, of the three size classes that most pointers at this offset lead to.
    TIME: a FILETIME (100 ns since 1601) of the years 2000 to 2043. NUMBER, FLOAT, TEXT: data. OTHER: none of these.
    """

    BEYOND = 0
    ZERO = 1
    POINTER = 2
    NUMBER = 3
    FLOAT = 4
    TEXT = 5
    MODULE = 6
    OTHER = 7
    TIME = 8
    FILL = 9
    STALE = 10
    FIRST = 11
    SECOND = 12
    THIRD = 13


LETTERS = len(Letter)
NEUTRAL = (Letter.BEYOND, Letter.ZERO, Letter.FILL)
"""Letters that every kind of field can have for a while."""

POINTERS = (Letter.POINTER, Letter.FIRST, Letter.SECOND, Letter.THIRD)

_SMALL, _NEARLY_ALL_ONES = 1 << 16, 0xFFFF0000
_TIMES = 0x01BF53EB, 0x02200000
"""Upper halves of times."""

_SHORT_TEXT = 3


@dataclass(frozen=True)
class PointerEdges:
    """Spans of modules and of heaps: (2 k,) uint64 each, start and end of each span by turns, ascending."""

    modules: Words
    heaps: Words


def plain_letters(values: Words, width: int, edges: PointerEdges) -> Letters:
    """(n,) uint8 letters of words of `width` bytes that are no pointers to busy blocks: the first letter that fits."""
    low, high = values & np.uint64(0xFFFFFFFF), values >> np.uint64(32)
    raw = values.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :width]
    is_repeated = (raw == raw[:, :1]).all(axis=1)
    in_order = [
        (values == 0, Letter.ZERO),
        (values < _SMALL, Letter.NUMBER),
        (is_repeated & (raw[:, 0] == 0xFF), Letter.NUMBER),
        (is_repeated, Letter.FILL),
        (_within(edges.modules, values), Letter.MODULE),
        (_within(edges.heaps, values), Letter.STALE),
        (_is_text(raw), Letter.TEXT),
    ]
    if width == 4:
        in_order += [(_is_single(low), Letter.FLOAT), (low >= _NEARLY_ALL_ONES, Letter.NUMBER)]
    else:
        half = (_is_small(low) & _is_small(high)) | (high == 0)
        in_order += [
            ((high >= _TIMES[0]) & (high < _TIMES[1]), Letter.TIME),
            (_is_double(values) | _are_singles(low, high), Letter.FLOAT),
            (half, Letter.NUMBER),
        ]
    masks, choices = [mask for mask, _ in in_order], [np.uint8(letter) for _, letter in in_order]
    return np.select(masks, choices, np.uint8(Letter.OTHER))


def _within(edges: Words, values: Words) -> Mask:
    """True for values in a span."""
    inside: Mask = np.zeros(len(values), bool)
    if len(edges):
        near = np.flatnonzero((values >= edges[0]) & (values < edges[-1]))
        inside[near] = np.searchsorted(edges, values[near], side="right") % 2 == 1
    return inside


def _is_small(halves: Words) -> Mask:
    """True for numbers of 4 bytes near 0, negative ones too."""
    small: Mask = (halves < _SMALL) | (halves >= _NEARLY_ALL_ONES)
    return small


def _is_single(halves: Words) -> Mask:
    """True for 4 bytes that are a floating-point number from 2^-20 to 2^30 in size."""
    exponent = (halves >> np.uint64(23)) & np.uint64(0xFF)
    good: Mask = (exponent >= 127 - 20) & (exponent <= 127 + 30)
    return good


def _are_singles(low: Words, high: Words) -> Mask:
    """True for two such numbers, or one and a zero."""
    first, second = _is_single(low), _is_single(high)
    both: Mask = (first & (second | (high == 0))) | (second & (low == 0))
    return both


def _is_double(values: Words) -> Mask:
    """True for 8 bytes that are a floating-point number from 2^-30 to 2^30 in size."""
    exponent = (values >> np.uint64(52)) & np.uint64(0x7FF)
    good: Mask = (exponent >= 1023 - 30) & (exponent <= 1023 + 30)
    return good


def _is_text(raw: NDArray[np.uint8]) -> Mask:
    """True for 3 printable bytes or more before the first zero, or 2 UTF-16 units of ASCII or more; (n,) bool."""
    printable = ((raw >= 0x20) & (raw < 0x7F)) | (raw == 9) | (raw == 10) | (raw == 13)
    ended = np.logical_or.accumulate(raw == 0, axis=1)
    narrow = (printable ^ ended).all(axis=1) & (printable[:, :_SHORT_TEXT].all(axis=1))
    low, high = raw[:, ::2], raw[:, 1::2]
    has_ended = np.logical_or.accumulate(low == 0, axis=1)
    wide = (printable[:, ::2] ^ has_ended).all(axis=1) & printable[:, :3:2].all(axis=1) & (high == 0).all(axis=1)
    text: Mask = narrow | wide
    return text
