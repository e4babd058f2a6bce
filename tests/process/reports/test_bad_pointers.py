"""Pointers that lead nowhere, read."""

from __future__ import annotations

import pytest

from heapdump.process.reports.bad_pointer import is_freed_fill, pointer_words


@pytest.mark.parametrize(
    ("value", "pointer_bytes", "words"),
    [
        (0, 8, "null"),
        (0x18, 4, "null + 0x18, a member of a null pointer"),
        (0xFEEEFEEE, 4, "feeefeee: the heap's fill of freed memory"),
        (0xFEEEFF00, 4, "feeefeee + 0x12: the heap's fill of freed memory"),
        (0xDDDDDDDDDDDDDDDD, 8, "dddddddd: the debug CRT's fill of freed memory"),
        (0xF0F0F0F0F0F0F0F8, 8, "f0f0f0f0 + 0x8: page heap's fill of freed memory"),
        (0xABABABAB, 4, "abababab: the heap's fill behind a block"),
        (0x72726518, 4, ""),
        (0x72726563, 4, "looks like text: 'cerr'"),
        (0x0061004C00430041, 8, "looks like UTF-16 text: 'ACLa'"),
        (0x4C43524F000000DF, 8, "non-canonical: no address that the processor accepts"),
        (0x7FF6E6061000, 8, ""),
    ],
)
def test_what_a_bad_pointer_looks_like(value, pointer_bytes, words):
    assert pointer_words(value, pointer_bytes) == words


def test_fills_of_freed_memory_are_told_from_fills_of_new_memory():
    assert is_freed_fill(0xFEEEFEEEFEEEFEEE, 8) and is_freed_fill(0xDDDDDDE1, 4)
    assert not is_freed_fill(0xCDCDCDCD, 4) and not is_freed_fill(0, 8)
