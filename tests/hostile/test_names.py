"""Hostile strings as every name of a dump, through every renderer that the product has.

Renderers are found by what commands offer: every command, every choice of `--format` and `--export`, every option that
names a file to write. A new command, format or export is tested by itself.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest

from heapdump.cli import cli, run
from tests.builders import NtHeapBuilder, ProcessBuilder

pytestmark = pytest.mark.hostile
HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07", "\x9b31m", "a\rb\nc\td", "\x00nul", "\x7f\x08\x08", "\u202egnp.exe", "\u2066x\u2069", "\u200bzero",
    "\ud800half", "\udfff", "\U000e0041tag", "\ufeffbom", "[red]markup[/red]", "[link=https://x]y[/link]", "</td></tr></table><h1>",
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "' onmouseover='alert(1)", "</script><script>alert(2)</script>",
    "<!--", "{{7*7}}", "${jndi:x}", "%s%n%x", "=HYPERLINK(\"x\")", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "a;=1+1", "\uff1d1+1",
    "javascript:alert(1)", "file:///etc/passwd", "C:\\..\\..\\x", "a%2e%2e", "a#b?c d", "\"quoted\",\"cells\"", "`$(id)`", "\\u001b", "é" * 300,
)  # fmt: skip
"""One table for all names."""

NAMES = tuple(name for name in cli.list_commands(click.Context(cli)) if name not in ("mcp", "cache"))
_OWN = {
    "block": ["0x20000000750"], "memory": ["peb"], "struct": ["_PEB", "peb"], "disasm": ["rip"], "search": ["app"],
    "refs": ["0x20000000750"], "heap": ["0"], "diff": ["DUMP"], "report": [],
}  # fmt: skip
_RAW = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
_NUMBER = re.compile(r"[+-]?(\d[\d,.]*|0x[0-9a-f]+)")


def outputs(name: str) -> Iterator[tuple[str, list[str]]]:
    """(kind of output, options) of every renderer of a command."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    for option in command.params:
        if isinstance(option, click.Option) and isinstance(option.type, click.Choice):
            if option.name in ("format_", "export"):
                yield from ((str(choice), [option.opts[0], str(choice)]) for choice in option.type.choices)
        elif isinstance(option, click.Option) and isinstance(option.type, click.Path) and option.name == "sarif":
            yield option.name, [option.opts[0], "FILE"]
    yield "verbose", ["-v", "--explain", "--all"]
    if any(option.name == "unreachable" for option in command.params):
        yield "lsan", ["--unreachable", "--lsan-compat"]


CASES = [(name, kind, options) for name in NAMES for kind, options in outputs(name)]


@cache
def hostile_dump() -> bytes:
    """Every name of a dump is hostile: modules, PDBs, threads, unloaded modules, comments, the program, contents."""
    heap = NtHeapBuilder(base=0x20000000000)
    for text in HOSTILE:
        heap.busy(200, fill=text.encode("utf-16-le", "surrogatepass")[:190])
    for text in HOSTILE[:20]:
        heap.busy(200, fill=text.encode("utf-8", "surrogatepass")[:190])
    process = ProcessBuilder(
        exe="C:\\x\\" + HOSTILE[0] + HOSTILE[15] + ".exe", command_line=" ".join(HOSTILE[:20]).replace("\0", "")
    )
    process.heap(heap.build())
    for i, text in enumerate(HOSTILE):
        shown = text.replace("\0", "") if i % 2 else text
        path = shown if i % 3 else f"C:\\{shown}\\{shown}.dll"
        process.module(0x50000000 + i * 0x10000, 0x4000, path[:250], pdb=(text.replace("\0", "")[:200], bytes(16), 1))
        process.thread(
            100 + i,
            name=text[:200],
            ip=0x50001000 + i * 0x10000,
            content=(0x50002000 + i * 0x10000).to_bytes(8, "little"),
        )
        process.dump.unloaded(0x60000000 + i * 0x10000, 0x4000, text[:200])
    process.dump.comment("".join(HOSTILE[:10]).replace("\0", ""))
    process.exception(100, 0xC0000005, 0x50001000, (1, 0x20000000010))
    return process.build().data


class _Page(HTMLParser):
    """Elements and attributes of a page that can run something."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [name for name, _ in attrs if name.startswith("on")]
        self.found += [tag] if tag in ("script", "img", "iframe", "h1", "link") else []
        self.found += [value for name, value in attrs if name in ("href", "src") and value and ":" in value]


def dangers(page: str) -> list[str]:
    parser = _Page()
    parser.feed(page)
    return sorted(parser.found)


def check(kind: str, text: str, harmless: str) -> None:
    """Fails where something hostile of a text of this kind gets through. `harmless`: the same of an ordinary dump."""
    assert not _RAW.search(text.replace("\r\n", "")), (kind, _RAW.search(text))
    start = text.lstrip()[:200].lower()
    if start.startswith(("<!doctype html", "<html")):
        assert set(dangers(text)) <= set(dangers(harmless)) and dangers(text).count("script") == dangers(
            harmless
        ).count("script")
    elif kind == "csv":
        for row in csv.reader(io.StringIO(text)):
            assert all(_NUMBER.fullmatch(cell) or not re.search(r"(^|;)\s*[=+\-@\uff1d]", cell) for cell in row), row
    elif kind in ("json", "jsonl", "sarif", "speedscope"):
        documents = [json.loads(line) for line in (text.splitlines() if kind == "jsonl" else [text] if text else [])]
        json.dumps(documents, ensure_ascii=False).encode("utf-8")  # halves of surrogate pairs cannot be encoded
        for uri in re.findall(r'"uri": "([^"]*)"', text):
            assert re.fullmatch(r"[A-Za-z0-9._~:/%#@!$&()*+,;=?-]*", uri), uri


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the hostile dump under a hostile name, and an ordinary one."""
    path = tmp_path_factory.mktemp("names")
    (path / os.fsdecode(b"=x\x1b[2J\xff<b>.dmp")).write_bytes(hostile_dump())
    plain = NtHeapBuilder(base=0x20000000000)
    plain.busy(200)
    ProcessBuilder().heap(plain.build()).thread(100, ip=0x50001000).write(path / "plain.dmp")
    return path


def rendered(dump: Path, name: str, options: list[str], capture: pytest.CaptureFixture[str]) -> str:
    """What a command prints and writes, without the part on stderr."""
    target = dump.parent / "written"
    target.unlink(missing_ok=True)
    arguments = [str(dump) if word == "DUMP" else word for word in _OWN.get(name, [])]
    words = [str(target) if word == "FILE" else word for word in options]
    code = run([name, str(dump), *arguments, *words, "--no-cache"])
    out, err = capture.readouterr()
    assert code in (0, 1, 2, 4, 23), err
    assert not _RAW.search(err), err
    assert "Traceback" not in err
    return target.read_text(encoding="utf-8") if target.exists() else out


@pytest.mark.parametrize(("name", "kind", "options"), CASES, ids=[f"{name}-{kind}" for name, kind, _ in CASES])
def test_nothing_hostile_gets_through(
    name: str, kind: str, options: list[str], folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if kind == "pprof":
        pytest.skip("bytes for a program, not for a terminal")
    hostile = next(path for path in folder.iterdir() if path.suffix == ".dmp" and path.name != "plain.dmp")
    text = rendered(hostile, name, options, capfd)
    harmless = rendered(folder / "plain.dmp", name, options, capfd) if text.lstrip().startswith("<") else ""
    check(kind, text, harmless)


@pytest.mark.parametrize("name", ["modules", "threads"])
def test_markup_is_shown_as_it_is_and_raw_csv_is_raw(
    name: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hostile = next(path for path in folder.iterdir() if path.suffix == ".dmp" and path.name != "plain.dmp")
    assert "[red]markup[/" in rendered(hostile, "threads", ["--all"], capfd)
    assert "'=HYPERLINK" in rendered(hostile, name, ["--format", "csv"], capfd)
    raw = rendered(hostile, name, ["--raw-csv"], capfd)
    assert "=HYPERLINK" in raw and "'=HYPERLINK" not in raw


def test_every_renderer_is_reached() -> None:
    kinds = {kind for _, kind, _ in CASES}
    assert {"table", "json", "jsonl", "csv", "sarif", "folded", "speedscope", "flame", "umdh", "lsan"} <= kinds
