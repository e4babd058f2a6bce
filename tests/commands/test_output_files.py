"""Files that commands write: no dump is ever lost, no link followed, no half file left, the permissions kept."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from heapdump import system
from heapdump.cli import run
from heapdump.commands.common.output_file import replaced
from heapdump.errors import WrongUsage
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.posix import needs_links, needs_modes, needs_pipes

OPTIONS = [["heaps", "-o"], ["heaps", "--json", "-o"], ["check", "--sarif"], ["diff", "crash.dmp", "-o"]]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A healthy dump in the current folder."""
    monkeypatch.chdir(tmp_path)
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(100)
    ProcessBuilder().heap(heap.build()).write(tmp_path / "crash.dmp")
    return Path("crash.dmp")


def write(option: list[str], dump: Path, target: Path | str) -> int:
    name, *rest = option
    return run([name, str(dump), *rest, str(target)])


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("target", ["no/out.txt", "."])
def test_what_cannot_be_written_is_said_before_the_heaps_are_walked(
    dump: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch, option: list[str], target: str
) -> None:
    monkeypatch.setattr("heapdump.snapshot.Snapshot.walk", property(lambda _: pytest.fail("the heaps are walked")))
    assert write(option, dump, target) == 2
    assert sorted(path.name for path in Path().iterdir()) == [dump.name]
    assert "error: " in capfd.readouterr().err


@needs_links
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("way", ["itself", "link", "hard link", "other spelling"])
def test_the_dump_itself_is_refused_by_whatever_name(dump: Path, capfd: Capture, option: list[str], way: str) -> None:
    content, target = dump.read_bytes(), Path("out.txt")
    if way == "link":
        target.symlink_to(dump)
    elif way == "hard link":
        target.hardlink_to(dump)
    else:
        target = dump if way == "itself" else Path("..", Path.cwd().name, dump.name)
    assert write(option, dump, target) == 2
    assert "is the dump itself; name another file" in capfd.readouterr().err
    assert dump.read_bytes() == content
    assert sorted(path.name for path in Path().iterdir()) == sorted({dump.name, target.name})


@pytest.mark.parametrize("name", ["other.bin", "other.dmp", "other.MDMP", "other.dmp.xz"])
def test_no_other_dump_is_written_over(dump: Path, capfd: Capture, name: str) -> None:
    other = Path(name)
    other.write_bytes(b"packed" if name.endswith("xz") else dump.read_bytes())
    content = other.read_bytes()
    assert write(["heaps", "-o"], dump, other) == 2
    assert "never writes over a dump" in capfd.readouterr().err
    assert other.read_bytes() == content


def test_a_dump_with_the_name_of_a_temporary_file_is_kept(tmp_path: Path, dump: Path) -> None:
    part = dump.rename("crash.csv.part")
    content = part.read_bytes()
    assert run(["blocks", str(part), "--format", "csv", "-o", "crash.csv"]) == 0
    assert part.read_bytes() == content
    assert Path("crash.csv").read_text().startswith("address,")


@needs_links
@pytest.mark.parametrize("option", OPTIONS)
def test_a_planted_link_is_replaced_and_not_followed(dump: Path, option: list[str]) -> None:
    Path("victim").write_text("keep me")
    for name in ("out.txt", "out.txt.part"):
        Path(name).symlink_to("victim")
    assert write(option, dump, "out.txt") == 0
    assert Path("victim").read_text() == "keep me"
    assert not Path("out.txt").is_symlink() and Path("out.txt").read_text()


@needs_links
def test_a_link_to_nothing_makes_no_file_elsewhere(dump: Path, tmp_path: Path) -> None:
    Path("out.txt").symlink_to(tmp_path / "made-by-link")
    assert write(["heaps", "-o"], dump, "out.txt") == 0
    assert not (tmp_path / "made-by-link").exists()


@needs_modes
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_the_permissions_of_the_target_are_kept(dump: Path, mode: int) -> None:
    target = Path("out.txt")
    target.write_text("old")
    target.chmod(mode)
    assert write(["heaps", "-o"], dump, target) == 0
    assert stat.S_IMODE(target.stat().st_mode) == mode


def test_a_new_file_has_the_permissions_of_any_new_file(dump: Path) -> None:
    Path("plain").write_text("")
    assert write(["heaps", "-o"], dump, "out.txt") == 0
    assert Path("out.txt").stat().st_mode == Path("plain").stat().st_mode


def test_a_target_that_may_not_be_written_is_kept(dump: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("out.txt").write_text("keep me")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write everything
    assert write(["heaps", "-o"], dump, "out.txt") == 2
    assert "heapdump heaps: error: cannot write out.txt: Permission denied" in capfd.readouterr().err
    assert Path("out.txt").read_text() == "keep me"


def test_an_unfinished_file_is_taken_away_and_the_old_one_stays(dump: Path) -> None:
    Path("out.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), replaced(Path("out.txt"), [dump]) as stream:
        stream.write("half")
        raise KeyboardInterrupt
    assert sorted(path.name for path in Path().iterdir()) == ["crash.dmp", "out.txt"]
    assert Path("out.txt").read_text() == "old"


def test_a_dump_that_appears_in_the_place_of_the_target_is_kept(dump: Path) -> None:
    target = Path("out.txt")
    with pytest.raises(WrongUsage), replaced(target, [dump]) as stream:
        stream.write("late")
        target.write_bytes(dump.read_bytes())
    assert target.read_bytes() == dump.read_bytes()


@needs_modes
@needs_links
def test_the_temporary_name_is_random_private_and_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handle, first = system.create_exclusively(tmp_path)
    os.close(handle)
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    names = iter([first.name.split("-")[1].removesuffix(".part"), "0123"])
    monkeypatch.setattr("secrets.token_hex", lambda size: next(names))
    (tmp_path / ".heapdump-4567.part").symlink_to("victim")
    handle, second = system.create_exclusively(tmp_path)
    os.close(handle)
    assert second.name == ".heapdump-0123.part"
    monkeypatch.setattr("secrets.token_hex", lambda size: "4567")
    with pytest.raises(FileExistsError):
        system.create_exclusively(tmp_path)


@needs_pipes
def test_a_pipe_is_written_to(dump: Path) -> None:
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert write(["modules", "--json", "-o"], dump, "pipe") == 0
    assert json.loads(os.read(reader, 1 << 20))["command"] == "modules"
    os.close(reader)
    assert stat.S_ISFIFO(Path("pipe").stat().st_mode)


def test_a_name_as_long_as_names_can_be_is_written(dump: Path) -> None:
    name = "n" * 255
    assert write(["heaps", "-o"], dump, name) == 0
    assert Path(name).read_text()


def test_a_target_that_another_program_keeps_open_is_named(
    dump: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "The process cannot access the file because it is being used by another process")

    monkeypatch.setattr(Path, "replace", refuse)  # Windows
    assert write(["heaps", "-o"], dump, "out.txt") == 2
    assert "cannot write out.txt: The process cannot access" in capfd.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["crash.dmp"]
