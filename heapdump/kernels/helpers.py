"""Processes that compile kernels beside this one, which compiles others meanwhile.

A helper is this Python again. It reads jobs, one a line, from its standard input, writes the machine code of each to
its file (`code_files`) and then an empty line; it ends with its input.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence

from heapdump.available_memory import available_memory

Job = tuple[str, str]
"""`module.function` of a kernel, and the form of its arguments."""

_MOST, _JOBS_EACH = 7, 4
_BYTES = 320 << 20
"""Memory that one helper may need, with room to spare: 0.2 GB were measured."""

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from heapdump.kernels.helpers import serve; serve()"


def helpful_number(jobs: int) -> int:
    """The number of helpers that so many jobs are worth on this machine; 0 where it has one processor."""
    if not sys.executable or getattr(sys, "frozen", False):  # a program of its own that holds Python
        return 0
    memory = available_memory()
    room = _MOST if memory is None else memory.bytes // (2 * _BYTES)
    return max(0, min(_MOST, _processors() - 1, room, jobs // _JOBS_EACH))


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Helpers:
    """Jobs, and helpers that take them in their order until none is left or this process ends."""

    def __init__(self, jobs: Sequence[Job], count: int) -> None:
        """Starts `count` helpers."""
        self._waiting, self._begun = list(jobs), set[Job]()
        self._changed = threading.Condition()  # of an RLock: `take` inside `_begin`
        for _ in range(count):
            threading.Thread(target=self._serve, daemon=True).start()

    def take(self) -> Job | None:
        """The next job that nobody has begun, for the caller to do; None where none is left."""
        with self._changed:
            return self._waiting.pop(0) if self._waiting else None

    def claim(self, job: Job) -> Job | None:
        """Keeps a job from the helpers: None. Where one has begun it, another job for the caller to do meanwhile.

        None, too, where a helper that has begun it is waited for, because no other job is left.
        """
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
            elif job in self._begun and self._waiting:
                return self.take()
            self._changed.wait_for(lambda: job not in self._begun)
            return None

    def finish(self) -> None:
        """Waits for the jobs that helpers have begun, and gives them no more."""
        with self._changed:
            self._waiting.clear()
            self._changed.wait_for(lambda: not self._begun)

    def _serve(self) -> None:
        """Gives jobs to one helper. A helper that fails leaves its job to whoever claims it."""
        with contextlib.suppress(OSError, ValueError), _started() as helper:
            assert helper.stdin is not None and helper.stdout is not None
            is_alive = bool(helper.stdout.readline())
            while is_alive and (job := self._begin()) is not None:
                try:
                    helper.stdin.write(json.dumps(job).encode() + b"\n")
                    helper.stdin.flush()
                    is_alive = bool(helper.stdout.readline())
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
    """A new helper. It imports what this process would import, nothing from the current folder or the environment."""
    paths = json.dumps([path for path in sys.path if path])
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _START, paths],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def serve() -> None:
    """Is a helper: see above. The first empty line says that it is ready."""
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
