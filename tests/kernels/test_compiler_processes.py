"""Processes that compile kernels beside this one. Most tests give them a program of their own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from heapdump import kernels
from heapdump.available_memory import Available
from heapdump.kernels import ahead, code_files, compiler_processes
from heapdump.kernels.compiler_processes import CompilerProcesses, worthwhile_number

JOBS = [("reach.flood", "a"), ("reach.flood", "b"), ("reach.trace", "c")]
OBEDIENT = "import sys\nprint(flush=True)\nfor _ in sys.stdin: print(flush=True)"
DEAD = ""
DYING = "import sys\nprint(flush=True)\nsys.stdin.readline()"
SLOW = "import sys, time\nprint(flush=True)\nfor _ in sys.stdin: time.sleep(0.5); print(flush=True)"


def all_taken(found: CompilerProcesses) -> None:
    """Waits until processes have begun every job."""
    deadline = time.monotonic() + 30
    while found._waiting and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not found._waiting


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that are started from now on."""
    begun, start = list[subprocess.Popen[bytes]](), compiler_processes._started

    def started() -> subprocess.Popen[bytes]:
        begun.append(start())
        return begun[-1]

    monkeypatch.setattr(compiler_processes, "_started", started)
    return begun


@pytest.mark.parametrize("program", [OBEDIENT, SLOW])
def test_every_job_is_taken_and_waited_for(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(compiler_processes, "_START", program)
    found = CompilerProcesses(JOBS, 2)
    all_taken(found)
    assert found.claim(JOBS[2]) is None
    assert JOBS[2] not in found._begun
    found.finish()
    assert not found._begun


@pytest.mark.parametrize("program", [DEAD, DYING, "raise SystemExit(1)"])
def test_a_process_that_ends_leaves_the_jobs_to_the_caller(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(compiler_processes, "_START", program)
    others = threading.enumerate()
    found = CompilerProcesses(JOBS, 1)
    for thread in set(threading.enumerate()) - set(others):
        thread.join(30)
    left = list(iter(found.take, None))
    assert left == (JOBS[1:] if program is DYING else JOBS)
    assert found.claim(JOBS[0]) is None
    found.finish()


def test_the_caller_is_given_other_jobs_while_a_process_has_the_one_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler_processes, "_START", SLOW)
    found = CompilerProcesses(JOBS, 1)
    deadline = time.monotonic() + 30
    while len(found._waiting) > 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert found.claim(JOBS[0]) == JOBS[1]
    assert found.claim(JOBS[2]) is None


@pytest.mark.parametrize(
    ("processors", "load", "jobs", "expected"),
    [
        (64, "0.20 0.18 0.12 1/900 4711", 100, 7),
        (64, "0.20 0.18 0.12 1/900 4711", 3, 0),
        (4, "0.20 0.18 0.12 1/900 4711", 100, 3),
        (4, "0.20 0.18 0.12 3/900 4711", 100, 1),
        (4, "0.20 0.18 0.12 30/900 4711", 100, 0),
        (4, "nothing that is known", 100, 3),
        (1, "0.20 0.18 0.12 1/900 4711", 100, 0),
    ],
)
def test_only_idle_processors_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processors: int, load: str, jobs: int, expected: int
) -> None:
    (tmp_path / "loadavg").write_text(load)
    monkeypatch.setattr(compiler_processes, "_LOAD", tmp_path / "loadavg")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(processors)), raising=False)
    monkeypatch.setattr(compiler_processes, "_GROUP", tmp_path)
    monkeypatch.setattr(compiler_processes, "available_memory", lambda: None)
    assert worthwhile_number(jobs) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "max 100000"}, 7),
        ({"cpu.max": "250000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 0),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 7),
        ({"cpu.max": "nothing known"}, 7),
    ],
)
def test_a_container_gets_as_many_as_it_may_use_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(compiler_processes, "_GROUP", tmp_path)
    monkeypatch.setattr(compiler_processes, "_LOAD", tmp_path / "none")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    monkeypatch.setattr(compiler_processes, "available_memory", lambda: None)
    assert worthwhile_number(100) == expected


def test_none_where_memory_is_short_or_no_python_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler_processes, "_idle_processors", lambda: 64)
    monkeypatch.setattr(compiler_processes, "available_memory", lambda: Available(1 << 30, "a limit"))
    assert worthwhile_number(100) == 1
    monkeypatch.setattr(compiler_processes, "available_memory", lambda: Available(1 << 28, "a limit"))
    assert worthwhile_number(100) == 0
    monkeypatch.setattr(compiler_processes, "available_memory", lambda: None)
    assert worthwhile_number(100) == 7
    monkeypatch.setattr(sys, "executable", "")
    assert worthwhile_number(100) == 0


def test_a_process_compiles_what_it_reads(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("numba")
    done = list[tuple[str, str]]()

    def compile_form(name: str, form: str) -> None:
        done.append((name, form))
        raise RuntimeError("of one kernel, not of the others")

    monkeypatch.setattr(ahead, "compile_form", compile_form)
    monkeypatch.setattr(sys, "stdin", io.StringIO('["a.b", "i"]\n["c.d", "i8:1C"]\n'))
    compiler_processes.serve()
    assert done == [("a.b", "i"), ("c.d", "i8:1C")]
    assert capfd.readouterr().out == "\n\n\n"


def add(values: np.ndarray) -> int:
    total = 0
    for i in range(len(values)):
        total += values[i]
    return total


@pytest.mark.parametrize("is_command", [True, False])
@pytest.mark.parametrize("program", [OBEDIENT, DEAD])
def test_processes_are_started_for_a_command_alone_and_change_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_command: bool, program: str
) -> None:
    pytest.importorskip("numba")
    if not code_files.is_possible():
        pytest.skip("code from files was not tried on this system")
    monkeypatch.setattr(code_files, "_folders", lambda: (tmp_path,))
    monkeypatch.setattr(compiler_processes, "_START", program)
    monkeypatch.setattr(compiler_processes, "_idle_processors", lambda: 1)
    monkeypatch.setattr(compiler_processes, "available_memory", lambda: None)
    monkeypatch.setattr(kernels, "_LISTENERS", [lambda text: None] if is_command else [])
    monkeypatch.setattr(ahead, "_PROCESSES", {})
    monkeypatch.setattr(ahead, "_FORESEEN", list(ahead.OF_REACH))
    monkeypatch.setattr(ahead, "compile_form", lambda name, form: None)
    begun = recorded(monkeypatch)
    assert kernels._Compiled(add)(np.arange(10)) == 45
    for _ in range(100 * is_command):
        time.sleep(0 if begun else 0.1)
    assert len(begun) == is_command
    for one in begun:
        one.wait(30)
    assert ahead._can_be_kept()


@pytest.mark.parametrize("foreseen", [(), ahead.OF_REACH])
def test_none_whose_work_is_lost_or_not_known(monkeypatch: pytest.MonkeyPatch, foreseen: tuple[str, ...]) -> None:
    monkeypatch.setattr(code_files, "_folders", lambda: (Path("/proc/none"),))
    monkeypatch.setattr(compiler_processes, "_idle_processors", lambda: 4)
    monkeypatch.setattr(ahead, "_PROCESSES", {})
    monkeypatch.setattr(ahead, "_FORESEEN", list(foreseen))
    monkeypatch.setattr(compiler_processes, "_started", lambda: pytest.fail("started"))
    assert ahead.from_processes(add, "i8:1C") is None


def test_a_process_that_hangs_is_not_waited_for_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        compiler_processes, "_START", "import sys, time\nprint(flush=True)\nsys.stdin.readline(); time.sleep(60)"
    )
    monkeypatch.setattr(compiler_processes, "_PATIENCE_SECONDS", 0.1)
    begun = recorded(monkeypatch)
    found = CompilerProcesses(JOBS[:1], 1)
    all_taken(found)
    assert found.claim(JOBS[0]) is None
    found.finish()
    assert found._begun == {JOBS[0]}
    begun[0].kill()


def test_what_is_foreseen_is_usual_and_in_the_order_of_use() -> None:
    for modules in (ahead.OF_REACH, ahead.OF_TYPES, ahead.OF_TREE):
        names = [name.partition(".")[0] for name, _ in ahead.usual_jobs(modules)]
        assert list(dict.fromkeys(names)) == list(modules)
