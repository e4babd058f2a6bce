"""Follows the objects of a managed heap (.NET): each begins with its type's pointer, its size follows from the type.

Memory is an array of little-endian 64-bit words, as signed integers; objects lie at multiples of the pointer size, 4
or 8 bytes. The low 3 bits (x64) or 2 bits (x86) of the type's pointer are marks of the collector. `slots` is a hash
table of type pointers with linear probing, a power of 2 long, 0 in empty places; `numbers` holds the type's number of
each place, -1 for a pointer that is no type.

    size = base + component * u32 behind the pointer, rounded up to the pointer size, at least 3 pointers
"""

from __future__ import annotations

from typing import NamedTuple

from heapdump.kernels.arrays import ArrayColumn, Output

END, NEW_TYPE, REACHED, FULL = range(4)
"""Why a walk stopped: at the end of the span; at a pointer that the table does not hold; at the object behind the target;
because the output array is full."""


class TypeTable(NamedTuple):
    """The types that are known: the hash table, and base and component bytes by number."""

    slots: ArrayColumn
    numbers: ArrayColumn
    base: ArrayColumn
    component: ArrayColumn


def slot_of(pointer: int, slots: ArrayColumn) -> int:
    """The place of a type's pointer in the table, or the empty place where it would be put."""
    mask = len(slots) - 1
    place = ((pointer >> 3) ^ (pointer >> 12)) & mask
    while slots[place] != 0 and slots[place] != pointer:
        place = (place + 1) & mask
    return place


def walk_objects(
    words: ArrayColumn, base: int, at: int, end: int, width: int, target: int, types: TypeTable,
    counts: Output, sizes: Output,
) -> tuple[int, int, int]:  # fmt: skip
    """Adds the objects in [at, end) to the counts and sizes (bytes) of their types. `base`: address of word 0.

    `width`: bytes of a pointer; `target`: an address: the walk stops at the object that holds it or lies behind it.
    Words that are no type are stepped over.

    Returns:
        (address where it stopped, reason, bytes stepped over).
    """
    slots, numbers, bases, components = types
    mask, skipped, least = len(slots) - 1, 0, 3 * width
    while at + width <= end:
        word = words[(at - base) >> 3]
        if width == 4:
            word = (word >> (((at - base) & 4) << 3)) & 0xFFFFFFFC
        else:
            word &= -8
        if word < 0x10000:  # no memory of a program begins below, and none of x64 has the highest bit
            at += width
            skipped += width
            continue
        place = ((word >> 3) ^ (word >> 12)) & mask  # as slot_of
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
    """Writes start and end of each object of type number `wanted` in [at, end) to `out`, two elements for each.

    Every type of the span is known: `walk_objects` has met them. Other parameters as there.

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
            place = ((word >> 3) ^ (word >> 12)) & mask  # as slot_of
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
