"""One row of the block table: columns, units and the bits of `tags`. Defined here and nowhere else.

A row describes one block, busy or free, with these columns:

    entry     uint64   address of the block's first byte: its header where it has one
    size8     uint32   occupied bytes / UNIT, header included
    unused    uint32   occupied bytes that the program did not ask for, header included
    header8   uint8    bytes from `entry` to the user data / UNIT
    heap      uint16   index of the heap
    tags      uint16   see below

    address of the user data = entry + header8 * UNIT
    occupied bytes           = size8 * UNIT
    requested bytes          = size8 * UNIT - unused

    bits of tags   0-3 kind (BlockKind) · 4 busy · 5 internal · 6-7 trust · 8-15 entry flags

Kernels take `entry` as signed 64-bit integers (`RowReader`): numba turns sums of signed and unsigned ones into floats.
All other columns are unsigned and narrower, so that sums of them are signed 64-bit integers.

numba compiles the constants into the kernels and keeps the result until the kernel's own file changes. After a change in
this file, delete `heapdump/kernels/__pycache__`.
"""

from __future__ import annotations

from typing import NamedTuple

from heapdump.kernels.arrays import ArrayColumn, Output

UNIT = 8
"""Bytes in a unit of `size8` and `header8`."""

KIND_MASK = 0x000F
"""Bits 0-3 of `tags`: the kind of block."""

BUSY_SHIFT, INTERNAL_SHIFT = 4, 5
BUSY = 1 << BUSY_SHIFT
"""Bit 4 of `tags`: allocated, by the program or by the allocator for itself."""

INTERNAL = 1 << INTERNAL_SHIFT
"""Bit 5 of `tags`: the allocator's own block."""

CLASS_MASK = KIND_MASK | BUSY | INTERNAL
"""Bits 0-5 of `tags`: 64 classes of rows, by which they are counted."""

CLASSES = CLASS_MASK + 1

TRUST_SHIFT = 6
TRUST_MASK = 3 << TRUST_SHIFT
"""Bits 6-7 of `tags`: 0 exact, 1 derived, 2 or 3 guess."""

TRUST_DERIVED = 1 << TRUST_SHIFT
"""Set in `tags` it makes an exact row a derived one."""

TRUST_GUESS = 2 << TRUST_SHIFT
"""Added to any `tags` it makes the row a guess."""

FLAGS_SHIFT = 8
FLAGS_MASK = 0xFF << FLAGS_SHIFT
"""Bits 8-15 of `tags`: flags of the entry, one byte, as the allocator's format has them."""

EXTRA, FILL = 0x02 << FLAGS_SHIFT, 0x04 << FLAGS_SHIFT
"""Entry flags of NT and segment heaps, as bits 9 and 10 of `tags`: data of the heap's own stands behind the user data; the
bytes that the program did not ask for, or those of a free entry, are filled with a pattern."""


class RowWriter(NamedTuple):
    """Room for rows of one heap: columns of one length, all but `heap`. Row i is element i of each."""

    entry: Output
    size8: Output
    unused: Output
    header8: Output
    tags: Output


class RowReader(NamedTuple):
    """Rows of a block table: columns of one length. `entry` as signed integers."""

    entry: ArrayColumn
    size8: ArrayColumn
    unused: ArrayColumn
    header8: ArrayColumn
    heap: ArrayColumn
    tags: ArrayColumn
