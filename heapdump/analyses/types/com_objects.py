"""COM objects without type information: objects with several interfaces, each with a table of functions.

Evidence: a word of the object leads to a second vtable of its module, whose first three functions, QueryInterface,
AddRef and Release, move the pointer by exactly the place of the word, and go on to the first three of the first vtable.
An object with one interface cannot be told from any other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.process.model import Process, View
from heapdump.process.symbols.adjustors import shares_functions

_WORDS = 4
"""Words behind the first that may lead to the second vtable."""


def are_com_objects(
    process: Process, view: View, vtable: int, address: NDArray[np.uint64], size: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """True for the blocks that are COM objects; (n,) bool. All of them begin with the pointer `vtable`."""
    width, module = view.pointer_bytes, process.module_map.at(vtable)
    found = np.zeros(len(address), bool)
    for word in range(1, _WORDS + 1):
        rows = np.flatnonzero(~found & (size >= np.uint64((word + 1) * width)))
        tables, _ = view.space.mapped.gather(address[rows] + np.uint64(word * width), width)
        near = process.in_modules(tables)
        rows, tables = rows[near], tables[near]
        good = [
            table for table in np.unique(tables).tolist()
            if process.module_map.at(table) is module and shares_functions(view, vtable, table, word * width)
        ]  # fmt: skip
        found[rows[np.isin(tables, np.array(good, np.uint64))]] = True
    return found
