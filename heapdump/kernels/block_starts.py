"""Tells by the first 16 bytes of blocks what they hold, as far as these and the addresses in them decide it alone.

    no byte requested                                   EMPTY
    the first 8 bytes are not in the dump               ABSENT
    all zero                                            ZEROS
    all equal                                           FILL
    a pointer into a module                             MODULE
    one or two pointers to starts of blocks             POINTER, POINTERS
    a number below 65536                                SMALL

UNDECIDED: everything that may be a text, a string, a vector, or data of a format. `analyses/types/block_types.py`
looks at it. OPEN: not decided so far.
"""

from __future__ import annotations

from typing import NamedTuple

from heapdump.kernels.arrays import ArrayColumn, Output
from heapdump.kernels.row import UNIT, RowReader

UNDECIDED, EMPTY, ABSENT, ZEROS, FILL, MODULE, POINTERS, POINTER, SMALL, OPEN = range(10)


class FileWords(NamedTuple):
    """The file as signed words of 8 bytes, and the memory ranges in it, ascending by address.

    `start`, `end` (m,): addresses of each range; the word at address a of range r is `words[(a + delta[r]) >> 3]` where
    a + delta[r] is a multiple of 8.
    """

    words: ArrayColumn
    start: ArrayColumn
    end: ArrayColumn
    delta: ArrayColumn


class Places(NamedTuple):
    """Where pointers may lead. `module_start`, `module_end` (k,): addresses of modules, ascending.

    `tops`, `middles`, `cells`, `shift`: blocks of the program by address (`pointer_map`); `node_row`: the row of each.
    `low`, `bits`: low <= start of a block < low + (1 << bits). `is_whole`: 0 where the map lacks blocks of the program,
    2 where no row begins between header and user data of another: `node_row` is not read then.
    """

    module_start: ArrayColumn
    module_end: ArrayColumn
    tops: ArrayColumn
    middles: ArrayColumn
    cells: ArrayColumn
    shift: int
    node_row: ArrayColumn
    low: int
    bits: int
    is_whole: int


def read_starts(
    chosen: ArrayColumn, rows: RowReader, file: FileWords, kind_of: Output, first: Output, second: Output,
    third: Output, fourth: Output,
) -> None:  # fmt: skip
    """Reads the first words of each chosen row: 16 bytes, zero behind the requested ones, and the 16 bytes behind them.

    `kind_of` becomes EMPTY, ABSENT, ZEROS, OPEN, or UNDECIDED where the words do not lie in one range of memory.

    Args:
        chosen: (n,) rows.
        rows: the block table.
        file: see `FileWords`.
        kind_of: (n,).
        first: (n,) 0 for EMPTY, ABSENT and UNDECIDED; likewise the others.
        second: (n,).
        third: (n,).
        fourth: (n,).
    """
    words, r, ranges = file.words, 0, len(file.start)
    for i in range(len(chosen)):
        row = chosen[i]
        size = int(rows.size8[row]) * UNIT - int(rows.unused[row])
        first[i], second[i], third[i], fourth[i], kind_of[i] = 0, 0, 0, 0, UNDECIDED
        if size == 0:
            kind_of[i] = EMPTY
        if size <= 0:
            continue
        address = int(rows.entry[row]) + int(rows.header8[row]) * UNIT
        if not (r < ranges and file.start[r] <= address < file.end[r]):
            low, high = 0, ranges  # the last range that starts at or below the address
            while low < high:
                middle = (low + high) >> 1
                if file.start[middle] <= address:
                    low = middle + 1
                else:
                    high = middle
            r = max(0, low - 1)
        if ranges == 0 or not file.start[r] <= address or address + 8 > file.end[r]:
            kind_of[i] = ABSENT
            continue
        at, left = address + file.delta[r], file.end[r] - address
        if at & 7 != 0 or (left < 32 and size > 8):
            continue
        at >>= 3
        first8, second8 = words[at], 0
        if size > 8:
            second8, third[i], fourth[i] = words[at + 1], words[at + 2], words[at + 3]
        if size < 8:
            first8 &= (1 << 8 * size) - 1
        elif 8 < size < 16:
            second8 &= (1 << 8 * (size - 8)) - 1
        first[i], second[i] = first8, second8
        kind_of[i] = ZEROS if first8 == 0 and second8 == 0 else OPEN


def leave_data(
    chosen: ArrayColumn, rows: RowReader, pointer: int, biggest: int, first: ArrayColumn, second: ArrayColumn,
    third: ArrayColumn, fourth: ArrayColumn, kind_of: Output,
) -> None:  # fmt: skip
    """Of OPEN rows: FILL for equal bytes, UNDECIDED for what may be a text, or a string or a vector of a library.

    Args:
        chosen: see `read_starts`.
        rows: see `read_starts`.
        pointer: bytes of a pointer, 4 or 8.
        biggest: no block has more bytes.
        first: see `read_starts`.
        second: see `read_starts`.
        third: see `read_starts`.
        fourth: see `read_starts`.
        kind_of: see `read_starts`.
    """
    for i in range(len(chosen)):
        if kind_of[i] != OPEN:
            continue
        size = int(rows.size8[chosen[i]]) * UNIT - int(rows.unused[chosen[i]])
        first8, second8, third8 = first[i], second[i], third[i]
        known, byte, k = min(size, 16), first8 & 0xFF, 1
        while k < known and ((first8 >> 8 * k if k < 8 else second8 >> 8 * (k - 8)) & 0xFF) == byte:
            k += 1
        if k == known and known > 1:
            kind_of[i] = FILL
            continue
        length = (first8 >> 32 if pointer == 8 else first8) & 0xFFFFFFFF
        is_data = length >= 6 and length & 1 == 0 and pointer + length + 2 <= size  # BSTR
        begin, end, top, used, held = first8, second8, third8, third8, fourth[i]
        if pointer == 4:
            begin, end, top = first8 & 0xFFFFFFFF, (first8 >> 32) & 0xFFFFFFFF, second8 & 0xFFFFFFFF
            used, held = third8 & 0xFFFFFFFF, (third8 >> 32) & 0xFFFFFFFF
        if size >= 16 + 2 * pointer and held >= 7 and 0 <= used <= held <= biggest:  # string
            is_data = True
        if size >= 3 * pointer and 0 < begin <= end <= top and top - begin <= biggest:  # vector
            is_data = True
        b1, b2, b3 = (first8 >> 8) & 0xFF, (first8 >> 16) & 0xFF, (first8 >> 24) & 0xFF
        if size >= 4 and (0x20 <= byte < 0x7F or 9 <= byte <= 13) and (0x20 <= b2 < 0x7F or 9 <= b2 <= 13):
            both = (0x20 <= b1 < 0x7F or 9 <= b1 <= 13) and (0x20 <= b3 < 0x7F or 9 <= b3 <= 13)
            is_data = is_data or both or (b1 == 0 and b3 == 0)  # ASCII, UTF-16
        if is_data:
            kind_of[i] = UNDECIDED


def follow_starts(
    pointer: int, places: Places, next_entry: ArrayColumn, first: ArrayColumn, second: ArrayColumn, kind_of: Output,
    pointers: Output,
) -> None:  # fmt: skip
    """Of OPEN rows: MODULE for a pointer into a module, else the number of pointers to starts of blocks in `pointers`.

    Args:
        pointer: bytes of a pointer, 4 or 8.
        places: see `Places`.
        next_entry: entries of all rows.
        first: see `read_starts`.
        second: see `read_starts`.
        kind_of: see `read_starts`.
        pointers: (n,) 0, 1, or 2 for both words; 3 where another look is needed. Of OPEN rows only.
    """
    leaf_cells, modules = 65536 >> places.shift >> 5, len(places.module_start)
    for i in range(len(kind_of)):
        if kind_of[i] != OPEN:
            continue
        pointers[i] = 0
        for which in range(2):
            value = first[i] if which == 0 else second[i]
            if pointer == 4:
                value = (first[i] >> 32 * which) & 0xFFFFFFFF
            if which == 0 and modules > 0 and value >= places.module_start[0]:
                low, high = 0, modules
                while low < high:
                    middle = (low + high) >> 1
                    if places.module_start[middle] <= value:
                        low = middle + 1
                    else:
                        high = middle
                if value < places.module_end[low - 1]:
                    kind_of[i] = MODULE
                    break
            if (value - places.low) >> places.bits != 0:
                break
            top, leaf = places.tops[value >> 32], -1
            if top >= 0:
                leaf = places.middles[(top << 16) + ((value >> 16) & 0xFFFF)]
            if places.is_whole != 0 and (leaf < 0 or value & ((1 << places.shift) - 1) != 0):
                break
            cell = places.cells[leaf * leaf_cells + ((value & 0xFFFF) >> places.shift >> 5)] if leaf >= 0 else 0
            bit = (value >> places.shift) & 31
            if places.is_whole != 0 and (cell >> bit) & 1 == 0:
                break
            if places.is_whole == 0:
                pointers[i] = 3  # the map lacks blocks
                break
            if places.is_whole == 1:
                bits = cell & ((2 << bit) - 1)
                bits = bits - ((bits >> 1) & 0x55555555)
                bits = (bits & 0x33333333) + ((bits >> 2) & 0x33333333)
                node = (cell >> 32) + ((((bits + (bits >> 4)) & 0x0F0F0F0F) * 0x01010101 >> 24) & 0xFF) - 1
                behind = places.node_row[node] + 1
                if behind < len(next_entry) and next_entry[behind] <= value:
                    pointers[i] = 3  # another row begins between header and user data
                    break
            pointers[i] += 1


def decide_starts(
    pointer: int, starts_format: ArrayColumn, first: ArrayColumn, pointers: ArrayColumn, kind_of: Output
) -> None:
    """Of OPEN rows: POINTERS, POINTER, SMALL; UNDECIDED for other data, and where a format or UTF-8 may begin.

    Args:
        pointer: bytes of a pointer, 4 or 8.
        starts_format: (131072,) not 0 for the first two bytes of a format, and from 65536 on for its bytes 4 and 5.
        first: see `read_starts`.
        pointers: see `follow_starts`.
        kind_of: see `read_starts`.
    """
    for i in range(len(kind_of)):
        if kind_of[i] != OPEN:
            continue
        first8, kind_of[i] = first[i], UNDECIDED
        if pointers[i] == 2:
            kind_of[i] = POINTERS
            continue
        is_other = pointers[i] == 3 or starts_format[first8 & 0xFFFF] != 0
        is_other = is_other or starts_format[65536 + ((first8 >> 32) & 0xFFFF)] != 0
        zeros = 0
        for k in range(8):
            zeros += (first8 >> 8 * k) & 0xFF == 0
        value = first8 if pointer == 8 else first8 & 0xFFFFFFFF
        if not is_other and zeros > 0 and pointers[i] == 1:
            kind_of[i] = POINTER
        elif not is_other and zeros > 0 and 0 <= value < 0x10000:
            kind_of[i] = SMALL
