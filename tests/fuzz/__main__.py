"""Runs cases for some minutes and prints the seed, the number of runs and every failure; exit 1 with one.

A failure: an exit code that is not documented, a signal, a traceback, more than one error line, control characters of a
dump, JSON that is none, more CPU time or memory than allowed. `--first N --runs 1` repeats one case.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, cast

from heapdump.kernels.ahead import compile_known
from tests.fuzz.cases import Case, make_case
from tests.samples import SAMPLES

ROOT = Path(__file__).resolve().parents[2]
_CPU_SECONDS, _WALL_SECONDS, _PEAK_BYTES = 10.0, 240.0, 1 << 30
_MOST_BYTES, _REST_SECONDS = 24 << 20, 20.0
_FRESH_AFTER = 400
"""Cases that one worker answers: its peak of memory is that of all of them."""


class Worker:
    """A process that answers command lines."""

    def __init__(self, index: Path) -> None:
        """`index`: the folder of its index."""
        variables = os.environ | {"PYTHONPATH": str(ROOT)}
        self.answered = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=variables, cwd=index.parent,
        )  # fmt: skip
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)  # Windows waits for no pipe
        self._reader.start()
        self._write(str(index))

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")

    def _write(self, value: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def ask(self, arguments: list[str]) -> dict[str, Any] | str:
        """The answer; in words how the process ended, or that it did not answer in time."""
        self.answered += 1
        self._write(arguments)
        try:
            line = self._lines.get(timeout=_WALL_SECONDS)
        except queue.Empty:
            line = None
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        self.close()
        return f"no answer in {_WALL_SECONDS:.0f} s" if line is None else f"ended with {self._process.returncode}"

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()
        self._reader.join(_REST_SECONDS)  # processes that it started may keep the pipe open
        with suppress(OSError):  # what the process did not read any more
            cast("IO[str]", self._process.stdin).close()


def failure(case: Case, answer: dict[str, Any] | str) -> str:
    """What is wrong with an answer; "" for nothing."""
    if isinstance(answer, str):
        return answer
    allowed = {0, 1, 2, 3, 4, 23}
    if answer["code"] not in allowed and "--exitcode" not in case.arguments:
        return f"exit code {answer['code']}: {answer['err'][-300:]}"
    if "Traceback" in answer["err"] or answer["err"].count("error:") > 1:
        return f"stderr: {answer['err'][-600:]}"
    if answer["raw"] and not {"always", "pprof"} & {*case.arguments}:  # a pprof profile is packed
        return "control characters"
    if not answer["is_json"]:
        return "the JSON is none"
    if answer["cpu"] > _CPU_SECONDS:
        return f"{answer['cpu']:.1f} s of CPU time"
    return f"{answer['peak'] >> 20} MB" if answer["peak"] > _PEAK_BYTES else ""


def contents(folder: Path, recorded: Path | None) -> dict[str, bytes]:
    """Name → bytes of every sample, and of the small recorded dumps."""
    found = {}
    for name, make in SAMPLES.items():
        make(folder / f"{name}.dmp")
        if (folder / f"{name}.dmp").stat().st_size <= _MOST_BYTES:
            found[name] = (folder / f"{name}.dmp").read_bytes()
        (folder / f"{name}.dmp").unlink()
    for path in sorted(recorded.rglob("*.dmp*")) if recorded else ():
        if path.stat().st_size < 2 << 20:
            data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
            if len(data) <= _MOST_BYTES:
                found[path.name] = data
    return found


def _numbers(options: argparse.Namespace) -> Iterator[int]:
    end, number = time.monotonic() + options.minutes * 60, options.first
    while time.monotonic() < end and (options.runs is None or number < options.first + options.runs):
        yield number
        number += 1


def fuzz(options: argparse.Namespace) -> int:
    """Runs the cases; the number of failures."""
    runs, failures = 0, 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fuzz-")))
        found, dump = contents(folder, options.dumps), folder / "case.dmp"
        with suppress(ImportError):  # no case pays for the machine code of a new checkout
            compile_known(lambda _: None)
        worker = Worker(folder / "index")
        for number in _numbers(options):
            case, data = make_case(options.seed, number, found, folder)
            dump.write_bytes(data)
            answer = worker.ask([str(dump) if word == "DUMP" else word for word in case.arguments])
            wrong = failure(case, answer)
            runs += 1
            if wrong:
                failures += 1
                print(
                    f"FAILURE {case.number} {case.sample} ({case.damage}): {' '.join(map(ascii, case.arguments))}: {wrong}",
                    flush=True,
                )
            if isinstance(answer, str) or wrong or worker.answered >= _FRESH_AFTER:
                worker.close()
                worker = Worker(folder / "index")
        worker.close()
    print(f"seed {options.seed}, {runs:,} runs, {failures} failures")
    return failures


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--runs", type=int, help="cases at most")
    parser.add_argument("--dumps", type=Path, help="folder of recorded dumps")
    return 1 if fuzz(parser.parse_args(words)) else 0


if __name__ == "__main__":
    sys.exit(main())
