"""What a user at a terminal gets: a pager, progress, what is known when interrupted, own defaults, the cache."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from heapdump.cli import run
from heapdump.cli.defaults import user_defaults
from heapdump.commands.common import pager
from heapdump.commands.common.files import progress_line
from heapdump.errors import WrongUsage
from tests.builders import NtHeapBuilder, ProcessBuilder

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A healthy dump, alone in the current folder."""
    monkeypatch.delenv("HEAPDUMP_DUMP", raising=False)
    monkeypatch.chdir(tmp_path)
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(100)
    ProcessBuilder().heap(heap.build()).write(tmp_path / "crash.dmp")
    return tmp_path / "crash.dmp"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the pager of the environment writes; input is a terminal of 24 lines."""
    target = tmp_path / "shown.txt"
    code = f"import sys; open({str(target)!r}, 'wb').write(sys.stdin.buffer.read())"
    monkeypatch.setenv("HEAPDUMP_PAGER", f'"{sys.executable}" -c "{code}"')
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("COLUMNS", "80")
    return target


def test_only_a_page_longer_than_the_terminal_goes_through_the_pager(shown: Path) -> None:
    out = Terminal()
    command = pager.pager_command(out, is_wanted=True)
    pager.page(["short →\n"], out, command)
    assert out.getvalue() == "short →\n"
    assert not shown.exists()
    pager.page(["line →\n"] * 30, out, command)
    assert shown.read_text(encoding="utf-8") == "line →\n" * 30


def test_no_pager_without_a_terminal_or_when_it_is_not_wanted(shown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pager.pager_command(io.StringIO(), is_wanted=True) == []
    assert pager.pager_command(Terminal(), is_wanted=False) == []
    for word in ("", "cat", "no-such-program"):
        monkeypatch.setenv("HEAPDUMP_PAGER", word)
        assert pager.pager_command(Terminal(), is_wanted=True) == []


def test_progress_has_rate_and_estimate() -> None:
    assert progress_line("walking", 1 << 30, 4 << 30, 2.0) == "walking: 1.0 GB of 4.0 GB (25%), 512.0 MB/s, 6 s left"
    assert progress_line("unpacking", 3 << 20, 0, 1.0) == "unpacking: 3.0 MB, 3.0 MB/s"
    assert progress_line("walking", 0, 4 << 20, 1.0) == "walking: 0 bytes of 4.0 MB (0%)"


def test_an_interrupted_command_says_what_is_known(dump: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("heapdump.heaps.walk.walk_heaps", interrupted)
    assert run(["check", "--no-cache"]) == 130
    lines = capfd.readouterr().err.splitlines()[1:]
    assert lines[1:] == [
        "heapdump: known so far: 1 heap: 4 kB committed in segments, 0 B in large blocks",
        "heapdump: known so far: the walk of the heaps is not finished",
        "heapdump check: error: interrupted",
    ]
    assert lines[0].startswith("heapdump: known so far: ")
    assert ", pid 4242, x64, " in lines[0]


def test_defaults_of_the_nearest_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert user_defaults(inner) == {}
    (tmp_path / "a" / "pyproject.toml").write_text('[tool.heapdump]\nskip-modules = ["mymalloc"]\nsymbols = "C:/pdb"\n')
    assert user_defaults(inner) == {"skip_module": ["mymalloc"], "symbols": "C:/pdb"}
    (inner / ".heapdump.toml").write_text('suppressions = "known.txt"\ncolor = "never"\nlimit = 5\n')
    assert user_defaults(inner) == {"suppressions": str(inner / "known.txt"), "color": "never", "limit": 5}


@pytest.mark.parametrize("text", ["skip-modules = 'x'", "colour = 'never'", "limit = true", "symbols = 3", "= 1"])
def test_defaults_that_mean_nothing_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / ".heapdump.toml").write_text(text)
    with pytest.raises(WrongUsage, match=r"\.heapdump\.toml"):
        user_defaults(tmp_path)


def test_defaults_are_used_and_what_is_typed_wins(dump: Path, capfd: Capture) -> None:
    Path(".heapdump.toml").write_text('color = "always"\nlimit = 1\n')
    assert run(["regions", "-q"]) == 0
    text = capfd.readouterr().out
    assert "\x1b[" in text
    assert "more (--all" in text
    assert run([str(dump), "-q"]) == 0
    assert "\x1b[" in capfd.readouterr().out
    assert run(["regions", "-q", "--all", "--color", "never"]) == 0
    text = capfd.readouterr().out
    assert "\x1b[" not in text
    assert "more (--all" not in text


def test_the_cache_is_shown_and_deleted(
    dump: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setenv("HEAPDUMP_CACHE", str(tmp_path / "cache"))
    assert run(["blocks", "-q"]) == 0
    capfd.readouterr()
    assert run(["cache", "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert (document["command"], document["dump"], document["complete"]) == ("cache", None, True)
    assert document["data"]["folder"].startswith(str(tmp_path / "cache"))
    assert document["data"]["bytes"] == sum(one["bytes"] for one in document["data"]["indexes"]) > 0
    assert run(["cache"]) == 0
    assert ": index of 1 dump, " in capfd.readouterr().out
    assert run(["cache", "--clear"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("deleted: index of 1 dump, ")
    assert lines[1].endswith(": indexes of 0 dumps, 0 B")
