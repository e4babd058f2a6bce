"""Strings of libc++, and the text of a CString of MFC and ATL.

    libc++   { capacity and 1 more, its lowest bit set; size; pointer }
    CString  a pointer to text behind { manager; length; capacity; references, 4 bytes each }

Source: `string` (libc++), `atlsimpstr.h` (`CStringData`). Witnesses: the capacity fills the block; the text ends in a
zero; the manager of a CString lies in the data of a module.
"""

from __future__ import annotations

import numpy as np

from heapdump.analyses.containers.candidates import Candidates
from heapdump.analyses.types.containers import IS_TEXT, IS_WIDE_TEXT
from heapdump.analyses.types.members import Container, ContainerTable, module_areas
from heapdump.kernels import counted_members


def prove_llvm_strings(candidates: Candidates) -> ContainerTable:
    """std::string and std::wstring of libc++ whose text begins as a text does."""
    found = candidates.of(counted_members.LLVM_STRING, counted_members.LLVM_WSTRING)
    letter = np.where(found.kind == counted_members.LLVM_WSTRING, 2, 1)
    good = found.used * letter < found.size
    for width, is_text in ((1, IS_TEXT), (2, IS_WIDE_TEXT)):
        rows = np.flatnonzero(letter == width)
        good[rows] &= found.value(found.start[rows] + found.used[rows] * width, width) == 0
        good[rows] &= is_text[found.value(found.start[rows], width)] | (found.used[rows] == 0)
    kind = np.where(letter == 2, Container.LLVM_WSTRING, Container.LLVM_STRING).astype(np.int64)
    found = found.take(good)
    return found.table(kind[good], found.used * letter[good], found.size - letter[good])


def prove_cstrings(candidates: Candidates) -> ContainerTable:
    """The texts of CStrings of one or two bytes a character."""
    found = candidates.of(counted_members.CSTRING)
    _, (low, size, _) = module_areas(found.graph)
    header = 24 if found.width == 8 else 16
    manager = found.value(found.start)
    length, capacity = (found.value(found.start + found.width + place, 4) for place in (0, 4))
    order = np.argsort(low)
    area = np.searchsorted(low[order], manager, side="right") - 1
    good = (
        (area >= 0) & (manager < (low + size)[order][np.maximum(area, 0)]) if len(low) else np.zeros(len(found), bool)
    )
    letter = np.where(found.size == header + capacity + 1, 1, 2)
    for width in (1, 2):
        rows = np.flatnonzero(letter == width)
        good[rows] &= found.value(found.start[rows] + header + length[rows] * width, width) == 0
    found, letter, length, capacity = found.take(good), letter[good], length[good], capacity[good]
    return found.table(Container.CSTRING, length * letter, capacity * letter)
