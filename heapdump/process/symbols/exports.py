"""The export table of an image: names by address. Source: the PE format, IMAGE_EXPORT_DIRECTORY.

Read with numpy: pefile would make an object of each of ntdll's 2,500 exports.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MOST_EXPORTS = 1 << 16
_LONGEST_NAME, _FOREIGN_NAME = 512, 256
_FIRST_SECTION = 0x200
"""No section lies below: the headers do."""

ReadRva = Callable[[int, int], bytes | None]


@dataclass(frozen=True, slots=True)
class Exports:
    """Named exports by address: `rva` (n,) uint32 ascending, `names` of the same length; forwarders are left out."""

    rva: NDArray[np.uint32]
    names: tuple[str, ...]

    def at(self, rva: int) -> tuple[str, int] | None:
        """(name, its RVA) of the last export at or below an RVA; None below the first."""
        i = int(np.searchsorted(self.rva, rva, side="right")) - 1
        return (self.names[i], int(self.rva[i])) if i >= 0 else None

    def rva_of(self, name: str) -> int | None:
        """The RVA of the export of that name, in any case where none has it exactly; None without one."""
        if name in self.names:
            return int(self.rva[self.names.index(name)])
        lower = name.lower()
        return next((int(rva) for rva, known in zip(self.rva, self.names, strict=True) if known.lower() == lower), None)


def read_exports(read: ReadRva, rva: int, size: int) -> Exports:
    """The named exports of the export directory of `size` bytes at an RVA.

    None are given where the directory is not there, has more than 65,536 functions or names, or has a table below RVA
    0x200. `read(rva, size)` gives bytes of the image, None where they are not there.
    """
    table = read(rva, 40) if size else None
    if table is None:
        return Exports(np.empty(0, np.uint32), ())
    functions, names, at_functions, at_names, at_ordinals = (
        int.from_bytes(table[i : i + 4], "little") for i in range(20, 40, 4)
    )
    if max(functions, names) > _MOST_EXPORTS or min(at_functions, at_names, at_ordinals) < _FIRST_SECTION:
        return Exports(np.empty(0, np.uint32), ())
    starts, texts, ordinals = read(at_functions, 4 * functions), read(at_names, 4 * names), read(at_ordinals, 2 * names)
    if starts is None or texts is None or ordinals is None:
        return Exports(np.empty(0, np.uint32), ())
    rvas = np.frombuffer(starts, "<u4")
    order = np.frombuffer(ordinals, "<u2")
    good = order < len(rvas)
    where = rvas[order[good]]
    code = (where < rva) | (where >= rva + size)  # one inside the table is the name of a forwarder
    places = np.frombuffer(texts, "<u4")[good][code]
    where = where[code]
    by_rva = np.argsort(where, kind="stable")
    pool = _ExportNames(read, rva, size)
    named = [pool.at(place) for place in places[by_rva].tolist()]
    real = np.array([bool(text) for text in named], bool)
    return Exports(where[by_rva][real], tuple(filter(None, named)))


class _ExportNames:
    """Zero-ended names, most of which lie in the export directory itself."""

    def __init__(self, read: ReadRva, rva: int, size: int) -> None:
        self._read, self._rva = read, rva
        self._data = read(rva, size) or b""

    def at(self, rva: int) -> str:
        """The name at an RVA, cut where it has no end; "" where it is not there."""
        start = rva - self._rva
        if 0 <= start < len(self._data):
            raw = self._data[start : start + _LONGEST_NAME]
        else:
            raw = self._read(rva, _FOREIGN_NAME) or b""
        return raw.partition(b"\0")[0].decode("latin-1")
