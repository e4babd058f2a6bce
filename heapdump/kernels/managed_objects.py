"""Follows the objects of a managed heap (.NET): an object begins with a pointer to its type, which gives its size.

Memory is an array of little-endian 64-bit words, as signed integers. Objects begin at multiples of the pointer size, 4
or 8 bytes. The collector uses the low 3 bits (x64) or 2 bits (x86) of the pointer to the type.

    bytes of an object = max(base + component * length, 3 pointers), rounded up to the pointer size
    length             = the u32 behind the pointer to the type; only where component is not 0
"""

from __future__ import annotations

from typing import NamedTuple

from heapdump.kernels.arrays import ArrayColumn, Output

END, NEW_TYPE, REACHED, FULL = range(4)
"""Why a walk stopped: at the end of the span; at a type that is not in the table; at the object that holds the target
address, or the first behind it; because the output array is full."""


class TypeTable(NamedTuple):
    """The types that were looked up so far: a hash table (`kernels.hash_table`).

    Attributes:
        slots: (2**k,) pointers to types; 0 in empty places.
        numbers: (2**k,) number of the type in that place; -1 for a pointer that leads to no type.
        base: (types,) bytes of an object without elements, by number.
        component: (types,) bytes of an element of an array or string, by number; 0 for other types.
    """

    slots: ArrayColumn
    numbers: ArrayColumn
    base: ArrayColumn
    component: ArrayColumn


def walk_objects(
    words: ArrayColumn, base: int, at: int, end: int, width: int, target: int, types: TypeTable,
    counts: Output, sizes: Output,
) -> tuple[int, int, int]:  # fmt: skip
    """Adds the objects in [at, end) to the sums of their types. A word that begins no object is skipped.

    Args:
        words: the memory.
        base: address of word 0.
        at: address of the first object.
        end: address behind the last byte to walk.
        width: bytes of a pointer, 4 or 8.
        target: address at which the walk stops: at the object that holds it, or the first behind it.
        types: the known types.
        counts: (types,) number of objects.
        sizes: (types,) bytes of the objects.

    Returns:
        (address where it stopped, reason, bytes skipped).
    """
    slots, numbers, bases, components = types
    mask, skipped, least = len(slots) - 1, 0, 3 * width
    while at + width <= end:
        word = words[(at - base) >> 3]
        if width == 4:
            word = (word >> (((at - base) & 4) << 3)) & 0xFFFFFFFC
        else:
            word &= -8
        if word < 0x10000:  # also negative ones: user mode has no address below 64 KiB or with bit 63
            at += width
            skipped += width
            continue
        place = ((word >> 3) ^ (word >> 12)) & mask  # as hash_table.place_of
        while slots[place] != 0 and slots[place] != word:
            place = (place + 1) & mask
        if slots[place] == 0:
            return at, NEW_TYPE, skipped
        number = numbers[place]
        size = 0
        if number >= 0:
            size = bases[number]
            if components[number] and at + 2 * width <= end:
                count = words[(at + width - base) >> 3]
                if width == 4:
                    count = count >> (((at + width - base) & 4) << 3)
                size += (count & 0xFFFFFFFF) * components[number]
            size = (max(size, least) + width - 1) & -width
        if number < 0 or size > end - at:
            if at + width > target:
                return at, REACHED, skipped
            at += width
            skipped += width
            continue
        if at + size > target:
            return at, REACHED, skipped
        counts[number] += 1
        sizes[number] += size
        at += size
    return at, END, skipped


def find_objects(
    words: ArrayColumn, base: int, at: int, end: int, width: int, wanted: int, types: TypeTable, out: Output
) -> tuple[int, int, int]:  # fmt: skip
    """Writes start and end address of each object of type number `wanted` in [at, end) to `out`, two elements for each.

    Every type in the span must be in the table; `walk_objects` puts them there. Other arguments as of `walk_objects`.

    Returns:
        (address where it stopped, reason, elements written).
    """
    slots, numbers, bases, components = types
    mask, count, least = len(slots) - 1, 0, 3 * width
    while at + width <= end:
        word = words[(at - base) >> 3]
        if width == 4:
            word = (word >> (((at - base) & 4) << 3)) & 0xFFFFFFFC
        else:
            word &= -8
        number = -1
        if word >= 0x10000:
            place = ((word >> 3) ^ (word >> 12)) & mask  # as hash_table.place_of
            while slots[place] != 0 and slots[place] != word:
                place = (place + 1) & mask
            number = numbers[place] if slots[place] != 0 else -1
        size = 0
        if number >= 0:
            size = bases[number]
            if components[number] and at + 2 * width <= end:
                length = words[(at + width - base) >> 3]
                if width == 4:
                    length = length >> (((at + width - base) & 4) << 3)
                size += (length & 0xFFFFFFFF) * components[number]
            size = (max(size, least) + width - 1) & -width
        if number < 0 or size > end - at:
            at += width
            continue
        if number == wanted:
            if count + 2 > len(out):
                return at, FULL, count
            out[count], out[count + 1] = at, at + size
            count += 2
        at += size
    return at, END, count
