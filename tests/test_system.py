"""What differs on Windows, with its calls substituted: names of devices, long paths, consoles."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

from heapdump import system
from heapdump.cli import run
from heapdump.commands.common import pager
from tests.builders import ProcessBuilder


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "IS_WINDOWS", True)


@pytest.mark.parametrize("name", ["NUL", "nul", "CON", "con", "CONOUT$"])
def test_devices_that_take_output_are_written_to(windows, name):
    assert system.is_stream_path(Path(name)) and not system.is_device_name(Path(name))


@pytest.mark.parametrize(
    "name", ["COM1", "com9.json", "LPT1", "aux", "PRN.txt", "nul.json", "con.sarif", "COM¹", "aux "]
)
def test_other_devices_are_refused(windows, tmp_path, monkeypatch, capsys, name):
    assert system.is_device_name(Path(name))
    monkeypatch.chdir(tmp_path)
    Path("a.dmp").write_bytes(ProcessBuilder().build().data)
    assert run(["info", "a.dmp", "-o", name]) == 2
    assert f"{name} is the name of a device on Windows; name another file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.dmp"]


@pytest.mark.parametrize("name", ["COM", "com10", "nullable.txt", "conduit", "x.con", "LPTX", "auxiliary.json"])
def test_names_that_only_look_like_devices_are_files(windows, name):
    assert not system.is_device_name(Path(name)) and not system.is_stream_path(Path(name))


def test_elsewhere_every_name_is_a_file():
    if not system.IS_WINDOWS:
        assert not system.is_device_name(Path("COM1")) and not system.is_stream_path(Path("NUL"))


LONG = "\\".join(["folder"] * 60)


@pytest.mark.parametrize(
    ("path", "opened"),
    [
        (r"C:\short\a.dmp", r"C:\short\a.dmp"),
        (rf"C:\{LONG}\a.dmp", rf"\\?\C:\{LONG}\a.dmp"),
        (rf"C:\{LONG}\..\a.dmp", rf"\\?\C:\{LONG.rpartition(chr(92))[0]}\a.dmp"),
        (rf"C:/{LONG}/a.dmp".replace("\\", "/"), rf"\\?\C:\{LONG}\a.dmp"),
        (rf"\\server\share\{LONG}\a.dmp", rf"\\?\UNC\server\share\{LONG}\a.dmp"),
        (rf"\\?\C:\{LONG}\a.dmp", rf"\\?\C:\{LONG}\a.dmp"),
        ("a.dmp", "a.dmp"),
    ],
)
def test_long_paths_of_windows(windows, path, opened):
    assert str(system.long_path(PurePosixPath(path))) == opened  # type: ignore[arg-type]  # keeps its backslashes


def test_long_paths_are_opened_as_they_are_elsewhere():
    if not system.IS_WINDOWS:
        path = Path("/" + "a" * 300)
        assert system.long_path(path) is path


def console(
    monkeypatch: pytest.MonkeyPatch, mode: int | None, *, takes_escapes: bool = True, page: int = 437
) -> list[int]:
    """Substitutes the calls about consoles; the modes that were set."""
    modes: list[int] = []

    def get_mode(handle: int, out: Any) -> int:
        assert handle in (-11, -12)
        out._obj.value = mode or 0
        return int(mode is not None)

    def set_mode(handle: int, value: int) -> int:
        modes.append(value)
        return int(takes_escapes)

    kernel = SimpleNamespace(
        GetStdHandle=lambda number: number,
        GetConsoleMode=get_mode,
        SetConsoleMode=set_mode,
        GetConsoleOutputCP=lambda: page,
    )
    monkeypatch.setattr(system, "IS_WINDOWS", True)
    monkeypatch.setattr("ctypes.windll", SimpleNamespace(kernel32=kernel), raising=False)
    return modes


@pytest.mark.parametrize(
    ("mode", "takes", "understands", "modes"),
    [(7, True, True, []), (3, True, True, [7]), (3, False, False, [7]), (None, True, True, [])],
)
def test_escape_sequences_are_switched_on(monkeypatch, mode, takes, understands, modes):
    found = console(monkeypatch, mode, takes_escapes=takes)
    assert system.understands_escapes(1) is understands and found == modes


@pytest.mark.parametrize(("takes", "colored"), [(True, True), (False, False)])
def test_a_console_without_escapes_gets_no_colours(monkeypatch, tmp_path, takes, colored):
    from io import StringIO

    path = tmp_path / "a.dmp"
    path.write_bytes(ProcessBuilder().build().data)
    out = StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]
    console(monkeypatch, 3, takes_escapes=takes)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", out)
    assert run(["info", str(path), "--no-pager", "--no-progress"]) in (0, 4)
    assert ("\x1b[" in out.getvalue()) is colored


def test_more_of_windows_reads_the_code_page_of_the_console(monkeypatch, tmp_path):
    console(monkeypatch, 3, page=437)
    assert system.pager_encoding() == "cp437"
    sent: list[bytes] = []
    monkeypatch.setattr("subprocess.run", lambda command, input, **more: sent.append(input))
    monkeypatch.setenv("LINES", "3")
    from io import StringIO

    pager.page(["a → b ★\n"] * 9, StringIO(), ["more"])
    assert sent[0].startswith((b"a -> b \\u2605\n", b"a ? b ?\n"))
    pager.page(["a → b\n"] * 9, StringIO(), ["less"])
    assert sent[1].decode().startswith("a → b\n")
    console(monkeypatch, 3, page=1)
    assert system.pager_encoding() == "ascii"


def test_the_c_library_is_told_to_give_large_memory_back(monkeypatch):
    told: dict[int, int] = {}
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda name: SimpleNamespace(mallopt=told.__setitem__))
    system.give_large_memory_back()
    assert set(told) == {-1, -3}
    for library in (SimpleNamespace(), None):  # musl has no such call
        monkeypatch.setattr("ctypes.CDLL", lambda name, found=library: found)
        system.give_large_memory_back()
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("ctypes.CDLL", None)
    system.give_large_memory_back()
