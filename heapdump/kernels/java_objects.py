"""Follows the objects of a Java heap: the class of an object, and the layout helper of the class, give its size.

Memory is an array of little-endian 64-bit words, as signed integers. Objects begin at multiples of 8 bytes.
Layout helper of a class, 32 bits, signed (HotSpot, klass.hpp):

    above 0   instances: bytes of an instance; the low 3 bits do not belong to the size
    below 0   arrays: bits 16-23 bytes of the header, bits 0-7 log2 of the bytes of an element
"""

from __future__ import annotations

from typing import NamedTuple

from heapdump.kernels.arrays import ArrayColumn, Output

END, NEW_CLASS, REACHED = range(3)
"""Why a walk stopped: at the end of the span; at an object whose class is not in the table; at the object that holds
the target address, or the first behind it."""


class ClassTable(NamedTuple):
    """The classes that were looked up so far: a hash table (`kernels.hash_table`).

    Attributes:
        slots: (2**k,) class values as object headers have them; -1 in empty places.
        numbers: (2**k,) number of the class in that place; -1 for a value that is no class.
        layout: (classes,) layout helper by number.
        own_size: number of the class java.lang.Class, whose objects hold their own size; -1 where it is not known.
        own_size_at: offset in such an object of that size, a u32 in words of 8 bytes.
    """

    slots: ArrayColumn
    numbers: ArrayColumn
    layout: ArrayColumn
    own_size: int
    own_size_at: int


class HeaderFormat(NamedTuple):
    """The header of an object.

    Attributes:
        klass_at: offset of the word that holds the class, in bytes.
        klass_bytes: bytes of that word, 4 or 8.
        shift: number of low bits of that word that do not belong to the class; if not 0, the class has 22 bits.
        length_at: offset of an array's length, a u32 number of elements.
    """

    klass_at: int
    klass_bytes: int
    shift: int
    length_at: int


def walk_java_objects(
    words: ArrayColumn, base: int, at: int, end: int, target: int, header: HeaderFormat, classes: ClassTable,
    counts: Output, sizes: Output,
) -> tuple[int, int, int]:  # fmt: skip
    """Adds the objects in [at, end) to the sums of their classes. A word that begins no object is skipped.

    Args:
        words: the memory.
        base: address of word 0.
        at: address of the first object.
        end: address behind the last byte to walk.
        target: address at which the walk stops: at the object that holds it, or the first behind it.
        header: where objects hold their class.
        classes: the known classes.
        counts: (classes,) number of objects.
        sizes: (classes,) bytes of the objects.

    Returns:
        (address where it stopped, reason, bytes skipped).
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
            place = ((klass >> 3) ^ (klass >> 12)) & mask  # as hash_table.place_of
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
