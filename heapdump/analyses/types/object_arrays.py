"""Arrays of objects with virtual functions, as `new Foo[n]` lays them out: their number, then the objects.

The number is as wide as a pointer. Evidence: it is 2 or more, the requested bytes behind it are a whole multiple of it,
and the first two objects have the same vtable. Compilers keep the number for classes with a destructor (Visual C++,
Itanium C++ ABI).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.process.model import Process, View


def object_arrays(
    process: Process, view: View, address: NDArray[np.uint64], size: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """(places of blocks that may be such arrays, the vtable of the objects in each).

    Reads the second word of each block, and two more where it leads to a module.
    """
    width, memory = np.uint64(view.pointer_bytes), view.space.mapped
    places = np.flatnonzero(size >= 5 * width)  # the number, and two objects of a vtable and a member
    vtable, _ = memory.gather(address[places] + width, view.pointer_bytes)
    near = process.in_modules(vtable)
    places, vtable = places[near], vtable[near]
    count, _ = memory.gather(address[places], view.pointer_bytes)
    several = (count > 1) & (count <= size[places] // width)
    places, vtable, count = places[several], vtable[several], count[several]
    each, rest = np.divmod(size[places] - width, count)
    fills = (rest == 0) & (each >= width) & (each % width == 0)
    places, vtable, each = places[fills], vtable[fills], each[fills]
    second, _ = memory.gather(address[places] + width + each, view.pointer_bytes)
    same = second == vtable
    return places[same], vtable[same]
