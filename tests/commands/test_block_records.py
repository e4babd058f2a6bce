"""Blocks written thousands at a time are the same bytes as blocks written one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heapdump import open_dump
from heapdump.analyses.blocks.select import Filter, select
from heapdump.blocks.table import Block
from heapdump.commands.common.block_records import BlockRecords
from heapdump.commands.common.blocks import BlockRecorder
from heapdump.commands.common.fields import fields_of
from heapdump.render import machine
from heapdump.render.view import Answer, ManyRecords, Record
from heapdump.snapshot import Snapshot
from tests.builders import ProcessBuilder
from tests.heaps.test_crt import crt_heap
from tests.patching import poke
from tests.samples import SAMPLES

FORMATS = ("json", "jsonl", "csv", "raw-csv")


def written(format_: str, records: ManyRecords | list[Record]) -> str:
    if format_ == "json":
        answer = Answer("blocks", data=lambda: records, records=lambda: records, page=list)
        return "".join(machine.json_document(answer, "1", {}))
    if format_ == "jsonl":
        return "".join(machine.json_lines(records))
    return "".join(machine.comma_separated(records, {}, fields_of("blocks"), raw=format_ == "raw-csv"))


def assert_same(snapshot: Snapshot) -> None:
    rows = select(snapshot.walk.table, snapshot.heaps, Filter(state="all", internal=True))
    for chosen in (rows, rows[::-1], rows[:1], rows[:0]):
        for format_ in FORMATS:
            many = BlockRecords(snapshot, chosen)
            assert written(format_, many) == written(format_, list(many)), format_


@pytest.mark.parametrize("name", SAMPLES)
def test_every_kind_of_block(name: str, tmp_path: Path) -> None:
    SAMPLES[name](tmp_path / "a.dmp")
    with open_dump(tmp_path / "a.dmp", use_index=False) as snapshot:
        assert_same(snapshot)


def test_blocks_of_the_crts_debug_heap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heap, _, pokes = crt_heap(("x64", "ucrt"), [(24, 0, 0, 1, 7), (100, 0, 12, 2, 8)])
    for _ in range(9):
        heap.busy(40)
    path = tmp_path / "a.dmp"
    path.write_bytes(poke(ProcessBuilder(build=19041).heap(heap.build()).build(), *pokes).data)
    with open_dump(path, use_index=False) as snapshot:
        rows = select(snapshot.walk.table, snapshot.heaps, Filter())
        assert sum("crt" in record for record in BlockRecords(snapshot, rows)) == 2
        monkeypatch.setattr("heapdump.commands.common.blocks._BATCH", 3)  # with and without such blocks
        assert_same(snapshot)


def test_sizes_below_zero_are_written_one_by_one(tmp_path: Path) -> None:
    SAMPLES["service"](tmp_path / "a.dmp")
    with open_dump(tmp_path / "a.dmp", use_index=False) as snapshot:
        unused = snapshot.walk.table.unused
        unused.flags.writeable = True
        unused[5] = 0x7FFFFFF
        assert_same(snapshot)


def test_few_records_are_made_for_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SAMPLES["service"](tmp_path / "a.dmp")
    made: list[int] = []
    make = BlockRecorder.record

    def counted(self: BlockRecorder, block: Block, stack: int) -> Record:
        made.append(block.row)
        return make(self, block, stack)

    monkeypatch.setattr(BlockRecorder, "record", counted)
    with open_dump(tmp_path / "a.dmp", use_index=False) as snapshot:
        rows = select(snapshot.walk.table, snapshot.heaps, Filter())
        assert written("jsonl", BlockRecords(snapshot, rows)).count("\n") == len(rows) > 10 * len(made)


def test_records_that_are_made_together_are_those_of_single_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heapdump.commands.common.blocks._TOGETHER", 3)
    heap, _, pokes = crt_heap(("x64", "ucrt"), [(24, 0, 0, 1, 7), (100, 0, 12, 2, 8)])
    heap.free(20)
    heap.busy(40)
    dump = ProcessBuilder(build=19041).heap(heap.build()).build()
    (tmp_path / "a.dmp").write_bytes(poke(dump, *pokes).data)
    with open_dump(tmp_path / "a.dmp", use_index=False) as snapshot:
        blocks = list(snapshot.walk.table.blocks(np.arange(len(snapshot.walk.table))))
        alone = [BlockRecorder(snapshot)(block) for block in blocks]
        assert sum("crt" in record for record in alone) == 2
        recorder = BlockRecorder(snapshot)
        recorder.expect(block.row for block in blocks[::-1])
        monkeypatch.setattr(BlockRecorder, "of", None)  # each is known
        assert [recorder(block) for block in blocks] == alone
