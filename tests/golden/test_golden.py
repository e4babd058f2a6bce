"""The exact output of every command on built dumps: tables at 80 and at 160 columns, JSON, and the help.

`make golden` writes the files in `expected/` anew and deletes those of no case; read their diff before you commit it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from heapdump.cli import cli, run
from tests.every_command import plain_calls
from tests.samples import SAMPLES, Places

pytestmark = pytest.mark.golden
EXPECTED = Path(__file__).parent / "expected"
WRITES = bool(os.environ.get("HEAPDUMP_WRITE_GOLDEN"))
COMMANDS = cli.list_commands(click.Context(cli))
WIDTHS = (80, 160)

CASES: dict[str, dict[str, str]] = {
    "growth": {
        "diff": "diff growth-later.dmp", "diff-size": "diff growth-later.dmp --group-by size --unreachable --limit 5",
        "diff-caller": "diff growth-later.dmp --group-by caller --all", "fleet": "fleet growth-later.dmp --jobs 1",
    },
    "series": {"diff": "diff series-1.dmp series-2.dmp series-3.dmp series-4.dmp series-5.dmp"},
    "address-space": {"diff": "diff address-space-later.dmp"},
    "hooked": {"gaps": "gaps", "gaps-request": "gaps --request 1G --limit 3"},
    "service": {
        "blocks": "blocks --size 190..194", "blocks-stat": "blocks --stat --size 200..207", "check": "check", "heap": "heap {heap}",
        "heaps": "heaps", "heaps-explain": "heaps --explain", "info": "info", "managed": "managed",
        "search": "search hex:40040000", "disasm": "disasm rip --before 2 --after 2", "struct": "struct _HEAP {heap}", "memory": "memory poi(peb+20) --count 64", "modules": "modules --verbose", "modules-one": "modules imagesvc",
        "regions": "regions --limit 12 --at {heap}", "report": "report", "regions-heap": "regions --usage heap --limit 12 --at {block}",
        "summary": "summary", "threads": "threads --frames", "triage": "triage", "virt-blocks": "virt-blocks --sort size --limit 3",
    },
    "wow64": {"heaps": "heaps", "summary": "summary", "threads": "threads", "waste": "waste"},
    "damaged": {
        "block": "block {victim}", "check": "check", "heap": "heap {heap}", "summary": "summary", "triage": "triage",
    },
    "stacks": {
        "block": "block {child}", "heap": "heap {heap}", "leaks": "leaks", "leaks-caller": "leaks --group-by caller",
        "leaks-size": "leaks --group-by size", "leaks-unreachable": "leaks --unreachable --report-objects",
        "refs": "refs {child} --depth 2", "refs-leaked": "refs {back}", "retained": "retained", "retained-block": "retained {root}",
        "triage": "triage",
    },
    "page-heap": {
        "block": "block {freed}", "blocks": "blocks --state all", "check": "check", "heaps": "heaps", "page-heap": "page-heap",
        "page-heap-block": "page-heap {freed}", "triage": "triage",
    },
    "segment-heap": {
        "struct": "struct _SEGMENT_HEAP {heap}", "block": "block {block}", "blocks": "blocks --kind vs", "check": "check", "heap": "heap {heap}", "heaps": "heaps",
        "virt-blocks": "virt-blocks",
    },
    "managed": {
        "block": "block {text}", "managed": "managed", "managed-at": "managed {method} {text} 0x10", "managed-object": "managed {object}",
        "regions": "regions --usage unknown", "summary": "summary", "triage": "triage",
    },
    "before-vista": {"heap": "heap {heap}", "heaps": "heaps", "blocks": "blocks"},
}  # fmt: skip
"""Dump → case → command line. JSON holds every row, so the command lines choose few."""
CASES["service"] |= {
    name: name for name in plain_calls((line for one in CASES.values() for line in one.values()), "mcp")
}
FILE_TIME = 1_700_000_000
"""Time of the files, which `fleet` shows."""
CALLS = [(dump, case) for dump, cases in CASES.items() for case in cases]
TEXTS = [(dump, case) for dump, case in CALLS if not CASES[dump][case].startswith("report")]
"""Without those that print a page for a browser."""
FILES = {
    *(f"{dump}/{case}-{width}.txt" for dump, case in TEXTS for width in WIDTHS),
    *(f"{dump}/{case}.json" for dump, case in CALLS),
    *(f"help/{name}.txt" for name in ("heapdump", *COMMANDS)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the dumps are built in."""
    return tmp_path_factory.mktemp("golden")


@pytest.fixture(scope="module")
def places(folder: Path) -> dict[str, Places]:
    """Dumps that are built, and the addresses in them."""
    return {}


@pytest.fixture
def call(
    request: pytest.FixtureRequest,
    folder: Path,
    places: dict[str, Places],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[list[str]]:
    """The command line of a case, run in the folder of its dump."""
    dump, case = request.param
    if dump not in places:
        places[dump] = SAMPLES[dump](folder / f"{dump}.dmp")
        for path in folder.glob("*.dmp"):
            os.utime(path, (FILE_TIME, FILE_TIME))
    monkeypatch.chdir(folder)
    monkeypatch.delenv("HEAPDUMP_DUMP", raising=False)
    name, *rest = CASES[dump][case].format(**{place: hex(at) for place, at in places[dump].items()}).split()
    yield [name, f"{dump}.dmp", *rest, "--color", "never"]


def output(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """Everything that a command prints, and its exit code."""
    code = run(arguments)
    captured = capfd.readouterr()
    return f"{captured.out}-- stderr, exit {code}\n{captured.err}"


def check(name: str, text: str) -> None:
    """Holds a text against its file, or writes that."""
    path = EXPECTED / name
    assert name in FILES
    if WRITES:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    assert _of_any_version(text) == _of_any_version(path.read_text(encoding="utf-8"))


def _of_any_version(text: str) -> str:
    """The text without the version of heapdump: a release changes no expected file."""
    return re.sub(r'"tool": "[^"]+"', '"tool": ""', text)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("call", "name"), [(one, "/".join(one)) for one in TEXTS], indirect=["call"], ids=map("-".join, TEXTS)
)
def test_table(
    call: list[str], name: str, width: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = output(call, capfd)
    assert max(len(line) for line in text.partition("-- stderr")[0].splitlines()) <= width
    check(f"{name}-{width}.txt", text)


@pytest.mark.parametrize(
    ("call", "name"), [(one, "/".join(one)) for one in CALLS], indirect=["call"], ids=map("-".join, CALLS)
)
def test_json(call: list[str], name: str, capfd: pytest.CaptureFixture[str]) -> None:
    check(f"{name}.json", output([*call, "--json"], capfd))


@pytest.mark.parametrize("name", ["heapdump", *COMMANDS])
def test_help(name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    check(f"help/{name}.txt", output([*([] if name == "heapdump" else [name]), "--help"], capfd))


def test_every_command_has_a_case_and_every_file_belongs_to_one() -> None:
    assert {line.split()[0] for cases in CASES.values() for line in cases.values()} == set(COMMANDS) - {"mcp"}
    there = {path.relative_to(EXPECTED).as_posix(): path for path in EXPECTED.rglob("*") if path.is_file()}
    if WRITES:
        for name in there.keys() - FILES:
            there.pop(name).unlink()
    assert there.keys() - FILES == set()
