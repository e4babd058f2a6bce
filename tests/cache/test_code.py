"""Heapdump's own code by its content: a copy of it, installed at another time, has the same name."""

from __future__ import annotations

import os
from pathlib import Path

from heapdump.cache import code
from heapdump.cache.code import code_digest
from tests.posix import needs_modes


def written(home: Path, seconds: int, **files: str) -> Path:
    for name, text in files.items():
        path = home / "part" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (seconds, seconds))
    return home


def test_times_and_places_do_not_matter(tmp_path):
    folder = tmp_path / "cache"
    first = code_digest(folder, written(tmp_path / "1", 1_000, a="x", b="y"))
    assert code_digest(folder, written(tmp_path / "2", 2_000, a="x", b="y")) == first
    assert len(list((folder / "code").iterdir())) == 2
    code_digest.cache_clear()
    assert code_digest(folder, tmp_path / "1") == first


def test_content_and_names_matter(tmp_path):
    folder = tmp_path / "cache"
    homes = [
        written(tmp_path / "1", 1_000, a="x", b="y"), written(tmp_path / "2", 1_000, a="x", b="z"),
        written(tmp_path / "3", 1_000, a="x", c="y"), written(tmp_path / "4", 1_000, a="xy", b=""),
    ]  # fmt: skip
    assert len({code_digest(folder, home) for home in homes}) == 4


def test_what_is_kept_verifies_and_is_not_much(tmp_path):
    folder = tmp_path / "cache"
    digests = [code_digest(folder, written(tmp_path / str(i), i, a=str(i))) for i in range(20)]
    assert 0 < len(list((folder / "code").iterdir())) <= 8
    for file in (folder / "code").iterdir():
        file.write_text("forged")
    code_digest.cache_clear()
    assert [code_digest(folder, tmp_path / str(i)) for i in range(20)] == digests


@needs_modes
def test_a_folder_that_others_can_write_to_is_not_used(tmp_path):
    folder, home = tmp_path / "cache", written(tmp_path / "1", 1, a="x")
    (folder / "code").mkdir(parents=True)
    (folder / "code").chmod(0o777)
    assert code_digest(folder, home)
    assert not list((folder / "code").iterdir())


@needs_modes
def test_what_cannot_be_read_is_passed_over_and_nothing_else(tmp_path: Path) -> None:
    home = written(tmp_path / "1", 1_000, a="x", b="y")
    first = code._states(home)
    assert len(first) == 2
    (home / "__pycache__").mkdir()
    (home / "__pycache__" / "a.py").write_text("no source")
    (home / "part" / ".#a.py").symlink_to(home / "nowhere")
    code._states.cache_clear()
    assert code._states(home) == first
    assert code_digest(tmp_path / "cache", tmp_path / "heapdump.zip")
