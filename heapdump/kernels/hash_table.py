"""A hash table of 64-bit values in an array: linear probing, 2**k places, one value that stands for an empty place.

Kernels search it with the same loop, written out: machine code that calls another function cannot be kept in a file.
"""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn


def place_of(value: int, slots: ArrayColumn, empty: int) -> int:
    """The index of a value in the table, or of the empty place where it belongs.

    Args:
        value: an address or a number of 64 bits.
        slots: (2**k,) values; at least one place is empty.
        empty: the value of an empty place.
    """
    mask = len(slots) - 1
    place = ((value >> 3) ^ (value >> 12)) & mask
    while slots[place] not in (empty, value):
        place = (place + 1) & mask
    return place
