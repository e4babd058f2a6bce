"""One row of the block table: columns, units and the bits of `tags`. Defined here and nowhere else.

A row describes one block, busy or free, with these columns:

    entry     uint64   address of the block's first byte: its header where it has one
    size8     uint32   occupied bytes / UNIT, header included
    unused    uint32   occupied bytes that the program did not ask for, header included
    header8   uint8    bytes from `entry` to the user data / UNIT
    heap      uint16   index of the heap
    tags      uint16   kind, state, trust and flags, see below

    address of the user data = entry + header8 * UNIT
    occupied bytes           = size8 * UNIT
    requested bytes          = size8 * UNIT - unused

    bits of tags   0-3 kind (BlockKind) · 4 busy · 5 internal · 6-7 trust · 8-15 entry flags

Kernels take `entry` as signed 64-bit integers (`RowReader`): numba turns sums of signed and unsigned 64-bit integers
into floats. The other columns are narrower, so that numba sums them as signed 64-bit integers.

numba compiles these constants into the kernels. The files of `code_files` belong to the text of this file and are made
again when it changes; numba's own cache is not: there, delete `heapdump/kernels/__pycache__` after a change.
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
"""Bit 5 of `tags`: the allocator uses the block itself."""

CLASS_MASK = KIND_MASK | BUSY | INTERNAL
"""Bits 0-5 of `tags`, the class of a row: kind, busy, internal. Rows are counted by class."""

CLASSES = CLASS_MASK + 1
"""Number of classes, 64."""

TRUST_SHIFT = 6
TRUST_MASK = 3 << TRUST_SHIFT
"""Bits 6-7 of `tags`: 0 exact, 1 derived, 2 or 3 guess."""

TRUST_DERIVED = 1 << TRUST_SHIFT
"""Bit 6 of `tags`; ORed to an exact row it makes it derived."""

TRUST_GUESS = 2 << TRUST_SHIFT
"""Bit 7 of `tags`; ORed to any row it makes it a guess."""

FLAGS_SHIFT = 8
FLAGS_MASK = 0xFF << FLAGS_SHIFT
"""Bits 8-15 of `tags`: flags of the entry, one byte, as the allocator's format has them."""

EXTRA, FILL = 0x02 << FLAGS_SHIFT, 0x04 << FLAGS_SHIFT
"""Entry flags of NT and segment heaps, bits 9 and 10 of `tags`. EXTRA: the heap's own data stand behind the user data.
FILL: the unused bytes of a busy entry, or the body of a free one, are filled with a pattern."""


class RowWriter(NamedTuple):
    """Columns for the rows of one heap, to be filled: all but `heap`. Row i is element i of each column."""

    entry: Output
    size8: Output
    unused: Output
    header8: Output
    tags: Output


class RowReader(NamedTuple):
    """The columns of a block table, to be read; `entry` as signed 64-bit integers."""

    entry: ArrayColumn
    size8: ArrayColumn
    unused: ArrayColumn
    header8: ArrayColumn
    heap: ArrayColumn
    tags: ArrayColumn
