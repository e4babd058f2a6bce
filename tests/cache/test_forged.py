"""An index that was forged with the right checksums, or that others can write to: never used, never a defect."""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heapdump import system
from heapdump.analyses.allocated.leaks import LeakGroup
from heapdump.analyses.graph.leak_suspects import LeakSuspect
from heapdump.analyses.graph.unreachable_report import UnreachableReport
from heapdump.blocks import stored_checks
from heapdump.blocks.findings import Finding
from heapdump.blocks.stored_checks import require_types
from heapdump.blocks.walk import HeapCount
from heapdump.cache import store
from heapdump.cache.texts import digest
from tests.asking import Answer, ask
from tests.posix import needs_modes
from tests.samples import stacks

COMMANDS = (
    "retained", "leaks --unreachable", "refs {block}", "heaps", "summary", "check", "blocks --all", "leaks", "leaks --group-by size",
    "block {block}", "triage", "leaks --group-by type", "diff {dump}",
)  # fmt: skip
HOSTILE_NUMBERS = (-1, 1 << 31, (1 << 63) - 1, 1 << 70, -(1 << 63), 255)
HOSTILE_VALUES: tuple[object, ...] = (
    -1,
    1 << 40,
    1 << 200,
    1.5,
    float("nan"),
    "x",
    "\ud800",
    "\x1b[2J",
    None,
    [],
    {},
    [1],
    True,
)


@dataclass(frozen=True)
class Index:
    """The index of a dump, with every answer that commands store.

    `cache`: the user's cache folder; `truth`: the answers that were given while the index was written.
    """

    dump: Path
    cache: Path
    calls: list[list[str]]
    truth: tuple[Answer, ...] = ()

    @property
    def folder(self) -> Path:
        (folder,) = (self.cache / "blocks").iterdir()
        return folder

    def ask(self, call: list[str]) -> Answer:
        return ask(self.cache, call)

    def answers(self, most: int | None = None) -> tuple[Answer, ...]:
        return tuple(self.ask(call) for call in self.calls[:most])

    def replace_text(self, name: str, text: str) -> None:
        (self.folder / name).write_text(f"{digest(text)}\n{text}", encoding="utf-8")

    def document(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8").partition("\n")[2])

    def columns(self) -> dict[str, tuple[str, str, Any]]:
        """Name of the file → (the JSON file with its checksum, its name there, its type)."""
        found = {name: ("manifest.json", name, kind) for name, kind in store_columns().items()}
        for path in self.folder.glob("*.json"):
            if path.name != "manifest.json":
                for key, (kind, _, _) in self.document(path.name).items():
                    found[f"{path.stem}.{key}"] = (path.name, key, np.dtype(kind).type)
        return found

    def replace_column(self, name: str, change: Callable[[Any], Any]) -> None:
        json_name, key, kind = self.columns()[name]
        column = change(np.fromfile(self.folder / name, kind).copy())
        checksum = store.write_column(self.folder / name, column)
        document = self.document(json_name)
        if json_name == "manifest.json":
            document["seals"][key] = checksum
        else:
            document[key] = [column.dtype.str, len(column), checksum]
        self.replace_text(json_name, json.dumps(document))


def store_columns() -> dict[str, type[np.generic]]:
    from heapdump.blocks.table import COLUMNS

    return COLUMNS


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """An index that nobody forged."""
    folder = tmp_path_factory.mktemp("sound")
    dump = folder / "x.dmp"
    places = stacks(dump)
    first = [call.format(block=hex(places["block"]), dump=dump).split() for call in COMMANDS]
    empty = Index(dump, folder / "cache", [[name, str(dump), *rest, "--json"] for name, *rest in first])
    found = replace(empty, truth=empty.answers())
    assert found.answers() == found.truth, "a sound index is used"
    return found


@pytest.fixture
def index(sound: Index, tmp_path: Path) -> Index:
    """A copy of the sound index."""
    shutil.copytree(sound.cache, tmp_path / "cache")
    return replace(sound, cache=tmp_path / "cache")


def test_columns_out_of_range_are_never_used(index: Index) -> None:
    """One value of one column at a time, with the right checksum: the answer is that of a new walk, or a sound one."""
    chance, names = random.Random(1), list(index.columns())
    assert {"graph.targets", "graph.first", "reach.state", "retained.dominator", "referrers.sources"} <= set(names)
    backup = Backup(index.folder)
    for name in names:
        kind = index.columns()[name][2]
        limits = np.iinfo(kind) if np.dtype(kind).kind in "iu" else None
        assert limits is not None, name

        def change(column: Any, limits: Any = limits) -> Any:
            if len(column):
                column[chance.randrange(len(column))] = chance.choice((limits.min, limits.max))
            return column

        index.replace_column(name, change)
        for call in chance.sample(index.calls, 3):
            assert (answer := index.ask(call)).exit_code in (0, 1, 4), (name, call, answer.stderr)
        backup.restore()


@pytest.mark.parametrize("change", ["shorter", "float", "object"])
def test_columns_of_another_form_are_never_used(index: Index, change: str) -> None:
    names = [name for name in index.columns() if "." in name]
    backup = Backup(index.folder)
    for name in names:
        if change == "object":
            json_name, key, _ = index.columns()[name]
            document = index.document(json_name)
            size = (index.folder / name).stat().st_size // 8
            document[key] = ["|O", size, store._checksum(np.fromfile(index.folder / name, np.uint8)[: size * 8])]
            index.replace_text(json_name, json.dumps(document))
        else:
            changes = {
                "shorter": lambda column: column[:-1],
                "longer": lambda column: np.concatenate([column, column[-1:], column[-1:]]),
                "float": lambda column: column.astype(np.float64),
            }
            index.replace_column(name, changes[change])
        if (index.folder / name).read_bytes() != backup[name] or change == "object":
            assert index.answers(1) == index.truth[:1], name
        backup.restore()


class Backup:
    """The files of an index as they were, to be put back after each change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._contents = {path.name: path.read_bytes() for path in folder.iterdir()}
        self._stamps = self._stamps_now()

    def restore(self) -> None:
        """Writes what was changed, removed or replaced; the other files are left alone."""
        if system.IS_WINDOWS:
            gc.collect()  # Windows writes to no file that is mapped
        self._folder.mkdir(exist_ok=True, mode=0o700)
        now = self._stamps_now()
        for name, data in self._contents.items():
            if now.get(name) != self._stamps[name]:
                (self._folder / name).write_bytes(data)
        self._stamps = self._stamps_now()

    def __getitem__(self, name: str) -> bytes:
        return self._contents[name]

    def _stamps_now(self) -> dict[str, tuple[int, int, int]]:
        """Name → (inode, size in bytes, time of the last change in nanoseconds)."""
        found = {path.name: path.stat() for path in self._folder.iterdir()}
        return {name: (one.st_ino, one.st_size, one.st_mtime_ns) for name, one in found.items()}


def members(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every member of a JSON document."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(found for key, one in inside for found in members(one, (*path, key)))]


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    document = json.loads(json.dumps(document))
    place = document
    for key in path[:-1]:
        place = place[key]
    if value == "gone":
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


@pytest.mark.parametrize("seed", range(2))
def test_a_forged_manifest_is_no_defect(index: Index, seed: int) -> None:
    chance, document = random.Random(seed), index.document("manifest.json")
    places = members(document)
    backup = Backup(index.folder)
    for _ in range(10):
        path = chance.choice(places)
        value = chance.choice((*HOSTILE_VALUES, "gone"))
        index.replace_text("manifest.json", json.dumps(changed(document, path, value)))
        for call in (index.calls[0], index.calls[chance.randrange(len(index.calls))]):
            assert (answer := index.ask(call)).exit_code in (0, 1, 4), (path, value, call, answer.stderr)
        backup.restore()


@pytest.mark.parametrize("seed", range(2))
def test_forged_json_answers_are_no_defect(index: Index, seed: int) -> None:
    chance = random.Random(seed)
    names = [name for name in index.columns() if name.endswith(".text")]
    assert len(names) >= 2
    backup = Backup(index.folder)
    for _ in range(10):
        name = chance.choice(names)
        document = json.loads((index.folder / name).read_bytes())
        path, value = chance.choice(members(document)), chance.choice((*HOSTILE_VALUES, "gone"))
        forged = np.frombuffer(json.dumps(changed(document, path, value)).encode(), np.uint8)

        def change(column: Any, forged: Any = forged) -> Any:
            return forged

        index.replace_column(name, change)
        for call in chance.sample(index.calls, 3):
            assert (answer := index.ask(call)).exit_code in (0, 1, 4), (name, path, value, call, answer.stderr)
        backup.restore()


@pytest.mark.parametrize("name", ["../x", "graph/../../x", "graph.first\x00", "C:x", "", "a.b.c"])
def test_a_forged_name_of_a_column_opens_no_other_file(index: Index, name: str) -> None:
    document = index.document("graph.json")
    index.replace_text("graph.json", json.dumps(document | {name: ["<i4", 0, "0" * 16]}))
    assert index.answers() == index.truth


@needs_modes
@pytest.mark.parametrize("way", ["mode of the folder", "mode of the root", "link", "owner"])
def test_a_folder_that_others_can_write_to_is_not_used(
    index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    root = index.folder.parent
    if way == "link":
        root.rename(tmp_path / "elsewhere")
        root.symlink_to(tmp_path / "elsewhere")
    elif way == "owner":
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    else:
        (root if "root" in way else index.folder).chmod(0o770)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in index.folder.iterdir())
    answer = index.ask(["heaps", str(index.dump), "-v"])
    assert answer.exit_code == 0
    assert "the index is not used: others can write to " in answer.stderr
    assert index.answers() == index.truth
    assert sorted((path.name, path.stat().st_mtime_ns) for path in index.folder.iterdir()) == before
    monkeypatch.setattr(system, "IS_WINDOWS", True)
    assert not system.others_can_write(root), "permissions of Windows are no numbers"


def test_what_is_written_is_private(index: Index) -> None:
    assert index.folder.stat().st_mode & 0o77 == index.folder.parent.stat().st_mode & 0o77 == 0


@pytest.mark.parametrize("kind", [Finding, HeapCount, LeakGroup, LeakSuspect, UnreachableReport])
def test_the_types_of_stored_records_are_known(kind: type) -> None:
    assert stored_checks._hints(kind)


def test_types_are_checked_inside_containers() -> None:
    good = Finding("entry_header", "error", 1, 2, 3, "m", "", "")
    require_types(((good,), {1: good}))
    for name, value in (("kind", 7), ("severity", "bad"), ("heap", "x"), ("length", True), ("message", "\ud800")):
        bad = Finding(**{n: getattr(good, n) for n in Finding.__slots__} | {name: value})
        with pytest.raises((TypeError, ValueError)):
            require_types(({1: bad},))


def _top(change: Callable[[Any], None]) -> Callable[[Index], None]:
    """Forges the stored answer of `retained`."""

    def forge(index: Index) -> None:
        document = json.loads((index.folder / "retained-top.text").read_bytes())
        change(document)
        text = np.frombuffer(json.dumps(document).encode(), np.uint8)
        index.replace_column("retained-top.text", lambda _: text)

    return forge


def _endless(index: Index) -> None:
    """Gives a column that takes no bytes more numbers than there is memory."""
    document = index.document("unreachable-stack.json")
    document["members"] = [document["members"][0], 1 << 45, "0000000000000000 0 0 0 0 0"]
    index.replace_text("unreachable-stack.json", json.dumps(document))
    (index.folder / "unreachable-stack.members").write_bytes(b"")


IMPLAUSIBLE: dict[str, Callable[[Index], None]] = {
    "totals": _top(lambda top: top.update(total_bytes=-1, total_blocks=-7)),
    "sizes": _top(lambda top: top["blocks"][0].update(size=1 << 63)),
    "no blocks": _top(lambda top: top.update(blocks=[])),
    "more than all": _top(lambda top: top["blocks"][0].update(bytes=top["total_bytes"] + 1)),
    "a dominator": _top(lambda top: top["blocks"][0].update(dominator=-1)),
    "a share": _top(lambda top: top["suspects"][0].update(share=1.5)),
    "a row": _top(lambda top: top["blocks"][0].update(row=1 << 20)),
    "a trust": _top(lambda top: top["blocks"][0].update(type=["a", "b", "c"])),
    "sentences": _top(lambda top: top.update(evidence="xyz")),
    "counts": lambda index: index.replace_column("unreachable-stack.count", lambda column: column + 1),
    "bytes": lambda index: index.replace_column("unreachable-stack.bytes", lambda column: column * 0 + (1 << 61)),
    "endless": _endless,
}


@pytest.mark.parametrize("name", IMPLAUSIBLE)
def test_answers_whose_numbers_do_not_fit_are_made_again(index: Index, name: str) -> None:
    IMPLAUSIBLE[name](index)
    answers = [index.ask([*call, "-v"]) for call in index.calls[:2]]
    assert [one.stdout for one in answers] == [one.stdout for one in index.truth[:2]]
    assert sum("damaged in the index" in one.stderr for one in answers) == 1
