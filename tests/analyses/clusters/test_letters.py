"""The letter of a word, by its value alone."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from heapdump.analyses.clusters.letters import Letter, PointerEdges, plain_letters

EDGES = PointerEdges(
    np.array([0x7FF700000000, 0x7FF700010000], np.uint64), np.array([0x20000000, 0x20010000], np.uint64)
)
LONG = {
    0: Letter.ZERO, 1: Letter.NUMBER, 0xFFFF: Letter.NUMBER, (1 << 64) - 1: Letter.NUMBER, 0x0000000500000007: Letter.NUMBER,
    0xCDCDCDCDCDCDCDCD: Letter.FILL, 0x7FF700000000: Letter.MODULE, 0x7FF70000FFFF: Letter.MODULE, 0x7FF700010000: Letter.OTHER,
    0x20000000: Letter.STALE, 0x20010000: Letter.NUMBER, 132_000_000_000_000_000: Letter.TIME,
    int.from_bytes(b"filename", "little"): Letter.TEXT, int.from_bytes(b"abc\0\0\0\0\0", "little"): Letter.TEXT,
    int.from_bytes("name".encode("utf-16-le"), "little"): Letter.TEXT, int.from_bytes(b"ab\0x\0\1\0\xf0", "little"): Letter.OTHER,
    0x9E3779B97F4A7C15: Letter.OTHER,
    int.from_bytes(struct.pack("<d", -3.25), "little"): Letter.FLOAT, int.from_bytes(struct.pack("<ff", 1.5, 2.5), "little"): Letter.FLOAT,
}  # fmt: skip
SHORT = {
    0: Letter.ZERO, 7: Letter.NUMBER, 0xFFFFFFF0: Letter.NUMBER, 0xDDDDDDDD: Letter.FILL, 0x20000010: Letter.STALE,
    int.from_bytes(b"text", "little"): Letter.TEXT, int.from_bytes(struct.pack("<f", 0.5), "little"): Letter.FLOAT, 0x12345678: Letter.OTHER,
}  # fmt: skip


@pytest.mark.parametrize(("width", "expected"), [(8, LONG), (4, SHORT)])
def test_letters_of_values(width, expected):
    found = plain_letters(np.array(list(expected), np.uint64), width, EDGES)
    assert {value: Letter(letter) for value, letter in zip(expected, found.tolist(), strict=True)} == expected
