"""Tables of virtual functions whose class no type information names: those of COM objects, for instance.

Two witnesses: the table lies in pages of an image that nobody may write, and its first three words lead to code of
images. Compilers emit 3 functions or more for every COM interface (IUnknown).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.process.model import Process, View

_EXECUTABLE, _READ_ONLY = 0xF0, 0x22  # PAGE_… (winnt.h); older linkers put tables beside the code
_WORDS = 3


def are_vtables(process: Process, view: View, addresses: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """True for each address of a vtable; (n,) bool. All False without a memory map, or without the images' memory."""
    pointer = view.pointer_bytes
    protect = _image_protection(process, addresses)
    good: NDArray[np.bool_] = (protect & _READ_ONLY != 0) & (addresses % np.uint64(pointer) == 0)
    for number in range(_WORDS):
        rows = np.flatnonzero(good)
        function, _ = view.space.mapped.gather(addresses[rows] + np.uint64(number * pointer), pointer)
        good[rows] = _image_protection(process, function) & _EXECUTABLE != 0
    return good


def _image_protection(process: Process, addresses: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The protection of memory in a loaded module; 0 elsewhere, and where it is not known."""
    regions = process.regions
    if not len(regions):
        return np.zeros(len(addresses), np.uint32)
    i = np.maximum(np.searchsorted(regions.start, addresses, side="right"), 1) - 1
    inside = (addresses >= regions.start[i]) & (addresses < regions.end[i])
    return np.where(inside & process.in_modules(addresses), regions.protect[i], np.uint32(0))
