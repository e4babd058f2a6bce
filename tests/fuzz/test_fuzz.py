"""The fuzzer itself: cases repeat, a defect is found, and a short run finds none."""

from __future__ import annotations

from inspect import signature
from pathlib import Path

import pytest

from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.fuzz.__main__ import failure, main
from tests.fuzz.cases import NAMES, TOOLS, Case, make_case
from tests.fuzz.worker import called

GOOD = {"code": 0, "err": "", "cpu": 1.0, "peak": 1 << 20, "raw": False, "is_json": True}


def test_cases_depend_on_the_seed_alone_and_reach_every_command(tmp_path: Path) -> None:
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(100)
    contents = {"a": ProcessBuilder().heap(heap.build()).build().data}
    cases = [make_case(7, number, contents, tmp_path) for number in range(200)]
    assert cases == [make_case(7, number, contents, tmp_path) for number in range(200)]
    assert {case.arguments[0] for case, _ in cases} == set(NAMES)
    assert len({data for _, data in cases}) > 100


def test_tools_of_the_cases_are_those_of_the_server() -> None:
    from heapdump.commands.common.assistant.server import Tools

    own = {name for name in vars(Tools) if not name.startswith("_")} - {"open_dump"}
    assert set(TOOLS) == own
    for name, arguments in TOOLS.items():
        assert set(arguments) == set(signature(getattr(Tools, name)).parameters) - {"self", "dump", "old", "new"}


def test_a_session_is_asked(tmp_path: Path) -> None:
    (tmp_path / "a.dmp").write_bytes(ProcessBuilder().build().data)
    calls: list[tuple[str, dict[str, object]]] = [
        ("summary", {}),
        ("block", {"address": "nowhere!x"}),
        ("memory", {"address": "-1"}),
    ]
    answer = called(tmp_path, str(tmp_path / "a.dmp"), calls, [])
    assert answer.exit_code == 0 and answer.stdout.count("\n") == 2
    assert called(tmp_path, str(tmp_path / "none.dmp"), calls, []).exit_code == 3
    assert called(tmp_path, str(tmp_path / "a.dmp"), [("summary", {"no": 1})], []).exit_code == 70


@pytest.mark.parametrize(
    "change",
    [
        {"code": 70},
        {"code": -11},
        {"err": "Traceback"},
        {"raw": True},
        {"cpu": 60.0},
        {"peak": 1 << 40},
        {"is_json": False},
    ],
)
def test_a_failure_is_told_from_an_answer(change: dict[str, object]) -> None:
    case = Case(1, "a", "none", ("heaps", "DUMP"))
    assert failure(case, GOOD) == ""
    assert failure(case, GOOD | change)
    assert failure(case, "ended with -11")


@pytest.mark.hostile
def test_a_short_run_finds_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3", "--runs", "25", "--minutes", "5"]) == 0
    assert "seed 3, 25 runs, 0 failures" in capfd.readouterr().out
