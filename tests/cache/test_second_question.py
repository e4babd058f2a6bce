"""The second question: answers lie beside the walk, so that neither blocks nor pointers are read for them again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from heapdump.analyses.allocated.group_key import GroupKey
from heapdump.analyses.graph.owners import OwnerFinder
from heapdump.analyses.types.typing import BlockTyping, TypeLabel
from heapdump.blocks.table import COLUMNS
from heapdump.cli import run
from heapdump.commands import summary, triage
from heapdump.heaps import walk
from heapdump.snapshot import open_dump
from tests.samples import SAMPLES, stacks

QUESTIONS = ("triage", "summary", *(f"leaks --group-by {by}" for by in GroupKey))
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEAPDUMP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "blocks"


def ask(dump: Path, question: str, capture: Capture, *options: str) -> tuple[int, str, str]:
    name, *rest = question.split()
    code = run([name, str(dump), *rest, *options])
    return (code, *capture.readouterr())


@pytest.mark.parametrize("name", ["stacks", "wow64"])
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_answers_need_no_column_of_blocks(tmp_path, indexes, monkeypatch, capsys, name, options):
    dump = tmp_path / "x.dmp"
    SAMPLES[name](dump)
    for command in (triage, summary):  # pointers of large dumps are not swept without being asked to
        monkeypatch.setattr(command, "_CHEAP", 0)
    first = {question: ask(dump, question, capsys, *options) for question in QUESTIONS}
    (folder,) = indexes.iterdir()
    for column in COLUMNS:
        (folder / column).unlink()
    monkeypatch.setattr(walk, "walk_heaps", None)
    assert {question: ask(dump, question, capsys, *options) for question in QUESTIONS} == first


def test_names_of_other_files_are_not_kept(tmp_path, indexes, capsys):
    dump, images = tmp_path / "x.dmp", tmp_path / "images"
    stacks(dump)
    images.mkdir()
    for by in GroupKey:
        ask(dump, f"leaks --group-by {by}", capsys, "--image-path", str(images))
        ask(dump, f"leaks --unreachable --group-by {by}", capsys, "--image-path", str(images))
    (folder,) = indexes.iterdir()
    stored = {path.stem.removeprefix("groups-") for path in folder.glob("groups-*.json")}
    assert stored == {by.value for by in GroupKey if not by.has_code_names}
    found = {path.stem.removeprefix("unreachable-") for path in folder.glob("unreachable-*.json")}
    assert found == stored


def test_owners_by_other_files_are_kept_for_the_same_files(tmp_path, indexes, monkeypatch):
    dump, find, made = tmp_path / "x.dmp", OwnerFinder.owners, list[BlockTyping]()
    stacks(dump)

    def counted(self: OwnerFinder, typing: BlockTyping) -> BlockTyping:
        """The owners, which were found once more."""
        made.append(typing)
        return find(self, typing)

    monkeypatch.setattr(OwnerFinder, "owners", counted)

    def owners(source: str = "") -> tuple[list[int], tuple[TypeLabel, ...]]:
        """The owners, where a module's image was read from another place than in the dump."""
        with open_dump(dump) as snapshot:
            namer = snapshot.namer(symbol_path=str(tmp_path))
            if source:
                monkeypatch.setattr(
                    namer, "image", lambda module: SimpleNamespace(source=source, section_at=lambda rva: None)
                )
            found = snapshot.types.owners(namer)
            return found.number.tolist(), found.labels

    first = owners()
    assert owners() == first and len(made) == 1
    assert any("!" in label.label for label in first[1])
    owners("a file")
    owners("a file")
    assert len(made) == 2
    assert owners() == first and len(made) == 3
