"""Benches measure the command alone, and take no other answer than the right one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench.__main__ import ROOT, Tool
from tests.bench.cases import CASES, Case
from tests.bench.dumps import small
from tests.bench.processes import measure

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="wait4 is no call of Windows")


def test_peak_memory_is_that_of_the_command_not_of_this_process() -> None:
    held = bytearray(300 << 20)
    held[::4096] = bytes([1]) * len(held[::4096])
    assert measure([sys.executable, "-c", "pass"], 1).peak_bytes < 100 << 20
    assert (
        measure([sys.executable, "-c", "a = bytearray(150 << 20); a[::4096] = bytes(len(a[::4096]))"], 1).peak_bytes
        > 150 << 20
    )


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_pages_of_files_are_no_memory_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(64 << 20))
    code = (
        f"import mmap, time; f = open({str(file)!r}, 'r+b'); m = mmap.mmap(f.fileno(), 0); m[::4096]; time.sleep(0.1)"
    )
    found = measure([sys.executable, "-c", code], 1)
    assert found.peak_bytes > 64 << 20 > found.own_bytes > 1 << 20


def test_an_incomplete_answer_is_a_failure() -> None:
    assert measure([sys.executable, "-c", "raise SystemExit(4)"], 1, exit_code=4).cpu_seconds > 0
    with pytest.raises(SystemExit, match=r"failed: exit 4: .*why"):
        measure([sys.executable, "-c", "import sys; print('why', file=sys.stderr); raise SystemExit(4)"], 1)


def test_a_wrong_answer_is_a_failure(tmp_path: Path) -> None:
    dump = tmp_path / "a.dmp"
    truth = small(dump)
    tool, case = Tool(ROOT, tmp_path / "tool"), CASES[0]
    assert case.dump == "small" and tool.run(case, dump, truth, 1).output
    with pytest.raises(SystemExit, match="the answer has"):
        tool.run(case, dump, {"blocks": truth["blocks"] + 1}, 1)
    (tool.code / "heapdump" / "__main__.py").write_text("raise SystemExit(77)")
    with pytest.raises(SystemExit, match="failed: exit 77"):
        tool.run(case, dump, truth, 1)


def test_rows_have_names_of_their_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(isinstance(case, Case) and case.state for case in CASES)
