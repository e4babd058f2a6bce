"""Measures command lines in fresh processes, and work in this one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

TOOL = [sys.executable, "-m", "heapdump"]
_RUNS = 7


@dataclass(frozen=True)
class Measured:
    """The best wall-clock seconds and the largest peak memory (bytes) of some runs of one command line."""

    seconds: float
    peak_bytes: int


def measure(arguments: list[str], runs: int = _RUNS) -> Measured:
    """Runs a command line some times, each in a fresh process."""
    seconds, peaks = [], []
    for _ in range(runs):
        start = time.perf_counter()
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peaks.append(_peak_at_end(process))
        seconds.append(time.perf_counter() - start)
        if process.returncode not in (0, 4):
            raise SystemExit(f"{' '.join(arguments)} failed: exit {process.returncode}")
    return Measured(min(seconds), max(peaks))


def _peak_at_end(process: subprocess.Popen[bytes]) -> int:
    """Waits for a process; its peak memory in bytes, 0 where the system does not say it (Windows)."""
    if not hasattr(os, "wait4"):
        process.wait()
        return 0
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def best(work: Callable[[], object]) -> float:
    """The best wall-clock seconds of some runs in this process."""
    seconds = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
