"""Processes that compile kernels while this one compiles others.

Each is this Python again. It reads jobs, one a line, from its standard input, writes the machine code of each to its
file (`code_files`) and then an empty line; it ends with its input.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from heapdump.available_memory import available_memory

Job = tuple[str, str]
"""`module.function` of a kernel, and the form of its arguments."""

_MOST, _JOBS_EACH, _PATIENCE_SECONDS = 7, 4, 10
_BYTES = 320 << 20
"""Memory that one may need, with room to spare: 0.2 GB were measured."""

_LOAD, _GROUP = Path("/proc/loadavg"), Path("/sys/fs/cgroup")
_START = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {__name__} import serve; serve()"


def worthwhile_number(jobs: int) -> int:
    """How many processes so many jobs are worth on this machine now; 0 where no processor is idle."""
    if not sys.executable or getattr(sys, "frozen", False):  # a program of its own that holds Python
        return 0
    memory = available_memory()
    room = _MOST if memory is None else memory.bytes // (3 * _BYTES)
    return max(0, min(_MOST, _idle_processors(), room, jobs // _JOBS_EACH))


def _idle_processors() -> int:
    """Processors that no thread uses at this moment: on a busy machine others would only be waited for."""
    if not hasattr(os, "sched_getaffinity"):
        return (os.cpu_count() or 1) - 1
    running = 1
    with contextlib.suppress(OSError, ValueError, IndexError):  # proc(5): "0.20 0.18 0.12 running/threads last"
        running = int(_LOAD.read_text().split()[3].partition("/")[0])
    return min(len(os.sched_getaffinity(0)) - running, _allowed_processors() - 1)


def _allowed_processors() -> int:
    """Processors that the control group of a container allows, whose files are those of the root there.

    Source: the kernel's cgroup-v2.rst (cpu.max) and scheduler/sched-bwc.rst.
    """
    old = _GROUP / "cpu"
    for files in ((_GROUP / "cpu.max",), (old / "cpu.cfs_quota_us", old / "cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = " ".join(file.read_text() for file in files).split()
            if quota not in ("max", "-1"):
                return max(1, int(quota) // int(period))
    return 1 + _MOST


class CompilerProcesses:
    """Jobs, and processes that take them in their order until none is left or this process ends."""

    def __init__(self, jobs: Sequence[Job], count: int) -> None:
        """Starts `count` processes, or as many as the system lets start."""
        self._waiting, self._begun = list(jobs), set[Job]()
        self._changed = threading.Condition()  # of an RLock: `take` inside `_begin`
        with contextlib.suppress(RuntimeError):  # no more threads
            for _ in range(count):
                threading.Thread(target=self._serve, daemon=True).start()

    def take(self) -> Job | None:
        """The next job that nobody has begun, for the caller to do; None where none is left."""
        with self._changed:
            return self._waiting.pop(0) if self._waiting else None

    def claim(self, job: Job) -> Job | None:
        """Keeps a job from the processes: None. Where one has begun it, another job for the caller to do meanwhile.

        None, too, where no other job is left: after the process is done, or has taken far too long.
        """
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
            elif job in self._begun and self._waiting:
                return self.take()
            self._changed.wait_for(lambda: job not in self._begun, _PATIENCE_SECONDS)
            return None

    def finish(self) -> None:
        """Gives out no more jobs, and waits for those that were begun; not for ever."""
        with self._changed:
            self._waiting.clear()
            self._changed.wait_for(lambda: not self._begun, _PATIENCE_SECONDS)

    def _serve(self) -> None:
        """Gives jobs to one process. One that fails leaves its job to whoever claims it."""
        with contextlib.suppress(OSError, ValueError), _started() as process:
            assert process.stdin is not None and process.stdout is not None
            is_alive = bool(process.stdout.readline())
            while is_alive and (job := self._begin()) is not None:
                try:
                    process.stdin.write(json.dumps(job).encode() + b"\n")
                    process.stdin.flush()
                    is_alive = bool(process.stdout.readline())
                finally:
                    self._end(job)

    def _begin(self) -> Job | None:
        with self._changed:
            job = self.take()
            if job is not None:
                self._begun.add(job)
            return job

    def _end(self, job: Job) -> None:
        with self._changed:
            self._begun.discard(job)
            self._changed.notify_all()


def _started() -> subprocess.Popen[bytes]:
    """A new process. It imports from where this one imports, and writes byte code only where this one does."""
    paths = json.dumps([path for path in sys.path if isinstance(path, str) and path])
    options = ["-I", *(["-B"] if sys.dont_write_bytecode else [])]
    options += ["-X", f"pycache_prefix={sys.pycache_prefix}"] if sys.pycache_prefix else []
    return subprocess.Popen(
        [sys.executable, *options, "-c", _START, paths],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def serve() -> None:
    """Is such a process: see above. The first empty line says that it is ready."""
    from heapdump.kernels.ahead import compile_form
    from heapdump.kernels.compiler import warm_up

    warm_up()
    answers = sys.stdout
    print(file=answers, flush=True)
    for line in sys.stdin:
        name, form = json.loads(line)
        with contextlib.suppress(Exception):  # the process that needs it finds the same error
            compile_form(name, form)
        print(file=answers, flush=True)
