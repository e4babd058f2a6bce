"""Every example of the documentation prints what the page shows.

An example is a block ```console with lines `$ heapdump … | filter`; the lines below are what it prints in a terminal of 100
columns. `make golden` writes them anew; read their diff.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.sample import BEFORE
from fixtures.sample import sample as sample_process
from heapdump.cli import run
from tests.posix import linked

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"(?<=^```console\n)(.*?)(?=^```$)", re.MULTILINE | re.DOTALL)
PAGES = sorted(page for page in DOCS.rglob("*.md") if BLOCK.search(page.read_text(encoding="utf-8")))
RECORDED = {
    "overflow.dmp": "oracle/17763.475/corrupt-overflow.dmp.xz",
    "leak.dmp": "oracle/19041.508/leak-ust.dmp.xz",
    "grow-t0.dmp": "oracle/19041.508/grow-t0.dmp.xz",
    "pageheap.dmp": "oracle/19041.508/pageheap-overrun.dmp.xz",
    "dotnet.dmp": "managed/t21.dmp.xz",
    "cadtool.dmp": "reports/09-heap-is-small-part.dmp.xz",
}
"""Dump that examples name → the recording; `sample.dmp` is built. Of several dumps the first counts."""
EARLIER = "sample-earlier.dmp"
_BESIDE = {"grow-t0.dmp": ("grow-t1.dmp", "oracle/19041.508/grow-t1.dmp.xz")}
"""Dump → (another dump that its examples name, the recording)."""


Compare = Callable[[Path, str, Path], None]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "sample.dmp"
    sample_process().write(path)
    sample_process(BEFORE).write(path.with_name(EARLIER))
    return path


def filtered(lines: list[str], filters: list[list[str]]) -> list[str]:
    """The lines behind `head -N`, `tail -N`, `sed -n A,Bp` and `grep WORD`."""
    for name, *arguments in filters:
        if name == "head":
            lines = lines[: -int(arguments[0])]
        elif name == "tail":
            lines = lines[int(arguments[0]) :]
        elif name == "sed":
            first, last = arguments[1].removesuffix("p").split(",")
            lines = lines[int(first) - 1 : int(last)]
        else:
            assert name == "grep"
            lines = [line for line in lines if arguments[0] in line]
    return lines


def printed(command: str, capfd: pytest.CaptureFixture[str]) -> str:
    """What a command line of an example prints."""
    call, *filters = (shlex.split(piece) for piece in command.split(" | "))
    assert call[0] == "heapdump"
    assert run(call[1:]) in (0, 1, 4), command
    lines = filtered(capfd.readouterr().out.splitlines(), filters)
    assert lines, f"{command} prints nothing"
    return "".join(f"{line}\n" for line in lines)


def examples(block: str) -> list[tuple[str, str]]:
    """(command line, what it prints) of a block."""
    pieces = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
    assert not pieces[0]
    return list(zip(pieces[1::2], pieces[2::2], strict=True))


def dumps_of(page: Path) -> set[str]:
    """The dumps that the examples of a page name."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    return {dump_of(command) for block in blocks for command, _ in examples(block)}


def dump_of(command: str) -> str:
    """The dump that a command line names."""
    names = re.findall(r"\S+\.dmp", command)
    return "sample.dmp" if "sample.dmp" in names else str(names[0])


@pytest.fixture
def compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Compare:
    """Holds the examples of a page on one dump, which lies at `place`, against what they print now."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("HEAPDUMP_DUMP", raising=False)

    def held(page: Path, name: str, place: Path) -> None:
        linked(Path(name), place)

        def fresh(match: re.Match[str]) -> str:
            """The block as its commands print it now; examples on other dumps as they stand."""
            return "".join(
                f"$ {command}\n{printed(command, capfd) if dump_of(command) == name else shown}"
                for command, shown in examples(match[1])
            )

        now = BLOCK.sub(fresh, page.read_text(encoding="utf-8"))
        if os.environ.get("HEAPDUMP_WRITE_GOLDEN"):
            page.write_text(now, encoding="utf-8")
        assert now == page.read_text(encoding="utf-8")

    return held


@pytest.mark.golden
@pytest.mark.parametrize("page", [page for page in PAGES if "sample.dmp" in dumps_of(page)], ids=lambda page: page.stem)
def test_examples_on_the_sample_print_what_the_page_shows(page: Path, sample: Path, compare: Compare) -> None:
    linked(Path(EARLIER), sample.with_name(EARLIER))
    compare(page, "sample.dmp", sample)


@pytest.mark.golden
@pytest.mark.real
@pytest.mark.parametrize(
    ("page", "name"),
    [(page, name) for page in PAGES for name in sorted(dumps_of(page) & set(RECORDED))],
    ids=lambda value: value.stem if isinstance(value, Path) else value,
)
def test_examples_on_recorded_dumps_print_what_the_page_shows(
    page: Path, name: str, recorded: Callable[[str], Path], compare: Compare
) -> None:
    if name in _BESIDE:
        other, recording = _BESIDE[name]
        linked(Path(other), recorded(recording))
    compare(page, name, recorded(RECORDED[name]))


def test_examples_name_known_dumps() -> None:
    assert {name for page in PAGES for name in dumps_of(page)} == {"sample.dmp", *RECORDED}
