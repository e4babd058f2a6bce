"""Members of many structures at a time are those that single reads give, also where a structure lies in two ranges."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from heapdump.memory.space import AddressSpace
from heapdump.memory.structures import StructureArrays


class _File:
    """Bytes as a dump's file."""

    def __init__(self, data: bytes) -> None:
        self._data, self.file_bytes = data, len(data)

    def read_at(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]

    def view_at(self, offset: int, size: int) -> memoryview:
        return memoryview(self._data)[offset : offset + size]

    def expect(self, offset: int, size: int) -> None: ...

    def forget(self, offset: int, size: int) -> None: ...


RANGES = [(0x1000, 0x40, 3), (0x1040, 0x20, 0x80), (0x1080, 0x28, 0x111), ((1 << 64) - 0x50, 0x30, 0x150)]
"""Start, size, offset in the file: two that touch, one alone, one at the top of memory."""

ADDRESSES = st.one_of(st.integers(0xFF0, 0x10B0), st.integers((1 << 64) - 0x60, (1 << 64) - 1), st.just(0))


@given(addresses=st.lists(ADDRESSES, max_size=12), offset=st.integers(0, 24), size=st.sampled_from([1, 2, 4, 8]))
def test_members_are_those_of_single_reads(addresses, offset, size):
    ranges = np.array(RANGES, [("start", "<u8"), ("size", "<u8"), ("offset", "<u8")])
    space = AddressSpace(_File(np.random.default_rng(1).bytes(0x200)), ranges, 8)
    found = StructureArrays(space.mapped, np.array(addresses, np.uint64), 32)
    pieces = [(start, start + length) for start, length, _ in RANGES]
    assert found.are_in_one_piece.tolist() == [any(a <= at and at + 32 <= b for a, b in pieces) for at in addresses]
    expected = [
        space.integer(at + offset, size)
        if any(a <= at + offset and at + offset + size <= b for a, b in pieces)
        else None
        for at in addresses
    ]
    values, has = found.member(offset, size)
    assert [
        value if is_there else None for value, is_there in zip(values.tolist(), has.tolist(), strict=True)
    ] == expected
    chosen = np.array([value is not None for value in expected], bool)
    assert found.of(chosen).member(offset, size)[0].tolist() == [value for value in expected if value is not None]
