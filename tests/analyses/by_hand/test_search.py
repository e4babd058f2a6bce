"""Searches over built memory: windows, ranges that touch, gaps, overlapping places, texts around them."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.analyses.by_hand import search
from heapdump.analyses.by_hand.search import Hit, find_all, text_around
from heapdump.spans import Span
from tests.builders import ProcessBuilder

DATA = 0x5000000


def places(pattern: bytes, text: bytes) -> list[int]:
    """Every place, overlapping ones too."""
    return [match.start() for match in re.finditer(b"(?=" + re.escape(pattern) + b")", text)]


@pytest.mark.property
@given(
    content=st.binary(min_size=1, max_size=300).map(lambda data: bytes(byte % 3 for byte in data)),
    pattern=st.binary(min_size=1, max_size=5).map(lambda data: bytes(byte % 3 for byte in data)),
    cuts=st.lists(st.integers(1, 299), max_size=4),
    window=st.integers(1, 64),
)
def test_places_across_windows_and_ranges(open_built, content, pattern, cuts, window):
    made = ProcessBuilder().region(DATA, 0x1000)
    edges = sorted({0, *(cut for cut in cuts if cut < len(content)), len(content)})
    for start, end in itertools.pairwise(edges):
        made.memory(DATA + start, content[start:end])
    with pytest.MonkeyPatch.context() as patch, open_built(made) as snapshot:
        patch.setattr(search, "_WINDOW", window)
        found = find_all(snapshot.process.space, [Span(DATA, DATA + 0x1000)], [pattern])
        assert [hit.address - DATA for hit in found] == places(pattern, content)


def test_a_place_across_a_gap_is_none(open_built):
    made = (
        ProcessBuilder()
        .region(DATA, 0x3000)
        .memory(DATA, b"x" * 0xFFF + b"A")
        .memory(DATA + 0x2000, b"B" + b"x" * 0xFFF)
    )
    with open_built(made) as snapshot:
        assert list(find_all(snapshot.process.space, [Span(0, 1 << 64)], [b"AB"])) == []


def test_the_text_around_a_place(open_built):
    wide = "connection lost".encode("utf-16-le")
    data = b"\x01\0open connection lost\0" + b"\x01\x02" + b"\0\0" + wide + b"\0\0"
    made = ProcessBuilder().region(DATA, 0x1000).memory(DATA, data.ljust(0x1000, b"\0"))
    with open_built(made) as snapshot:
        space = snapshot.process.space
        ascii_at, wide_at = DATA + data.index(b"nect"), DATA + data.index("nect".encode("utf-16-le"))
        assert text_around(space, Hit(ascii_at, 4, is_wide=False)) == "open connection lost"
        assert text_around(space, Hit(wide_at, 8, is_wide=True)) == "connection lost"
        assert text_around(space, Hit(DATA, 2, is_wide=False)) == "..open connection lost"
