"""A kind of heap that nothing but the table names appears everywhere: the proof that a kind is a package."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from heapdump import cli, heaps
from heapdump.blocks.kind import HeapKind
from tests.builders import ProcessBuilder
from tests.heaps.toy import ALLOCATOR, HEADER, arena

BASE, SIZE = 0x28A70000000, 0x3000
BODIES = [(b"x" * 24, True), (b"y" * 40, False), (b"z" * 100, True)]
FIRST = BASE + 16 + HEADER
FREE = FIRST + 32 + HEADER
LAST = FREE + 48 + HEADER


@pytest.fixture
def dump(tmp_path, monkeypatch):
    """A process with one toy heap that its heap list does not name; the first block points to the last one."""
    monkeypatch.setitem(heaps.ALLOCATORS, HeapKind("toy"), "tests.heaps.toy")
    return write(tmp_path / "toy.dmp")


def write(path, damage=None):
    content = bytearray(arena([(LAST.to_bytes(8, "little") * 3, True), *BODIES[1:]]).ljust(SIZE, b"\0"))
    if damage is not None:
        content[damage - BASE] = 0
    process = ProcessBuilder(build=19041)
    process.thread(4, content=FIRST.to_bytes(8, "little"))
    process.region(BASE, SIZE).memory(BASE, bytes(content))
    process.write(path)
    return path


def ask(*words):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        result = CliRunner().invoke(cli.cli, [*map(str, words), "--json"], standalone_mode=False)
    assert result.exception is None, result.exception
    return json.loads(result.stdout), result.return_value


def test_heaps_blocks_and_block(dump):
    (heap,) = ask("heaps", dump)[0]["data"]
    assert (heap["kind"], heap["address"], heap["busy_blocks"], heap["busy_bytes"]) == ("toy", hex(BASE), 2, 124)
    assert (heap["free_blocks"], heap["integrity"]) == (1, 1.0)
    blocks = ask("blocks", dump, "--state", "all")[0]["data"]
    assert [(b["address"], b["size"], b["kind"], b["state"]) for b in blocks] == [
        (hex(FIRST), 24, "toy", "busy"), (hex(FREE), 40, "toy", "free"), (hex(LAST), 100, "toy", "busy"),
    ]  # fmt: skip
    assert ask("block", dump, hex(LAST + 7))[0]["data"]["relation"] == "user"


def test_usage_and_reconciliation(dump):
    data = ask("summary", dump)[0]["data"]
    assert {row["name"]: row["bytes"] for row in data["usage"]}["Heap"] == SIZE
    items = {item["item"]: item["bytes"] for item in data["reconciliation"]}
    assert items["heap segments: busy blocks"] == 124
    assert items["heap segments: free blocks"] == HEADER + 48
    (region,) = ask("regions", dump, "--usage", "Heap")[0]["data"]
    assert (region["address"], region["usage"]) == (hex(BASE), "Heap")


def test_leaks_references_and_reachability(dump):
    groups = ask("leaks", dump, "--group-by", "size")[0]["data"]
    assert {(group["count"], group["bytes"]) for group in groups} == {(1, 24), (1, 100)}
    report = ask("leaks", dump, "--unreachable")[0]["data"]
    assert (report["direct"]["blocks"], report["reachable"]["blocks"]) == (0, 2)
    assert "0x" in json.dumps(ask("refs", dump, hex(LAST))[0]["data"])


def test_check(dump, tmp_path):
    assert ask("check", dump)[1] == 0
    (finding,), code = (answer := ask("check", write(tmp_path / "hurt.dmp", damage=FREE)))[0]["data"], answer[1]
    assert (finding["kind"], finding["heap"], finding["address"], code) == ("free_fill", hex(BASE), hex(FREE), 1)


def test_the_index_gives_the_same_answer(dump, tmp_path, monkeypatch):
    monkeypatch.setenv("HEAPDUMP_CACHE", str(tmp_path / "cache"))
    cold = ask("blocks", dump, "--state", "all")
    assert list((tmp_path / "cache").rglob("manifest.json"))
    assert ask("blocks", dump, "--state", "all") == cold


def test_a_kind_without_a_check_is_not_called_healthy(dump, monkeypatch):
    monkeypatch.setattr(type(ALLOCATOR), "check", lambda self, job: False)
    answer, code = ask("check", dump)
    assert (code, answer["complete"]) == (4, False)
    assert any("not checked" in note for note in answer["notes"])
