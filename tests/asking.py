"""Command lines answered in this process, or in a helper process that has seen nothing else.

`python -m tests.asking` reads a question a line from stdin and writes its answer as a line to stdout, both as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import pytest

if TYPE_CHECKING:
    from heapdump.snapshot import Snapshot

ROOT = Path(__file__).resolve().parent.parent


class Answer(NamedTuple):
    """Everything that a command line prints; bytes that are no text as `\\xNN`."""

    exit_code: int
    stdout: str
    stderr: str


def ask(index: Path, arguments: Iterable[str]) -> Answer:
    """The answer of this process, with its index in that folder."""
    from heapdump.cli import run
    from heapdump.kernels import COMPILING

    streams = [TextIOWrapper(BytesIO(), encoding="utf-8", newline="") for _ in range(2)]
    before = sys.stdout, sys.stderr, os.environ.get("HEAPDUMP_CACHE")
    sys.stdout, sys.stderr = streams
    os.environ["HEAPDUMP_CACHE"] = str(index)
    try:
        code = run([*arguments])
    finally:
        sys.stdout, sys.stderr, folder = before
        os.environ["HEAPDUMP_CACHE"] = folder or ""
    out, err = map(_written, streams)
    return Answer(code, out, err.replace(f"heapdump: {COMPILING}\n", ""))


@contextmanager
def opened_once(path: Path, *, use_index: bool = True) -> Iterator[Snapshot]:
    """The dump; commands that open one in the `with` get this, and what its walk found is at hand."""
    from heapdump import snapshot as snapshots

    opened = snapshots.open_dump(path, use_index=use_index)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "open_dump", lambda *_, **__: opened)
        patch.setattr(snapshots.Snapshot, "__exit__", lambda *_: None)
        try:
            yield opened
        finally:
            opened.close()


def _written(stream: TextIOWrapper) -> str:
    """What was written to a stream over bytes."""
    stream.flush()
    return cast("BytesIO", stream.buffer).getvalue().decode("utf-8", "backslashreplace")


class Helper:
    """Another process that answers."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """`process` runs this module."""
        assert process.stdin is not None and process.stdout is not None
        self._questions, self._answers = process.stdin, process.stdout

    def ask(self, index: Path, arguments: Iterable[str]) -> Answer:
        """Its answer, with its index in that folder."""
        self._questions.write(json.dumps([str(index), *arguments]) + "\n")
        self._questions.flush()
        return Answer(*json.loads(self._answers.readline()))


@contextmanager
def helper() -> Iterator[Helper]:
    """A helper process for the length of a `with`."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.asking"], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        encoding="utf-8", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        yield Helper(process)
        assert process.stdin is not None
        process.stdin.close()


def main() -> None:
    """Answers every question of stdin."""
    answers = sys.stdout
    for line in sys.stdin:
        index, *arguments = json.loads(line)
        answers.write(json.dumps(ask(Path(index), arguments)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
