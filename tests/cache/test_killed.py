"""What a killed process leaves in the cache folder goes at the next start; what a running one writes stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import heapdump
from heapdump import system
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.posix import KILL, needs_signals
from tests.signals import as_in_a_terminal


@pytest.fixture
def dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEAPDUMP_CACHE", str(tmp_path / "cache"))
    heap = NtHeapBuilder(base=0x28A65B00000)
    heap.busy(100)
    ProcessBuilder().heap(heap.build()).write(tmp_path / "x.dmp")
    return tmp_path / "x.dmp"


@needs_signals
@pytest.mark.parametrize("number", [KILL, signal.SIGTERM])
def test_a_half_written_index_is_gone_after_the_next_start(tmp_path: Path, dump: Path, number: signal.Signals) -> None:
    root, ready = tmp_path / "cache" / "blocks", tmp_path / "ready"
    code = (
        "import time\n"
        "from heapdump.cache import walk\n"
        "def wait(*_):\n"
        f"    open({str(ready)!r}, 'w').close(); time.sleep(60)\n"
        "walk.write_text = wait\n"
        "from heapdump.cli import main\nmain()"
    )
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", code, "summary", str(dump)], env=variables, preexec_fn=as_in_a_terminal
    ) as child:
        while not ready.exists() and child.poll() is None:
            time.sleep(0.01)
        (half,) = root.iterdir()
        with heapdump.open_dump(dump) as snapshot:  # meanwhile
            assert snapshot.walk.counts
        assert half.is_dir(), "it is being written"
        child.send_signal(number)
    if number != KILL:
        assert not half.exists()
    with heapdump.open_dump(dump) as snapshot:
        assert snapshot.walk.counts
    assert not half.exists()
    assert len(list(root.iterdir())) == 1


def windows(monkeypatch: pytest.MonkeyPatch, handle: int, error: int, code: int) -> list[int]:
    """Substitutes the calls of Windows; what was closed."""
    closed: list[int] = []

    def exit_code(handle: int, out: object) -> int:
        out._obj.value = code  # type: ignore[attr-defined]
        return 1

    kernel = SimpleNamespace(
        OpenProcess=lambda access, inherit, process: handle,
        GetLastError=lambda: error,
        GetExitCodeProcess=exit_code,
        CloseHandle=closed.append,
    )
    monkeypatch.setattr(system, "IS_WINDOWS", True)
    monkeypatch.setattr("ctypes.windll", SimpleNamespace(kernel32=kernel), raising=False)
    return closed


@pytest.mark.parametrize(
    ("handle", "error", "code", "runs"), [(7, 0, 259, True), (7, 0, 1, False), (0, 5, 0, True), (0, 87, 0, False)]
)
def test_running_processes_of_windows(
    monkeypatch: pytest.MonkeyPatch, handle: int, error: int, code: int, runs: bool
) -> None:
    closed = windows(monkeypatch, handle, error, code)
    assert system.is_running(1234) is runs
    assert closed == ([handle] if handle else [])


def test_running_processes() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    assert system.is_running(os.getpid()) and system.is_running(1)
    child.wait()
    assert not system.is_running(child.pid)
    assert not system.is_running(1 << 70)
