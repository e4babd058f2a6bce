"""How kernels are called: compiled or plain by the number of blocks alone, with the same result."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump import kernels
from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import COLUMNS, BlockTable, tag
from heapdump.kernels import lfh_blocks, nt_chain, row, vs_chain
from heapdump.kernels.grouping import add_up
from heapdump.kernels.row import (
    BUSY,
    CLASSES,
    EXTRA,
    FILL,
    FLAGS_MASK,
    FLAGS_SHIFT,
    INTERNAL,
    KIND_MASK,
    TRUST_MASK,
    UNIT,
)
from heapdump.trust import Trust

NT_WORDS = np.array([0, 0x02_00_0000_0000_0003, 0, 0, 0, 0, 0, 0x10_00_0003_0001_0002, 0, 0], np.int64)
"""Two plain entries of x64 without a checksum: 3 granules, free; 2 granules, busy, 16 unused bytes."""

CODING = nt_chain.HeaderCoding(2, 1, 0, 0)
CHUNKS = vs_chain.ChunkCoding(2, 0, 0)

VS_WORDS = np.array([0x0000_0000_0003_0000 ^ 0x1000, 0, 0, 0, 0, 0, 0x0001_0003_0002_0000 ^ 0x1030, 0, 0, 0], np.int64)
"""Two chunks of x64 from address 0x1000 on: 3 granules, free; 2 granules, busy."""


@pytest.fixture(params=["plain", "compiled"])
def blocks(request) -> int:
    """A number of blocks for which kernels run in this way."""
    if request.param == "compiled":
        pytest.importorskip("numba")
        return kernels.WORTH_COMPILING
    return 0


def rows_of(columns: BlockColumns) -> list[tuple[int, ...]]:
    return list(zip(*(column.tolist() for column in columns.since(0).columns()), strict=True))


def test_a_compiled_function_does_not_decide_for_fewer_blocks():
    pytest.importorskip("numba")
    assert kernels.compiled(nt_chain.follow) is not None
    assert kernels.compiled_if_worth(nt_chain.follow, kernels.WORTH_COMPILING) is not None
    assert kernels.compiled_if_worth(nt_chain.follow, kernels.WORTH_COMPILING - 1) is None


def test_an_nt_chain_is_written_as_rows(blocks):
    columns = BlockColumns()
    out = columns.tail(4)
    runs = np.array([[0, 5, 5, 0x1000]])
    found = kernels.run(nt_chain.chain_modern, blocks, NT_WORDS, runs, 0, 1, 0, 0, CODING, 0, out)
    assert tuple(int(value) for value in found) == (2, 0, 5, nt_chain.END, 2)
    columns.add(2, 7)
    assert rows_of(columns) == [(0x1000, 6, 16, 2, 7, 0), (0x1030, 4, 16, 2, 7, 1 << FLAGS_SHIFT | BUSY)]


def test_a_vs_chain_is_written_as_rows(blocks):
    columns = BlockColumns()
    out, common = columns.tail(4), tag(BlockKind.VS)
    found = kernels.run(
        vs_chain.follow_chunks, blocks, VS_WORDS, np.array([[0, 5, 0x1000]]), 0, 0, 0, CHUNKS, common, out
    )
    assert tuple(int(value) for value in found) == (2, 0, 5, vs_chain.END, 2)
    columns.add(2, 1)
    assert rows_of(columns) == [(0x1000, 6, 16, 2, 1, common), (0x1030, 4, 16, 2, 1, common | BUSY)]


def test_lfh_blocks_are_written_as_rows(blocks):
    words = np.array([0b0000_1101, 0, 0, 0, 3 << 48, 0, 0x4003 << 48, 0], np.int64)
    columns, soundness = BlockColumns(), np.zeros(1, np.uint8)
    out, common = columns.tail(3), tag(BlockKind.LFH)
    subsegment = np.array([[0x1000, 0, 0, 8, 16, 3, 1, 0, 0, 3, 4]])
    assert kernels.run(lfh_blocks.read_blocks, blocks, words, subsegment, 0, 0, common, out, soundness) == 3
    columns.add(3, 0)
    assert rows_of(columns) == [
        (0x1008, 2, 0, 0, 0, common | BUSY), (0x1018, 2, 3, 0, 0, common | BUSY), (0x1028, 2, 0, 0, 0, common),
    ]  # fmt: skip
    sound = lfh_blocks.COUNTS_AGREE | lfh_blocks.FREE_BITS_CLEAR
    assert soundness.tolist() == [sound | lfh_blocks.COUNTS_POSSIBLE]


def test_rows_are_read_by_kernels_as_by_the_table(blocks):
    table = BlockTable(
        np.array([0x1000, 0x1040], np.uint64), np.array([8, 4], np.uint32), np.array([20, 16], np.uint32),
        np.array([2, 2], np.uint8), np.zeros(2, np.uint16), np.full(2, BUSY, np.uint16),
    )  # fmt: skip
    counts, totals = np.zeros(1, np.int64), np.zeros(1, np.int64)
    kernels.run(add_up, blocks, np.zeros(2, np.int64), np.arange(2), table.reader(), counts, totals)
    assert (counts.tolist(), totals.tolist()) == ([2], [int(table.size.sum())])
    assert table.sizes(np.array([1])).tolist() == [16]
    assert table.addresses(np.array([1])).tolist() == [0x1050]
    assert table.entry_sizes(slice(None)).tolist() == [64, 32]


def test_bits_of_tags_do_not_overlap_and_fill_sixteen():
    fields = (KIND_MASK, BUSY, INTERNAL, TRUST_MASK, FLAGS_MASK)
    assert sum(fields) == 0xFFFF and [a & b for a in fields for b in fields if a != b] == [0] * 20
    assert CLASSES == KIND_MASK + BUSY + INTERNAL + 1
    assert EXTRA & FLAGS_MASK == EXTRA and FILL & FLAGS_MASK == FILL
    assert tag(BlockKind.BACKEND, trust=Trust.GUESS) == row.TRUST_GUESS
    assert UNIT == 8 and list(COLUMNS) == ["entry", "size8", "unused", "header8", "heap", "tags"]


def test_columns_of_a_table_are_those_of_the_kernels_rows():
    assert row.RowReader._fields == tuple(COLUMNS)
    assert row.RowWriter._fields == tuple(name for name in COLUMNS if name != "heap")


@pytest.mark.parametrize(
    ("bits", "last", "trust", "unused"),
    [
        (0b11, 3, "exact", 3), (0b11, 0, "guess", 0), (0b11, 0x80FF, "exact", 1), (0b11, 0x9000, "guess", 0),
        (0b11, 17, "guess", 0), (0b01, 3, "derived", 0), (0b01, 0x8041, "derived", 0), (0b01, 0x4141, "exact", 0),
    ],
)  # fmt: skip
def test_a_bit_and_a_count_that_contradict_each_other_are_doubted(blocks, bits, last, trust, unused):
    """The bit of a block says whether its last bytes are a count of unused bytes."""
    words = np.array([bits, 0, last << 48 if last < 0x8000 else (last - 0x10000) << 48, 0], np.int64)
    columns, soundness = BlockColumns(), np.zeros(1, np.uint8)
    out, subsegment = columns.tail(1), np.array([[0x1000, 0, 0, 8, 16, 1, -1, 0, 0, 2, 2]])
    kernels.run(lfh_blocks.read_blocks, blocks, words, subsegment, 0, 0, tag(BlockKind.LFH), out, soundness)
    columns.add(1, 0)
    (row,) = columns.since(0).blocks(np.array([0]))
    assert (row.trust, row.entry_size - row.size) == (trust, unused)
