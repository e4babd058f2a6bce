"""Tries an installed heapdump: `python -m tests.tools.smoke build/installed/bin/heapdump`; exit 1 where it fails.

The command runs in a folder of its own, so nothing of the sources is imported by it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fixtures.sample import BEFORE, NOW, sample

_SECONDS = 300
CASES: tuple[tuple[tuple[str, ...], tuple[int, ...], str], ...] = (
    (("--version",), (0,), "heapdump"),
    (("--help",), (0,), "leaks"),
    (("help", "leaks"), (0,), "--group-by"),
    (("triage", "now.dmp"), (0, 4), "heap-buffer-overflow"),
    (("check", "now.dmp"), (1,), "visioncore.dll"),
    (("leaks", "now.dmp", "--json"), (0, 4), "AllocImage"),
    (("threads", "now.dmp", "--frames"), (0, 4), "visionsvc"),
    (("disasm", "now.dmp", "rip"), (0, 2, 4), ""),
    (("diff", "before.dmp", "now.dmp"), (0, 4), "AllocImage"),
    (("report", "now.dmp", "-o", "report.html"), (0, 4), ""),
    (("fleet", "now.dmp", "before.dmp", "--jobs", "2"), (0, 4), "now.dmp"),
    (("cache",), (0,), "index"),
    (("triage", "none.dmp"), (3,), ""),
    (("nonsense",), (2,), ""),
)
"""Arguments, the exit codes that are right, and what the standard output has."""


def failures(command: Sequence[str], folder: Path) -> list[str]:
    """A line for each case that ends otherwise than it should."""
    sample(NOW).write(folder / "now.dmp")
    sample(BEFORE).write(folder / "before.dmp")
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    variables |= {"HEAPDUMP_CACHE": str(folder / "index"), "SHIV_ROOT": str(folder / "unpacked"), "PYTHONUTF8": "1"}
    out = []
    for arguments, codes, text in CASES:
        done = subprocess.run(
            [*command, *arguments], cwd=folder, env=variables, capture_output=True, text=True, encoding="utf-8",
            timeout=_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode not in codes or text not in done.stdout or "Traceback" in done.stderr:
            out.append(f"{' '.join(arguments)}: exit code {done.returncode}: {done.stderr.strip()[-500:]}")
        elif "--json" in arguments:
            json.loads(done.stdout)
    if not (folder / "report.html").is_file():
        out.append("report wrote nothing")
    return out


def main(words: list[str] | None = None) -> int:
    """The exit code."""
    given = sys.argv[1:] if words is None else words
    command = [str(Path(word).absolute()) if Path(word).exists() else word for word in given]
    with tempfile.TemporaryDirectory(prefix="smoke-") as folder:
        found = failures(command, Path(folder))
    for line in found:
        print(f"FAILED {line}")
    print(f"{len(CASES)} cases, {len(found)} failures")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
