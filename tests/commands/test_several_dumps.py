"""Commands with several dumps: naming them, opening them, the envelope. The command is a toy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest

from heapdump import cli
from heapdump.commands.common.request import Request, dump_command
from heapdump.errors import WrongUsage
from heapdump.render.view import Answer, Lines
from heapdump.snapshot import Snapshot
from tests.builders import NtHeapBuilder, ProcessBuilder


@dump_command("toy", takes_dumps=True)
def toy(request: Request, dumps: tuple[Path, ...]) -> int:
    """Busy blocks of each dump."""
    with request.open_all(dumps) as snapshots:
        counts = [sum(heap.busy_blocks for heap in one.walk.counts.values()) for one in snapshots]
        answer = Answer(
            "toy",
            data=lambda: {"blocks": counts},
            records=lambda: [{"blocks": count} for count in counts],
            page=lambda: [Lines([[(str(count), "")] for count in counts])],
        )
        return request.emit(snapshots, answer)


@pytest.fixture
def dumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three dumps with 1, 2 and 3 busy blocks."""
    found = cli.LazyGroup.get_command
    monkeypatch.setattr(
        cli.LazyGroup, "get_command", lambda group, ctx, name: toy if name == "toy" else found(group, ctx, name)
    )
    paths = []
    for count in (1, 2, 3):
        heap = NtHeapBuilder(base=0x20000000000)
        for _ in range(count):
            heap.busy(40)
        paths.append(tmp_path / f"{count}.dmp")
        ProcessBuilder().heap(heap.build()).write(paths[-1])
    return paths


def document(capfd: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert cli.run([*map(str, arguments), "--json"]) == 0
    return json.loads(capfd.readouterr().out)


@pytest.mark.parametrize("is_option", [False, True])
def test_the_dumps_are_opened_in_order_and_the_option_names_the_first(dumps, capfd, is_option):
    first = ["-d", dumps[2], "toy"] if is_option else ["toy", dumps[2]]
    found = document(capfd, *first, dumps[0], dumps[1])
    assert [one["path"] for one in found["dumps"]] == [str(dumps[2]), str(dumps[0]), str(dumps[1])]
    counts = found["data"]["blocks"]
    assert (counts[0] - counts[1], counts[2] - counts[1]) == (2, 1)
    assert "dump" not in found


def test_one_dump_is_a_list_too_and_none_is_an_error(dumps, capfd):
    assert len(document(capfd, "toy", dumps[0])["dumps"]) == 1
    assert cli.run(["toy"]) == WrongUsage.exit_code
    assert "no dump named" in capfd.readouterr().err


def test_the_output_never_replaces_one_of_the_dumps(dumps, capfd):
    content = dumps[1].read_bytes()
    assert cli.run(["toy", str(dumps[0]), str(dumps[1]), "-o", str(dumps[1])]) == WrongUsage.exit_code
    assert "is the dump itself" in capfd.readouterr().err
    assert dumps[1].read_bytes() == content


def test_all_dumps_are_closed_where_one_cannot_be_opened(dumps, monkeypatch):
    closed: list[Path] = []
    really = Snapshot.close

    def close(snapshot: Snapshot) -> None:
        closed.append(snapshot.dump.path)
        really(snapshot)

    monkeypatch.setattr(Snapshot, "close", close)
    dumps[2].write_bytes(b"no dump")
    assert cli.run(["toy", *map(str, dumps)]) == 3
    assert sorted(closed) == dumps[:2]


def test_help_shows_several_dumps(dumps, capfd):
    assert isinstance(toy, click.Command)
    assert cli.run(["toy", "--help"]) == 0
    assert "DUMP..." in capfd.readouterr().out
