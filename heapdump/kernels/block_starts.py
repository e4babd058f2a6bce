"""Tells by the first 16 bytes of blocks what they hold, as far as these and the addresses in them decide it alone.

    no byte requested                                   EMPTY
    the first 8 bytes are not in the dump               ABSENT
    all zero                                            ZEROS
    all equal                                           FILL
    a pointer into a module                             MODULE
    one or two pointers to starts of blocks             POINTER, POINTERS
    a number below 65536                                SMALL

UNDECIDED: everything that may be a text, a string, a vector, or data of a format. `analyses/types/block_types.py`
looks at it.
"""

from __future__ import annotations

from typing import NamedTuple

from heapdump.kernels.arrays import ArrayColumn, Output
from heapdump.kernels.row import UNIT, RowReader

UNDECIDED, EMPTY, ABSENT, ZEROS, FILL, MODULE, POINTERS, POINTER, SMALL = range(9)


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
    `low`, `bits`: low <= start of a block < low + (1 << bits). `is_whole`: 0 where the map lacks blocks of the program.
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


def start_kinds(
    chosen: ArrayColumn, rows: RowReader, file: FileWords, places: Places, pointer: int, biggest: int,
    starts_format: ArrayColumn, kinds: Output, values: Output,
) -> None:  # fmt: skip
    """Writes the kind of each chosen row to `kinds`, and of MODULE the pointer to `values`.

    Args:
        chosen: (n,) rows.
        rows: the block table.
        file: see `FileWords`.
        places: see `Places`.
        pointer: bytes of a pointer, 4 or 8.
        biggest: no block has more bytes.
        starts_format: (131072,) not 0 for the first two bytes of a format, and from 65536 on for its bytes 4 and 5.
        kinds: (n,).
        values: (n,) 0 where the block is no MODULE, or ends before the pointer does.
    """
    words, r, ranges = file.words, 0, len(file.start)
    mask = -1 if pointer == 8 else 0xFFFFFFFF
    modules, leaf_cells = len(places.module_start), 65536 >> places.shift >> 5
    for i in range(len(chosen)):
        row = chosen[i]
        size = int(rows.size8[row]) * UNIT - int(rows.unused[row])
        values[i], kinds[i] = 0, UNDECIDED
        if size == 0:
            kinds[i] = EMPTY
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
            kinds[i] = ABSENT
            continue
        at, left = address + file.delta[r], file.end[r] - address
        if at & 7 != 0 or (left < 32 and size > 8):
            continue
        at >>= 3
        first8, second8 = words[at], 0
        if size > 8:
            second8 = words[at + 1]
        if size < 8:
            first8 &= (1 << 8 * size) - 1
        elif 8 < size < 16:
            second8 &= (1 << 8 * (size - 8)) - 1
        if first8 == 0 and second8 == 0:
            kinds[i] = ZEROS
            continue
        known, byte, k = min(size, 16), first8 & 0xFF, 1
        while k < known and ((first8 >> 8 * k if k < 8 else second8 >> 8 * (k - 8)) & 0xFF) == byte:
            k += 1
        if k == known and known > 1:
            kinds[i] = FILL
            continue
        first, second = first8 & mask, second8 & mask
        if pointer == 4:
            second = (first8 >> 32) & mask
        length = first8 & 0xFFFFFFFF if pointer == 4 else (first8 >> 32) & 0xFFFFFFFF
        if length >= 6 and length & 1 == 0 and pointer + length + 2 <= size:
            continue  # BSTR
        if size >= 16 + 2 * pointer:
            used, held = words[at + 2], 0
            if pointer == 8:
                held = words[at + 3]
            else:
                used, held = used & mask, (used >> 32) & mask
            if held >= 7 and 0 <= used <= held <= biggest:
                continue  # string
        if size >= 3 * pointer:
            top = words[at + 2] & mask if pointer == 8 else second8 & mask
            if 0 < first <= second <= top and top - first <= biggest:
                continue  # vector
        b1, b2, b3 = (first8 >> 8) & 0xFF, (first8 >> 16) & 0xFF, (first8 >> 24) & 0xFF
        is_text = 0x20 <= byte < 0x7F or 9 <= byte <= 13
        is_text = is_text and (0x20 <= b2 < 0x7F or 9 <= b2 <= 13)
        if is_text:
            both = (0x20 <= b1 < 0x7F or 9 <= b1 <= 13) and (0x20 <= b3 < 0x7F or 9 <= b3 <= 13)
            is_text = both or (b1 == 0 and b3 == 0)
        if is_text and size >= 4:
            continue
        if modules > 0 and first >= places.module_start[0]:
            low, high = 0, modules
            while low < high:
                middle = (low + high) >> 1
                if places.module_start[middle] <= first:
                    low = middle + 1
                else:
                    high = middle
            if low > 0 and first < places.module_end[low - 1]:
                kinds[i] = MODULE
                if size >= pointer:
                    values[i] = first
                continue
        found = 0
        for which in range(2):  # pointers to starts: 1, 2 for both, -1 where another look is needed
            value = first if which == 0 else second
            if (value - places.low) >> places.bits != 0:
                break
            if places.is_whole == 0:
                found = -1
                break
            top, leaf = places.tops[value >> 32], -1
            if top >= 0:
                leaf = places.middles[(top << 16) + ((value >> 16) & 0xFFFF)]
            if leaf < 0 or value & ((1 << places.shift) - 1) != 0:
                break
            cell = places.cells[leaf * leaf_cells + ((value & 0xFFFF) >> places.shift >> 5)]
            bit = (value >> places.shift) & 31
            if (cell >> bit) & 1 == 0:
                break
            bits = cell & ((2 << bit) - 1)
            bits = bits - ((bits >> 1) & 0x55555555)
            bits = (bits & 0x33333333) + ((bits >> 2) & 0x33333333)
            node = (cell >> 32) + ((((bits + (bits >> 4)) & 0x0F0F0F0F) * 0x01010101 >> 24) & 0xFF) - 1
            target = places.node_row[node]
            if target + 1 < len(rows.entry) and rows.entry[target + 1] <= value:
                found = -1  # another row begins between the header and the user data
                break
            found += 1
        if found == 2:
            kinds[i] = POINTERS
            continue
        b4, b5 = (first8 >> 32) & 0xFF, (first8 >> 40) & 0xFF
        if found < 0 or starts_format[byte | b1 << 8] != 0 or starts_format[65536 + (b4 | b5 << 8)] != 0:
            continue
        no_zero = byte != 0 and b1 != 0 and b2 != 0 and b3 != 0 and b4 != 0 and b5 != 0
        if no_zero and (first8 >> 48) & 0xFF != 0 and (first8 >> 56) & 0xFF != 0:
            continue  # perhaps UTF-8
        if found == 1:
            kinds[i] = POINTER
        elif 0 <= first < 0x10000:
            kinds[i] = SMALL
