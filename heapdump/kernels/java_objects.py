"""Follows the objects of a Java heap: each has a class, and the class's layout helper says its size.

Memory is an array of little-endian 64-bit words, as signed integers; objects lie at multiples of 8 bytes. `slots` is a hash
table of classes with linear probing, a power of 2 long, -1 in empty places; `numbers` holds the class's number of each
place, -1 for a word that is no class. `layout` holds the layout helper of each number (HotSpot: klass.hpp):

    above 0   bytes of an instance, low 3 bits off
    below 0   an array: bytes of its header in bits 16-23, log2 of the bytes of an element in bits 0-7

`own_size`: number of the class whose objects hold their own size in words, as u32 at `own_size_at` (java.lang.Class).
"""

from __future__ import annotations

from typing import NamedTuple

from heapdump.kernels.arrays import ArrayColumn, Output

END, NEW_CLASS, REACHED = range(3)
"""Why a walk stopped: at the end of the span; at a class that the table does not hold; at the object that holds the target."""


class ClassTable(NamedTuple):
    """The classes that are known."""

    slots: ArrayColumn
    numbers: ArrayColumn
    layout: ArrayColumn
    own_size: int
    own_size_at: int


class HeaderFormat(NamedTuple):
    """Where an object's class is: `klass_at` bytes into it, `klass_bytes` 4 or 8, shifted right by `shift`.

    `length_at`: where an array has its length, u32.
    """

    klass_at: int
    klass_bytes: int
    shift: int
    length_at: int


def class_slot(klass: int, slots: ArrayColumn) -> int:
    """The place of a class in the table, or the empty place where it would be put."""
    mask = len(slots) - 1
    place = ((klass >> 3) ^ (klass >> 12)) & mask
    while slots[place] != -1 and slots[place] != klass:
        place = (place + 1) & mask
    return place


def walk_java_objects(
    words: ArrayColumn, base: int, at: int, end: int, target: int, header: HeaderFormat, classes: ClassTable,
    counts: Output, sizes: Output,
) -> tuple[int, int, int]:  # fmt: skip
    """Adds the objects in [at, end) to the counts and sizes (bytes) of their classes. `base`: address of word 0.

    `target`: an address: the walk stops at the object that holds it or lies behind it. Words that begin no object are
    stepped over.

    Returns:
        (address where it stopped, reason, bytes stepped over).
    """
    klass_at, klass_bytes, shift, length_at = header
    slots, numbers, layout, own_size, own_size_at = classes
    mask, skipped = len(slots) - 1, 0
    while at + 16 <= end:
        klass = words[(at + klass_at - base) >> 3] >> ((klass_at & 4) << 3)
        if klass_bytes == 4:
            klass &= 0xFFFFFFFF
        klass = (klass >> shift) & (0x3FFFFF if shift else 0x7FFFFFFFFFFFFFFF)
        number = -1
        if klass != 0:
            place = ((klass >> 3) ^ (klass >> 12)) & mask  # as class_slot
            while slots[place] != -1 and slots[place] != klass:
                place = (place + 1) & mask
            if slots[place] == -1:
                return at, NEW_CLASS, skipped
            number = numbers[place]
        size = 0
        if number >= 0:
            helper = layout[number]
            if number == own_size and at + own_size_at + 4 <= end:
                size = ((words[(at + own_size_at - base) >> 3] >> ((own_size_at & 4) << 3)) & 0xFFFFFFFF) << 3
            elif helper > 0:
                size = helper & -8
            elif helper < 0 and at + length_at + 4 <= end:
                length = (words[(at + length_at - base) >> 3] >> ((length_at & 4) << 3)) & 0xFFFFFFFF
                size = (((helper >> 16) & 0xFF) + (length << (helper & 0xFF)) + 7) & -8
        if size < 8 or size > end - at:
            if at + 8 > target:
                return at, REACHED, skipped
            at += 8
            skipped += 8
            continue
        if at + size > target:
            return at, REACHED, skipped
        counts[number] += 1
        sizes[number] += size
        at += size
    return at, END, skipped
