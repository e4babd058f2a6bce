"""Measures command lines in fresh processes, and work in this one."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

TOOL = [sys.executable, "-m", "heapdump"]
_RUNS = 7

_LAUNCHER = """
import json, os, subprocess, sys, threading, time
own = [0]
def sample(status):
    while True:
        try:
            with open(status, "rb") as file:
                own[0] = max(own[0], *(int(line.split()[1]) << 10 for line in file if line.startswith(b"RssAnon")))
        except (OSError, TypeError):
            return
        time.sleep(0.004)
start = time.perf_counter()
with open(sys.argv[1], "wb") as out, open(sys.argv[2], "wb") as err:
    process = subprocess.Popen(sys.argv[3:], stdout=out, stderr=err)
    threading.Thread(target=sample, args=(f"/proc/{process.pid}/status",), daemon=True).start()
    if hasattr(os, "wait4"):
        _, status, usage = os.wait4(process.pid, 0)
        code, cpu = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    else:
        code, cpu, peak = process.wait(), 0, 0
print(json.dumps([time.perf_counter() - start, cpu, peak, code, own[0]]))
"""
"""Starts and awaits a command line. A child's peak memory begins at its parent's: this parent is a small Python.

Linux alone says how much of the memory is no page of a file, every 4 ms. Windows says neither CPU seconds nor peak memory in this way: 0.
"""


@dataclass(frozen=True)
class Measured:
    """Of some runs of one command line: the fewest wall-clock and CPU seconds, the most memory (bytes), the last output.

    `own_bytes`: the most memory that is no page of a file, which the system cannot take back; 0 where it does not say.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str = ""
    own_bytes: int = 0


def measure(arguments: list[str], runs: int = _RUNS, environment: Mapping[str, str] | None = None,
            before: Callable[[], None] = lambda: None, *, exit_code: int = 0,
            keeps_output: bool = False) -> Measured:  # fmt: skip
    """Runs a command line some times, each in a fresh process; `before` prepares each.

    Raises:
        SystemExit: it ends with another exit code; an incomplete answer (4) is no answer.
    """
    found: list[tuple[float, float, int, int]] = []
    output = ""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        for _ in range(runs):
            before()
            launched = subprocess.run(
                [sys.executable, "-S", "-c", _LAUNCHER, str(out), str(err), *arguments],
                capture_output=True, text=True, check=True, env=environment,
            )  # fmt: skip
            seconds, cpu, peak, code, own = json.loads(launched.stdout)
            if code != exit_code:
                raise SystemExit(f"{' '.join(arguments)} failed: exit {code}: {err.read_text()[-500:]}")
            found.append((seconds, cpu, peak, own))
        output = out.read_text() if keeps_output else ""
    seconds, cpu, peak, own = zip(*found, strict=True)
    return Measured(min(seconds), min(cpu), max(peak), output, max(own))


def best(work: Callable[[], object]) -> float:
    """The best wall-clock seconds of some runs in this process."""
    seconds = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
