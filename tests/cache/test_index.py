"""The index: the second walk is read, not walked; what is damaged, foreign or of another dump is never used."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import heapdump
from heapdump.cache import store
from heapdump.cache.texts import digest
from heapdump.heaps import walk
from heapdump.snapshot import Snapshot
from heapdump.spans import Span
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.heaps.segment.plans import Plan

COLUMNS = ("entry", "size8", "unused", "header8", "heap", "tags")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEAPDUMP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "blocks"


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    heap = NtHeapBuilder(base=0x28A65B00000)
    for size in (24, 100, 4000):
        heap.busy(size)
    heap.free(20)
    heap.virtual(0x30000000000, 0x100000)
    path = tmp_path / "x.dmp"
    ProcessBuilder().heap(heap.build()).write(path)
    return path


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One item for each time the heaps were really walked."""
    seen: list[int] = []
    really = walk.walk_heaps

    def counting(*arguments):
        seen.append(1)
        return really(*arguments)

    monkeypatch.setattr(walk, "walk_heaps", counting)
    return seen


def content(snapshot: Snapshot) -> tuple[Any, ...]:
    found = snapshot.walk
    columns = [getattr(found.table, name).tolist() for name in COLUMNS]
    return columns, found.counts, found.findings, found.gaps, found.facts


def asked(path: Path, **options) -> tuple[Any, ...]:
    with heapdump.open_dump(path, **options) as snapshot:
        return content(snapshot)


def only(folder: Path) -> Path:
    (entry,) = folder.iterdir()
    return entry


def test_the_second_question_does_not_walk_and_has_the_same_answer(dump, folder, walks):
    assert asked(dump) == asked(dump)
    assert len(walks) == 1
    assert len(asked(dump)[0][0]) == 7


def test_counts_need_no_column(dump, folder, walks):
    asked(dump)
    for name in COLUMNS:
        (only(folder) / name).unlink()
    with heapdump.open_dump(dump) as snapshot:
        assert snapshot.walk.counts[0].busy_blocks == 4
    assert len(walks) == 1


def test_findings_and_gaps_are_kept(tmp_path, folder, walks):
    heap = NtHeapBuilder(base=0x28A65B00000)
    victim = [heap.busy(size) for size in (24, 100, 200, 4000)][1]
    data = bytearray(ProcessBuilder().heap(heap.build()).build().data)
    path = tmp_path / "damaged.dmp"
    path.write_bytes(data)
    with heapdump.open_dump(path, use_index=False) as snapshot:
        place = snapshot.process.space.mapped.file_place(Span(victim - 8, victim))
    assert place is not None
    data[place : place + 8] = b"AAAAAAAA"
    path.write_bytes(data)
    first = asked(path)
    assert first[2] and first[3]
    assert asked(path) == first
    assert len(walks) == 1


def test_without_the_index_nothing_is_read_or_written(dump, folder, walks):
    asked(dump, use_index=False)
    assert not folder.exists()
    asked(dump)
    asked(dump, use_index=False)
    assert len(walks) == 3


@pytest.mark.parametrize("name", [*COLUMNS, "manifest.json"])
@pytest.mark.parametrize("place", ["first", "middle", "last", "cut", "empty", "gone", "foreign"])
def test_a_damaged_index_is_walked_again_and_rebuilt(dump, folder, walks, name, place):
    truth = asked(dump)
    file = only(folder) / name
    data = bytearray(file.read_bytes())
    if place == "gone":
        file.unlink()
    elif place == "foreign":
        file.write_bytes(b"\x93NUMPY\x01\x00" + b"not what it was " * 40)
    elif place in ("cut", "empty"):
        file.write_bytes(data[: len(data) // 2 if place == "cut" else 0])
    else:
        at = {"first": 0, "middle": len(data) // 2, "last": len(data) - 1}[place]
        data[at] ^= 0x10
        file.write_bytes(data)
    assert asked(dump) == truth
    assert len(walks) == 2
    assert asked(dump) == truth  # damaged columns are found when they are needed: that one was deleted, this one writes
    assert asked(dump) == truth
    assert len(walks) <= 3


def test_a_foreign_manifest_is_ignored(dump, folder, walks):
    truth = asked(dump)
    file = only(folder) / "manifest.json"
    text = json.dumps({"rows": 3, "counts": {"0": {"kinds": 7}}})
    file.write_text(f"{digest(text)}\n{text}")
    assert asked(dump) == truth
    assert len(walks) == 2


def test_what_the_walk_inferred_is_kept(tmp_path, folder, walks):
    plan = Plan("x64", 14393, True, (("vs", 40), ("lfh", 7), ("large", 2)), 11)
    path = tmp_path / "segment.dmp"
    plan.process(plan.heap()).write(path)
    first = asked(path)
    assert first[4][0]["padding_bytes"] == 16
    assert asked(path) == first
    assert len(walks) == 1


@pytest.mark.parametrize("fact", [[1], {"a": 1}, 1.5])
def test_facts_of_another_form_are_walked_again(dump, folder, walks, fact):
    truth = asked(dump)
    file = only(folder) / "manifest.json"
    document = json.loads(file.read_text().partition("\n")[2])
    text = json.dumps(document | {"facts": {"0": {"padding_bytes": fact}}})
    file.write_text(f"{digest(text)}\n{text}")
    assert asked(dump) == truth
    assert len(walks) == 2


def test_a_changed_dump_has_an_index_of_its_own(dump, folder, walks):
    asked(dump)
    state = dump.stat()
    os.utime(dump, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000))
    asked(dump)
    assert len(walks) == 2


def test_other_code_does_not_use_it(dump, folder, walks, monkeypatch):
    asked(dump)
    monkeypatch.setattr(store, "code_digest", lambda folder: "changed")
    asked(dump)
    assert len(walks) == 2


def test_a_moved_dump_keeps_its_index(dump, folder, walks):
    asked(dump)
    asked(dump.rename(dump.with_name("moved.dmp")))
    assert len(walks) == 1


def test_old_indexes_go_when_there_are_too_many(dump, folder, walks, monkeypatch):
    monkeypatch.setattr(store, "_MOST_DUMPS", 4)
    state = dump.stat()
    for i in range(6):
        os.utime(dump, ns=(state.st_atime_ns, state.st_mtime_ns + i * 1_000_000))
        asked(dump)
        assert len(list(folder.iterdir())) <= 4
    asked(dump)  # the newest is still there
    assert len(walks) == 6


def test_old_indexes_go_when_they_are_too_large(dump, folder, monkeypatch):
    monkeypatch.setattr(store, "_SMALL_BYTES", 0)
    monkeypatch.setattr(store, "_most_bytes", lambda root: 3000)
    state = dump.stat()
    for i in range(6):
        os.utime(dump, ns=(state.st_atime_ns, state.st_mtime_ns + i * 1_000_000))
        asked(dump)
    assert sum(file.stat().st_size for file in folder.rglob("*/*") if file.name in COLUMNS) <= 3000
    assert list(folder.iterdir())


def test_a_folder_that_cannot_be_written_is_said_and_harmless(dump, tmp_path, walks, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEAPDUMP_CACHE", str(tmp_path / "file" / "inside"))
    with heapdump.open_dump(dump) as snapshot:
        assert snapshot.walk.counts[0].busy_blocks == 4
        assert any("no index could be written" in remark for remark in snapshot.remarks)


def test_an_index_that_would_fill_the_disk_is_not_written(dump, folder, monkeypatch):
    monkeypatch.setattr(store, "_most_bytes", lambda root: 10)
    with heapdump.open_dump(dump) as snapshot:
        assert snapshot.walk.counts
        assert any("it needs" in remark for remark in snapshot.remarks)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 3_000_001])
def test_the_checksum_sees_each_byte_and_each_place(size):
    data = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    checksum = store._checksum(data)
    for at in {0, size // 3, size - 1} - {-1}:
        if size:
            changed = data.copy()
            changed[at] ^= 1
            assert store._checksum(changed) != checksum
    assert store._checksum(np.append(data, np.uint8(0))) != checksum


def test_only_indexes_are_ever_deleted(dump, folder, monkeypatch):
    monkeypatch.setattr(store, "_MOST_DUMPS", 2)
    for name in ("project", "a" * 31, "notes"):
        (folder / name).mkdir(parents=True)
        (folder / name / "manifest.json").write_text("{}")
    left = folder / "new-killed"
    left.mkdir()
    os.utime(left, (1, 1))
    state = dump.stat()
    for i in range(5):
        os.utime(dump, ns=(state.st_atime_ns, state.st_mtime_ns + i * 1_000_000))
        asked(dump)
    assert {"project", "a" * 31, "notes"} <= {entry.name for entry in folder.iterdir()}
    assert not left.exists()


def test_a_dump_that_is_replaced_while_it_is_open_keeps_its_own_answer(dump, tmp_path, folder):
    other = tmp_path / "other.dmp"
    heap = NtHeapBuilder(base=0x28A65B00000)
    for _ in range(40):
        heap.busy(64)
    ProcessBuilder().heap(heap.build()).write(other)
    truth = asked(other, use_index=False)
    with heapdump.open_dump(dump) as snapshot:
        other.replace(dump)
        assert len(snapshot.walk.table) == 7
    assert asked(dump) == truth


def test_a_dump_that_is_deleted_while_it_is_open_is_answered(dump, folder):
    with heapdump.open_dump(dump) as snapshot:
        dump.unlink()
        assert len(snapshot.walk.table) == 7


@pytest.mark.parametrize(
    "body", ["[]", "7", '{"rows": -1}', '{"rows": 3, "checksums": {}, "counts": [], "findings": [], "gaps": []}']
)
def test_a_forged_manifest_is_ignored(dump, folder, walks, body):
    truth = asked(dump)
    (only(folder) / "manifest.json").write_text(f"{digest(body)}\n{body}")
    assert asked(dump) == truth
    assert len(walks) == 2


def test_a_change_in_the_middle_with_the_same_time_and_size_is_seen(dump, folder, walks):
    asked(dump)
    state, data = dump.stat(), bytearray(dump.read_bytes())
    data[len(data) // 2] ^= 1
    dump.write_bytes(data)
    os.utime(dump, ns=(state.st_atime_ns, state.st_mtime_ns))
    asked(dump)
    assert len(walks) == 2


def test_verify_sees_every_byte(dump, folder, walks):
    """The stamp of samples misses a changed byte between them, with the same time and size."""
    from heapdump.cli import run
    from heapdump.dump.stamp import stamp_of

    padding = dump.stat().st_size
    with dump.open("ab") as file:
        file.write(bytes(4 << 20))
    assert run(["heaps", str(dump), "--verify"]) == run(["heaps", str(dump), "--verify"]) == 0
    assert len(walks) == 1
    assert run(["heaps", str(dump)]) == 0
    assert len(walks) == 2
    state, data = dump.stat(), bytearray(dump.read_bytes())
    step = len(data) // 64
    at = next(at for at in range(padding, len(data)) if at // step * step + 8192 < at)
    data[at] ^= 1
    with dump.open("rb") as file:
        before = stamp_of(file)
    dump.write_bytes(data)
    os.utime(dump, ns=(state.st_atime_ns, state.st_mtime_ns))
    with dump.open("rb") as file:
        assert stamp_of(file) == before
    assert run(["heaps", str(dump)]) == 0
    assert len(walks) == 2
    assert run(["heaps", str(dump), "--verify"]) == 0
    assert len(walks) == 3
