"""The files of examples/ run and say what is true of a built dump."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.patching import poke

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
HEAP = 0x20000000000


def write(path: Path, *, damaged: bool = False) -> None:
    """A dump with five busy blocks; damaged: the third one ran over the header of the fourth."""
    heap = NtHeapBuilder(base=HEAP)
    for size in (90, 40, 24, 300, 64):
        heap.busy(size)
    built = heap.build()
    candidate, victim = built.truth.busy[2], built.truth.busy[3]
    end = candidate.user + candidate.size
    change = [(end, b"Z" * (victim.user - end))] if damaged else []
    path.write_bytes(poke(ProcessBuilder().heap(built).build(), *change).data)


def test_the_block_table_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "crash.dmp")
    monkeypatch.setattr(sys, "argv", ["block_table.py", str(tmp_path / "crash.dmp")])
    runpy.run_path(str(EXAMPLES / "block_table.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "busy: 5 blocks, 518 bytes requested" in out
    assert f"heap {HEAP:#x} (nt, trust exact): 518 bytes" in out
    assert "256 to          511 bytes: 1 blocks" in out
    assert "1 blocks of 300 bytes, such as " in out


def test_the_example_of_the_library_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "crash.dmp")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    exec(compile(page.split("```python\n", 1)[1].split("```", 1)[0], "api.md", "exec"), {})
    assert capsys.readouterr().out.endswith("5 blocks, 518 bytes\n")


def gate(dumps: Path, sarif: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("sh") is None:
        pytest.skip("there is no sh")
    environment = {**os.environ, "HEAPDUMP": f"{sys.executable} -m heapdump", "PYTHONPATH": str(ROOT)}
    command = ["sh", str(EXAMPLES / "ci_gate.sh"), str(dumps), str(sarif)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=ROOT)


def test_the_gate_passes_sound_dumps_and_stops_damaged_ones(tmp_path: Path) -> None:
    dumps, sarif = tmp_path / "dumps", tmp_path / "sarif"
    dumps.mkdir()
    write(dumps / "sound.dmp")
    done = gate(dumps, sarif)
    assert (done.returncode, done.stdout) == (0, "sound: no damage\n"), done.stderr
    write(dumps / "hurt.dmp", damaged=True)
    done = gate(dumps, sarif)
    assert done.returncode == 1
    assert done.stdout.startswith("hurt: damaged\n1 incident: 1 error") and done.stdout.endswith("sound: no damage\n")
    results = {
        name: json.loads((sarif / f"{name}.sarif").read_text())["runs"][0]["results"] for name in ("hurt", "sound")
    }
    assert [result["ruleId"] for result in results["hurt"]] == ["heap-buffer-overflow"]
    assert results["sound"] == []


def test_the_gate_stops_at_what_is_no_dump(tmp_path: Path) -> None:
    (tmp_path / "text.dmp").write_text("no dump")
    done = gate(tmp_path, tmp_path / "sarif")
    assert done.returncode == 3
    assert ": error: " in done.stderr
