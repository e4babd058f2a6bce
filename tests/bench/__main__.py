"""`make bench`: seconds, CPU seconds and memory of commands in fresh processes, as a table and as JSON in `bench/`.

`make bench-compare REV=…` measures the same rows with the code of another revision too, one after the other in the same
run, and prints the ratios: the load of a machine changes, and a ratio of two runs that lie hours apart says little.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.cases import CASES, LARGE, Case
from tests.bench.processes import Measured, measure

ROOT = Path(__file__).resolve().parents[2]
_RUNS = 3


class Tool:
    """heapdump as it lies in a folder, with caches of its own."""

    def __init__(self, root: Path, folder: Path) -> None:
        """`root`: of the sources; `folder`: for everything that it keeps."""
        self.code, self._folder = folder / "code", folder
        shutil.copytree(root / "heapdump", self.code / "heapdump", ignore=shutil.ignore_patterns("__pycache__"))

    def run(self, case: Case, dump: Path, truth: dict[str, int], runs: int) -> Measured:
        """Measures the case.

        Raises:
            SystemExit: the command fails, or its answer is wrong.
        """
        command, *options = case.command.split()
        arguments = [sys.executable, "-m", "heapdump", command, str(dump), *options]
        if case.state != "index":
            arguments.append("--no-cache")
        environment = os.environ | {"PYTHONPATH": str(self.code), "HEAPDUMP_CACHE": str(self._folder / "index")}
        environment |= {"XDG_CACHE_HOME": str(self._folder / "xdg")}
        environment |= {"PYTHONSAFEPATH": "1"}  # else the current folder's heapdump comes first
        if case.state != "first run":
            measure(arguments, 1, environment, exit_code=case.exit_code)  # compiles; writes the index
        before = {"first run": self._forget, "cold file": lambda: _out_of_memory(dump)}.get(case.state, lambda: None)
        found = measure(arguments, runs, environment, before, exit_code=case.exit_code, keeps_output=True)
        number = case.number(found.output)
        if number != truth[case.truth]:
            raise SystemExit(f"{case.name}: the answer has {number:,} {case.truth}, the dump {truth[case.truth]:,}")
        return found

    def _forget(self) -> None:
        """Makes the installation a fresh one."""
        for folder in (*self.code.rglob("__pycache__"), self._folder / "xdg"):
            shutil.rmtree(folder, ignore_errors=True)


def _out_of_memory(dump: Path) -> None:
    """Takes the pages of a file out of the system's memory."""
    if not hasattr(os, "posix_fadvise"):
        raise SystemExit("this system cannot forget a file; leave the rows `cold file` out: --only")
    with dump.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", default="", help="rows whose names have this text")
    parser.add_argument(
        "--large", action="store_true", help="also 40 million blocks; needs 11 GB of memory and 5 GB of disk"
    )
    parser.add_argument("--compare", metavar="REV", help="also the code of this revision, and ratios")
    parser.add_argument("--runs", type=int, default=_RUNS, help="of which the best counts")
    options = parser.parse_args()
    cases = [case for case in (*CASES, *(LARGE if options.large else ())) if options.only in case.name]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tools = {"this": Tool(ROOT, folder / "this")}
        if options.compare:
            tools = {options.compare: Tool(_sources(options.compare, folder), folder / "other")} | tools
        base = measure([sys.executable, "-c", "import numpy"], options.runs)
        print(f"{'':58}{'wall s':>8}{'cpu s':>8}{'peak MB':>9}{'own MB':>8}")
        print(
            f"{'python -c import numpy':58}{base.seconds:8.2f}{base.cpu_seconds:8.2f}{base.peak_bytes / 1e6:9.0f}{base.own_bytes / 1e6:8.0f}"
        )
        rows = _rows(cases, tools, folder, options.runs)
    _write(rows, base)


def _rows(cases: list[Case], tools: dict[str, Tool], folder: Path, runs: int) -> list[dict[str, Any]]:
    """Measures each case with each tool, dump by dump; the rows as they are written."""
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(case.dump for case in cases):
        dump = folder / f"{name}.dmp"
        made = subprocess.run(
            [sys.executable, "-m", "tests.bench.dumps", name, str(dump)],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        truth = json.loads(made.stdout)
        for case in (case for case in cases if case.dump == name):
            found = {words: tool.run(case, dump, truth, runs) for words, tool in tools.items()}
            now = found["this"]
            row: dict[str, Any] = {
                "name": case.name,
                "state": case.state,
                "dump": truth | {"bytes": dump.stat().st_size},
            }
            row |= {"seconds": now.seconds, "cpu_seconds": now.cpu_seconds}
            row |= {"peak_bytes": now.peak_bytes, "own_bytes": now.own_bytes}
            ratios = [_ratio(words, other, now) for words, other in found.items() if other is not now]
            line = f"{case.name:58}{now.seconds:8.2f}{now.cpu_seconds:8.2f}{now.peak_bytes / 1e6:9.0f}{now.own_bytes / 1e6:8.0f}"
            print(line + "".join(f"  {ratio['words']}" for ratio in ratios), flush=True)
            rows.append(row | ({"compared": ratios} if ratios else {}))
        dump.unlink()
    return rows


def _ratio(revision: str, other: Measured, now: Measured) -> dict[str, Any]:
    seconds, cpu, peak = (
        getattr(now, name) / getattr(other, name) for name in ("seconds", "cpu_seconds", "peak_bytes")
    )
    return {
        "revision": revision, "seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak,
        "words": f"x {revision}: wall {seconds:.2f} cpu {cpu:.2f} peak {peak:.2f}",
    }  # fmt: skip


def _sources(revision: str, folder: Path) -> Path:
    """The files of a revision, in a folder of their own."""
    place = folder / "sources"
    place.mkdir()
    archive = subprocess.run(["git", "archive", revision, "heapdump"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(place)], input=archive, check=True)
    return place


def _write(rows: list[dict[str, Any]], base: Measured) -> None:
    """Writes `bench/COMMIT.json`; `-dirty` where files differ from the commit."""
    commit = _git("rev-parse", "--short", "HEAD") + ("-dirty" if _git("status", "--porcelain") else "")
    path = ROOT / "bench" / f"{commit}.json"
    path.parent.mkdir(exist_ok=True)
    document = {
        "commit": commit, "date": datetime.now(UTC).isoformat(timespec="seconds"), "system": platform.platform(),
        "processor": platform.processor() or platform.machine(), "processors": os.cpu_count(),
        "python": platform.python_version(), "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "import_numpy_cpu_seconds": base.cpu_seconds, "rows": rows,
    }  # fmt: skip
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\n{path}")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
