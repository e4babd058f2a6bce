"""Blocks that hold a byte string: exactly those whose requested bytes do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from heapdump.analyses.blocks import search
from heapdump.analyses.blocks.search import containing
from heapdump.blocks.table import BlockTable
from heapdump.kernels.row import BUSY
from tests.builders import DumpBuilder, NtHeapBuilder
from tests.heaps.nt.plans import Generation, process_of
from tests.patching import poke

BASE = 0x5000000
BLOCKS = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 8)), min_size=1, max_size=12)


def table_of(blocks: list[tuple[int, int]]) -> BlockTable:
    """Blocks behind each other without headers: (occupied bytes / 8, bytes not asked for)."""
    size8 = np.array([u for u, _ in blocks], np.uint32)
    entry = BASE + np.concatenate([[0], np.cumsum(size8[:-1])]) * 8
    count = len(blocks)
    unused = np.array([min(s, u * 8) for u, s in blocks], np.uint32)
    return BlockTable(
        entry.astype(np.uint64),
        size8,
        unused,
        np.zeros(count, np.uint8),
        np.zeros(count, np.uint16),
        np.full(count, BUSY, np.uint16),
    )


@pytest.mark.property
@given(
    blocks=BLOCKS, content=st.text("ab", min_size=400, max_size=400), wanted=st.lists(st.text("ab", min_size=1, max_size=8), min_size=1, max_size=2),
    window=st.integers(1, 40),
)  # fmt: skip
@example(blocks=[(1, 0), (1, 0)], content="b" * 7 + "aaab" + "b" * 389, wanted=["aa"], window=40)
@example(blocks=[(1, 0), (1, 0)], content="b" * 7 + "a" + "b" * 392, wanted=["bab"], window=40)
def test_found_are_the_blocks_whose_requested_bytes_hold_it(open_built, blocks, content, wanted, window):
    data, patterns = content.encode(), tuple(text.encode() for text in wanted)
    table = table_of(blocks)
    places = [
        (address - BASE, address - BASE + size)
        for address, size in zip(table.address.tolist(), table.size.tolist(), strict=True)
    ]
    truth = [row for row, (a, b) in enumerate(places) if any(pattern in data[a:b] for pattern in patterns)]
    with (
        pytest.MonkeyPatch.context() as patch,
        open_built(DumpBuilder().thread(4, 0).memory(BASE, data).build()) as snapshot,
    ):
        patch.setattr(search, "_WINDOW", window)
        assert containing(table, snapshot.process.space, np.arange(len(blocks)), patterns).tolist() == truth


@pytest.mark.parametrize(("place", "found"), [(44, [0, 1]), (45, [0]), (24, [0]), (32, [0, 1])])
def test_what_reaches_behind_a_block_inside_another_is_not_in_it(open_built, place, found):
    """The inner block is bytes 32 to 52 of the outer one, whose first bytes hold the text too."""
    data = bytearray(b"needle!!".ljust(200, b"."))
    data[place : place + 8] = b"needle!!"
    table = BlockTable(
        np.array([BASE, BASE + 32], np.uint64), np.array([25, 3], np.uint32), np.array([0, 4], np.uint32), np.zeros(2, np.uint8),
        np.zeros(2, np.uint16), np.full(2, BUSY, np.uint16),
    )  # fmt: skip
    with open_built(DumpBuilder().thread(4, 0).memory(BASE, bytes(data)).build()) as snapshot:
        assert containing(table, snapshot.process.space, np.arange(2), (b"needle!!",)).tolist() == found


def test_slack_behind_the_requested_bytes_is_no_content(open_built):
    generation = Generation("x64", 19041)
    heap = NtHeapBuilder(base=generation.base)
    first, second = heap.busy(20, b"x" * 16 + b"need"), heap.busy(24, b"x" * 16 + b"needle")
    built = poke(process_of(generation, heap.build()).build(), (first + 20, b"le"))
    with open_built(built) as snapshot:
        table = snapshot.walk.table
        rows = np.flatnonzero(table.is_busy & ~table.is_internal)
        assert table.address[containing(table, snapshot.process.space, rows, (b"needle",))].tolist() == [second]
        assert table.address[containing(table, snapshot.process.space, rows, (b"need",))].tolist() == [first, second]


def test_of_a_large_block_what_the_dump_holds_is_searched(open_built):
    """Its size may be damaged: what is not in the dump costs nothing, and hides no text beside it."""
    table = BlockTable(
        np.array([BASE], np.uint64), np.array([1 << 31], np.uint32), np.zeros(1, np.uint32), np.zeros(1, np.uint8),
        np.zeros(1, np.uint16), np.full(1, BUSY, np.uint16),
    )  # fmt: skip
    at = BASE + (20 << 20)
    built = DumpBuilder().thread(4, 0).memory(at, b"x" * 0xFFE + b"ne").memory(at + 0x1000, b"edle".ljust(0x1000, b"."))
    with open_built(built.build()) as snapshot:
        assert containing(table, snapshot.process.space, np.arange(1), (b"needle",)).tolist() == [0]
