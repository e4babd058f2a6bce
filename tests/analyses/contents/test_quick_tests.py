"""Quick tests that come before slow ones: they leave out nothing that the slow ones accept."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from heapdump.analyses.contents.first_bytes import read_words
from heapdump.analyses.contents.texts import is_utf8, may_be_utf8
from heapdump.memory.mapped import MappedMemory
from tests.builders import NtHeapBuilder, ProcessBuilder


@given(text=st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]), min_size=16, max_size=40))
def test_no_text_is_left_out(text: str) -> None:
    raw = np.frombuffer(text.encode()[:16], np.uint8)[None, :]
    if is_utf8(raw, np.array([16]), least=1).any():
        assert may_be_utf8(raw).all()


@given(raw=st.binary(min_size=16, max_size=16).filter(lambda raw: 0 not in raw))
def test_no_bytes_are_left_out(raw: bytes) -> None:
    rows = np.frombuffer(raw, np.uint8)[None, :]
    assert may_be_utf8(rows).all() or not is_utf8(rows, np.array([16]), least=1).any()


def test_words_are_those_that_are_read_one_by_one(open_built) -> None:
    heap = NtHeapBuilder(base=0x20000000000, reserve=0x1000000)
    rng = np.random.default_rng(3)
    block = heap.busy(20_000, rng.integers(0, 256, 20_000, np.uint8).tobytes())
    with open_built(ProcessBuilder().heap(heap.build())) as snapshot:
        memory: MappedMemory = snapshot.process.space.mapped
        end = int(memory.ends[memory.starts <= np.uint64(block)][-1])
        address = np.array([*(block + place for place in range(0, 900, 13)), end - 20, end - 64, end, 8], np.uint64)
        words, is_there = read_words(memory, address, 8)
        for number in range(8):
            value, present = memory.gather(address + np.uint64(8 * number), 8)
            assert np.array_equal(words[:, number], value)
            assert np.array_equal(is_there[:, number], present)
        assert not is_there[-1].any()
        assert is_there[:-4].all()
