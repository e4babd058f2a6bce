"""Members of many structures of one kind at a time: each structure is looked for in the dump once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.memory.mapped import MappedMemory

Values = NDArray[np.uint64]


class StructureArrays:
    """StructureArrays of `size` bytes at n addresses; (n,) of everything.

    Attributes:
        addresses: uint64.
    """

    def __init__(self, mapped: MappedMemory, addresses: Values, size: int) -> None:
        """Looks for the bytes of each structure; none is read yet."""
        self._mapped, self.addresses = mapped, addresses
        self._place = mapped.places(addresses, size)
        self._is_split = self._place < 0
        self._has_split = bool(self._is_split.any())

    @property
    def are_in_one_piece(self) -> NDArray[np.bool_]:
        """True where one range of the dump holds the whole structure."""
        return ~self._is_split

    def of(self, which: NDArray[np.bool_]) -> StructureArrays:
        """The chosen ones."""
        chosen = object.__new__(StructureArrays)
        chosen._mapped, chosen.addresses, chosen._place = self._mapped, self.addresses[which], self._place[which]
        chosen._is_split = self._is_split[which]
        chosen._has_split = bool(chosen._is_split.any())
        return chosen

    def member(self, offset: int, size: int) -> tuple[Values, NDArray[np.bool_]]:
        """(integers of `size` bytes, a power of two, at that offset, 0 where the dump lacks one; whether it has it)."""
        if not self._has_split:
            return self._mapped.integers_at(self._place.view(np.uint64) + np.uint64(offset), size), ~self._is_split
        values, has = np.zeros(len(self.addresses), np.uint64), ~self._is_split
        values[has] = self._mapped.integers_at(self._place[has].view(np.uint64) + np.uint64(offset), size)
        split = self._is_split
        values[split], has[split] = self._mapped.gather(self.addresses[split] + np.uint64(offset), size)
        return values, has
