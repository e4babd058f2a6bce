"""What the cache folder holds, and its deletion: every index, and nothing that is not one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import heapdump
from heapdump.cache.contents import clear, entries
from heapdump.cache.store import MANIFEST
from heapdump.cli import run
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.posix import needs_links


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder with the indexes of two dumps, the second one used last."""
    monkeypatch.setenv("HEAPDUMP_CACHE", str(tmp_path / "cache"))
    for name, size in (("a.dmp", 24), ("b.dmp", 4000)):
        heap = NtHeapBuilder(base=0x28A65B00000)
        heap.busy(size)
        ProcessBuilder().heap(heap.build()).write(tmp_path / name)
        with heapdump.open_dump(tmp_path / name) as snapshot:
            assert len(snapshot.walk.table)
    return tmp_path / "cache" / "blocks"


def test_entries_have_size_and_last_use_newest_first(root: Path) -> None:
    first, second = entries()
    assert {first.folder.parent, second.folder.parent} == {root}
    for entry in (first, second):
        files = [path for path in entry.folder.iterdir() if path.is_file()]
        assert entry.files == len(files) > 3
        assert entry.bytes == sum(path.stat().st_size for path in files)
    os.utime(second.folder / MANIFEST, (4e9, 4e9))
    assert [entry.folder for entry in entries()] == [second.folder, first.folder]
    assert entries()[0].last_used == 4e9


def test_without_a_folder_there_are_no_entries(tmp_path: Path) -> None:
    assert entries(tmp_path / "none") == ()
    assert clear(tmp_path / "none").deleted == ()


@needs_links
def test_clear_deletes_every_index_and_nothing_else(root: Path, tmp_path: Path) -> None:
    (root / "letter.txt").write_text("mine")
    (root / "photos").mkdir()
    (root / "new-half").mkdir()
    (root / "new-half" / "entry").write_bytes(bytes(100))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    (root / ("0" * 32)).symlink_to(outside)
    assert [entry.last_used for entry in entries()][-1] is None, "a half-written one is listed, last"
    cleared = clear()
    assert (len(cleared.deleted), cleared.remaining) == (3, ())
    assert entries() == ()
    assert sorted(path.name for path in root.iterdir()) == ["0" * 32, "letter.txt", "photos"]
    assert (outside / "kept").exists()


def test_clear_and_compile_are_both_done(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("heapdump.kernels.ahead.compile_known", lambda say: (60, 3))
    assert run(["cache", "--clear", "--compile", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert (data["deleted_bytes"] > 0, data["indexes"], data["compiled"], data["kept"]) == (True, [], 3, 60)
    assert not list(root.glob("*/manifest.json"))
    assert run(["cache", "--clear", "--compile"]) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "compiled",
        "deleted",
        str(root),
    ]


def test_nothing_is_cleared_where_nothing_can_be_compiled(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_numba(say: Callable[[str], None]) -> tuple[int, int]:
        raise ImportError("No module named 'numba'")

    monkeypatch.setattr("heapdump.kernels.ahead.compile_known", no_numba)
    assert run(["cache", "--clear", "--compile"]) == 2
    assert (capsys.readouterr().out, len(entries())) == ("", 2)


def test_an_index_that_cannot_be_deleted_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.rmtree", lambda path, ignore_errors: None)  # Windows: a file of it is open
    cleared = clear()
    assert cleared.deleted == ()
    assert len(cleared.remaining) == 2
