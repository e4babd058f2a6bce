"""`heap`, `blocks`, `virt-blocks`, `block`: records, filters, relations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heapdump.cli import run
from heapdump.commands.blocks import KINDS
from heapdump.heaps import allocators
from tests.builders import BuiltHeap, NtHeapBuilder, ProcessBuilder
from tests.patching import poke

HEAP = 0x20000000000
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuiltHeap:
    """The truth of a heap whose dump is the only one in the current folder."""
    monkeypatch.delenv("HEAPDUMP_DUMP", raising=False)
    monkeypatch.chdir(tmp_path)
    heap = NtHeapBuilder(base=HEAP)
    heap.busy(90, b"connection string")
    heap.busy(40, "wide text".encode("utf-16-le"))
    heap.busy(16, (0x7FF6F1780010).to_bytes(8, "little"))
    heap.free(20)
    for size in (3000, 3000, 24):
        heap.busy(size)
    heap.virtual(0x20001000000, 1_500_000)
    heap.virtual(0x20002000000, 2_500_000)
    done = heap.build()
    ProcessBuilder().heap(done).write(tmp_path / "crash.dmp")
    return done


def ask(capfd: Capture, *arguments: str) -> Any:
    assert run([*arguments, "--json", "-q"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["complete"] is True
    return document["data"]


def test_blocks_lists_the_programs_busy_blocks(built: BuiltHeap, capfd: Capture) -> None:
    rows = ask(capfd, "blocks")
    truth = {(hex(b.user), b.size) for b in built.truth.busy} | {(hex(b.user), b.requested) for b in built.truth.large}
    assert {(row["address"], row["size"]) for row in rows} == truth
    assert {row["heap"] for row in rows} == {hex(HEAP)}
    assert {(row["kind"], row["segment"]) for row in rows} == {("backend", hex(HEAP)), ("virtual", None)}
    assert {row["state"] for row in rows} == {"busy"}


def test_filters(built: BuiltHeap, capfd: Capture) -> None:
    assert {row["size"] for row in ask(capfd, "blocks", "--size", "3000")} == {3000}
    assert {row["size"] for row in ask(capfd, "blocks", "--size", "1K..2M")} == {3000, 1_500_000}
    assert {row["kind"] for row in ask(capfd, "blocks", "--kind", "virtual")} == {"virtual"}
    free = ask(capfd, "blocks", "--state", "free")
    assert {(row["entry"], row["entry_size"]) for row in free} == {
        (hex(f.entry), f.entry_size) for f in built.truth.free
    }
    assert len(ask(capfd, "blocks", "--state", "all", "--internal")) > len(ask(capfd, "blocks", "--state", "all"))
    first = built.truth.busy[0].user
    assert [row["address"] for row in ask(capfd, "blocks", "--at", f"{first:#x}..{first + 1:#x}")] == [hex(first)]
    sizes = [row["size"] for row in ask(capfd, "blocks", "--sort", "size")]
    assert sizes == sorted(sizes, reverse=True)


def test_containing_finds_texts_and_pointers(built: BuiltHeap, capfd: Capture) -> None:
    for pattern, size in [
        ("connection string", 90),
        ("wide text", 40),
        ("0x7ff6f1780010", 16),
        ("hex:63 6f 6e 6e", 90),
    ]:
        assert [row["size"] for row in ask(capfd, "blocks", "--containing", pattern)] == [size]
    assert ask(capfd, "blocks", "--containing", "no such text") == []
    assert run(["blocks", "--containing", "hex:xyz"]) == 2
    assert "hex:de ad be ef" in capfd.readouterr().err


def test_stat_groups_by_size(built: BuiltHeap, capfd: Capture) -> None:
    groups = ask(capfd, "blocks", "--stat")
    total = 2_500_000 + 1_500_000 + 2 * 3000 + 90 + 40 + 16 + 24
    assert groups[0] == {"size": 2_500_000, "count": 1, "bytes": 2_500_000, "share": pytest.approx(2_500_000 / total)}
    assert next(g for g in groups if g["size"] == 3000)["count"] == 2
    assert sum(g["share"] for g in groups) == pytest.approx(1)


def test_virt_blocks_have_their_list_entries(built: BuiltHeap, capfd: Capture) -> None:
    rows = ask(capfd, "virt-blocks", "--heap", hex(HEAP))
    truth = [(b.list_entry, b.user, b.requested, b.commit_bytes, b.reserve_bytes) for b in built.truth.large]
    found = [
        (int(r["list_entry"], 16), int(r["address"], 16), r["size"], r["commit_bytes"], r["reserve_bytes"])
        for r in rows
    ]
    assert sorted(found) == sorted(truth)
    assert run(["virt-blocks", "--heap", "0x1234"]) == 2
    assert "no heap at 0x1234; there are: 0x20000000000" in capfd.readouterr().err


@pytest.mark.parametrize(("delta", "relation"), [(0, "user"), (89, "user"), (90, "slack"), (-1, "header")])
def test_block_says_where_in_it_an_address_lies(built: BuiltHeap, delta: int, relation: str, capfd: Capture) -> None:
    first = next(b for b in built.truth.busy if b.size == 90)
    row = ask(capfd, "block", hex(first.user + delta))
    assert (row["relation"], row["offset"], row["address"]) == (relation, delta, hex(first.user))
    assert row["content"]["guess"] == "text (ASCII)"
    assert bytes.fromhex(row["content"]["preview"]).startswith(b"connection string")


@pytest.mark.parametrize(("delta", "relation"), [(0, "user"), (1, "slack"), (-1, "header")])
def test_the_address_of_a_block_of_no_bytes_is_its_start(
    tmp_path: Path, capfd: Capture, delta: int, relation: str
) -> None:
    heap = NtHeapBuilder(base=HEAP)
    user = [heap.busy(size) for size in (40, 0, 40)][1]
    ProcessBuilder().heap(heap.build()).write(tmp_path / "empty.dmp")
    row = ask(capfd, "block", str(tmp_path / "empty.dmp"), hex(user + delta))
    assert (row["relation"], row["address"], row["size"]) == (relation, hex(user), 0)


def test_block_outside_and_free(built: BuiltHeap, capfd: Capture) -> None:
    row = ask(capfd, "block", "0x10")
    assert (row["relation"], row["state"], row["heap"]) == ("outside", None, None)
    free = built.truth.free[0]
    assert ask(capfd, "block", "crash.dmp", hex(free.entry + 16))["relation"] == "free"
    assert run(["block", "crash.dmp"]) == 2
    assert "name the address too" in capfd.readouterr().err


def test_heap_agrees_with_windows_own_counts(built: BuiltHeap, capfd: Capture) -> None:
    data = ask(capfd, "heap", hex(HEAP))
    assert all(check["stated"] in (None, check["walked"]) for check in data["checks"])
    assert sum(c["busy_blocks"] for c in data["sizes"]) == data["busy_blocks"] == len(built.truth.busy) + 2
    assert sum(c["busy_bytes"] for c in data["sizes"]) == data["busy_bytes"]
    assert all(c["low"] < c["high"] for c in data["sizes"])


@pytest.mark.parametrize(
    "arguments", [["heap", hex(HEAP)], ["blocks"], ["blocks", "--stat"], ["virt-blocks"], ["block", hex(HEAP)]]
)
def test_tables_fit_80_columns(
    built: BuiltHeap, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*arguments, "-q"]) == 0
    assert max(len(line) for line in capfd.readouterr().out.splitlines()) <= 80


def test_what_is_not_exact_is_marked(built: BuiltHeap, capfd: Capture) -> None:
    """Behind a destroyed header blocks are derived, and the block itself is a guess."""
    damaged, behind = built.truth.busy[1], built.truth.busy[2]
    dump = ProcessBuilder().heap(built).build()
    Path("crash.dmp").write_bytes(poke(dump, (damaged.entry + 8, b"Z" * 8)).data)
    assert run(["blocks", "--no-cache"]) == 4
    rows = [line.split() for line in capfd.readouterr().out.splitlines() if line.startswith("0x")]
    states = {row[0]: next(word for word in row if word.startswith(("busy", "free"))) for row in rows}
    assert (states[f"{damaged.user:#x}"], states[f"{behind.user:#x}"], states[f"{built.truth.busy[0].user:#x}"]) == (
        "busy?",
        "busy~",
        "busy",
    )
    for block, words in (
        (damaged, "its state or its size is a guess"),
        (behind, "what is said of it follows from what is whole"),
    ):
        run(["block", f"{block.user:#x}", "--no-cache"])
        assert words in capfd.readouterr().out


def test_every_kind_of_block_can_be_chosen() -> None:
    assert sorted(KINDS) == sorted({kind.name for one in allocators().values() for kind in one.block_kinds})
