"""Damaged headers are read one by one, as integers: what that gives is what arrays give."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump import kernels
from heapdump.heaps.nt import entry_format, resync
from heapdump.heaps.nt.segment_map import NtSegmentMap
from heapdump.heaps.nt.unused_bytes import (
    Entries,
    has_usual_prefix,
    second_header_prefix,
    unused_bytes,
    unused_bytes_of_one,
)
from heapdump.spans import Span
from heapdump.trust import Trust
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.patching import peek, poke

_MASK = 0x00100000


def format_of(arch: str, pre_vista: bool, mask: int = 0, key: int = 0) -> Any:
    """The members of an entry format that do not come from a layout."""
    stride = 2 if arch == "x64" else 1
    bits = entry_format._PRE_VISTA if pre_vista else entry_format._VISTA
    return SimpleNamespace(
        is_pre_vista=pre_vista, bits=bits, stride=stride, word_index=stride - 1, granule=8 * stride, key=key, mask=mask
    )


def signed(words: list[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(words, np.uint64).view(np.int64)


WORD = st.one_of(st.integers(0, 120), st.integers(0, (1 << 64) - 1), st.builds(lambda n, mark: n << 32 | mark << 48, st.integers(0, 90), st.sampled_from([0x502, 0x501, 0x503])))  # fmt: skip


@given(
    arch=st.sampled_from(["x86", "x64"]), pre_vista=st.booleans(), words=st.lists(WORD, min_size=8, max_size=40),
    at=st.integers(0, 3), size=st.integers(1, 30), code=st.integers(0, 255),
)  # fmt: skip
def test_unused_bytes_of_one_are_those_of_many(arch, pre_vista, words, at, size, code):
    one, memory = format_of(arch, pre_vista), signed(words)
    at = min(at, len(memory) // one.stride - 1)
    entries = Entries(np.array([at]), np.array([size]), np.array([code]), np.array([True]))
    many = unused_bytes(one, memory, entries)
    assert unused_bytes_of_one(one, memory, (at, size), code) == tuple(column[0] for column in many)


def header(size: int, previous: int, mask: int, bits: Any) -> int:
    """A sound header word without a key."""
    if not mask:
        return size | previous << bits.previous_size
    low = size | (mask >> 16 | 1) << 16
    return low | ((low ^ low >> 8 ^ low >> 16) & 0xFF) << 24 | previous << 32


@given(
    arch=st.sampled_from(["x86", "x64"]), mask=st.sampled_from([0, _MASK]),
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=30), wrong=st.lists(st.integers(0, 60), max_size=6), cut=st.integers(0, 3),
)  # fmt: skip
@pytest.mark.property
def test_the_next_good_header_of_few_is_that_of_many(arch, mask, sizes, wrong, cut):
    one = format_of(arch, not mask, mask)
    granules = sum(max(size, 1) for size in sizes)
    words = np.zeros(granules * one.stride, np.int64)
    at, before = 0, 0
    for size in sizes:
        words[at * one.stride + one.word_index] = header(size, before, mask, one.bits)
        at, before = at + max(size, 1), size
    for place in wrong:
        words[place % len(words)] ^= 1 << place % 40
    for low in range(granules):
        end = max(granules - cut, low + 1)
        arguments = (one, words, low, min(granules, end), end)
        assert resync._first_of_few(*arguments) == resync._first_good(*arguments)


@given(spans=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=6), address=st.integers(0, 60))
def test_a_segment_is_found_as_by_asking_each(spans, address):
    segments: list[Any] = [SimpleNamespace(span=Span(start, start + size)) for start, size in spans]
    first = next((segment for segment in segments if address in segment.span), None)
    assert NtSegmentMap(segments).at(address) is first


@given(arch=st.sampled_from(["x86", "x64"]), pre_vista=st.booleans(), words=st.lists(WORD, min_size=2, max_size=12))
def test_the_front_prefix_of_one_is_that_of_many(arch, pre_vista, words):
    one, data = format_of(arch, pre_vista), signed(words)
    granules = np.arange(len(words) // one.stride)
    many = second_header_prefix(one, data, granules)
    assert [has_usual_prefix(one, data, granule) for granule in granules.tolist()] == many.tolist()


@pytest.mark.parametrize("internal", [0, 8])
@pytest.mark.parametrize("is_compiled", [False, True])
def test_a_front_prefix_that_does_not_fit_is_none(open_built, monkeypatch, internal, is_compiled):
    monkeypatch.setattr(kernels, "compiled_if_worth", lambda f, blocks: kernels.compiled(f) if is_compiled else None)
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(20)
    user = heap.busy(20)
    heap.busy(20)
    built = ProcessBuilder(build=19041).heap(heap.build()).build()
    flags, checksum, unused = (peek(built, user - at, 1) for at in (6, 5, 1))
    changed = bytes([flags ^ internal, checksum ^ internal]), bytes([unused ^ 12 ^ 0x71])  # 12 unused bytes before
    with open_built(poke(built, (user - 6, changed[0]), (user - 1, changed[1]))) as snapshot:
        table = snapshot.walk.table
        (row,) = np.flatnonzero(table.entry == user - 16)
        block = table.block(int(row))
        assert (block.address, block.size, block.trust) == (user, 24, Trust.GUESS)
        found = [one for one in snapshot.damage.findings if one.severity == "error"]
        expected = [] if internal else [("entry_header", user - 1, 1)]  # blocks of the heap itself are not examined
        assert [(one.kind, one.address, one.length) for one in found] == expected
