"""Asked twice, cold and from the index, every command prints the same bytes: no state lies in modules or is lost."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import click
import pytest

import heapdump
from heapdump.cli import cli, run
from tests.command_lines import command_lines, with_dump
from tests.sample_dumps import KINDS

RECORDED = (
    "oracle/2600.5512/leak-ust", "oracle/7601.17514/lfh", "oracle/9600.16384/corrupt-overflow", "oracle/14393.447/leak-ust",
    "oracle/17763.475/segment-ust", "oracle/19041.508/pageheap", "oracle/19041.804-x86/segment",
    "oracle/22000.778/corrupt-segment", "oracle/26100.4061/segment-ust", "hard/9200.16578-x86/life",
    "damaged/silent-59160111820140",
)  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kinds")
    for name, write in KINDS.items():
        write(folder / f"{name}.dmp")
    return {name: folder / f"{name}.dmp" for name in KINDS}


def answer(arguments: list[str]) -> tuple[int, str, str]:
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = run(arguments)
    return code, out.getvalue(), err.getvalue()


def first_block(path: Path) -> tuple[str, str]:
    """(address of the first heap, of a busy block)."""
    with heapdump.open_dump(path, use_index=False) as snapshot:
        table = snapshot.walk.table
        row = int((table.is_busy & ~table.is_internal).nonzero()[0][0])
        return hex(snapshot.heaps[0].address), hex(int(table.address[row]))


def check_twice(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = command_lines(*first_block(path))
    for name, arguments in lines.items():
        for options in ((), ("--json",)):
            line = [*with_dump(arguments, str(path)), *options]
            monkeypatch.setenv("HEAPDUMP_CACHE", str(folder / f"{path.stem}-{name}{len(options)}"))
            cold = answer(line)
            assert cold[0] in (0, 1, 4), (line, cold[2])
            assert answer(line) == cold, line
    monkeypatch.setenv("HEAPDUMP_CACHE", str(folder / f"{path.stem}-shared"))
    shared = {name: answer(with_dump(arguments, str(path))) for name, arguments in lines.items()}
    for name, arguments in reversed(lines.items()):  # in another order, with all that the others left in the index
        assert answer(with_dump(arguments, str(path))) == shared[name], name


def test_every_command_has_a_line() -> None:
    context = click.Context(cli)
    assert {line[0] for line in command_lines("0", "0").values()} == {*cli.list_commands(context)}


@pytest.mark.parametrize("kind", KINDS)
def test_built_dumps(built: dict[str, Path], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_twice(built[kind], tmp_path, monkeypatch)


@pytest.mark.real
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_dumps(name: str, recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_twice(recorded(f"{name}.dmp.xz"), tmp_path, monkeypatch)
