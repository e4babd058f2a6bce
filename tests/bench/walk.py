"""Times the block walk on a heap of 1 GiB, written by the builder: `make bench`.

Blocks a second after compilation on one thread and on two; `heaps` from process start: cold, from the index, and on a
small dump. Ratios to `numpy.sum` over the same bytes, measured in the same run. What needs much memory runs in processes
of its own: a child's peak memory begins with its parent's.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

import heapdump
from heapdump.heaps.walk import walk_heaps
from tests.bench.big_heap import write_big_dump
from tests.bench.processes import TOOL, best, measure

T = TypeVar("T")
_SEGMENTS = {"1 MB segments": 1 << 20, "15.9 MB segments": 254 << 16}  # an entry's segment number has one byte


def main() -> None:
    """Prints the tables."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HEAPDUMP_CACHE"] = str(Path(folder) / "index")
        for name, size in _SEGMENTS.items():
            dump = Path(folder) / f"{size}.dmp"
            blocks, _ = _apart(write_big_dump, dump, size)
            assert blocks == (found := _apart(_walks, name, dump)), f"{found:,} of {blocks:,} blocks"
            _commands(dump, blocks)
            dump.unlink()
        small = Path(folder) / "small.dmp"
        blocks, _ = _apart(write_big_dump, small, 1 << 20, 24 << 20)
        row = measure([*TOOL, "heaps", str(small), "--no-cache"])
        print(f"\nsmall dump, {blocks:,} blocks: heaps {row.seconds:.2f} s, peak {row.peak_bytes / 1e6:.0f} MB")


def _apart(work: Callable[..., T], *arguments: object) -> T:
    """Does the work in a process of its own; its result."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _walks(name: str, dump: Path) -> int:
    """Times walks in this process; the number of the program's blocks."""
    with heapdump.open_dump(dump) as snapshot:
        process, heaps = snapshot.process, snapshot.heaps
        table = walk_heaps(process, heaps, lambda done, total: None).table  # compiles
        blocks = int(np.count_nonzero(~table.is_internal))
        del table
        words = np.memmap(dump, np.uint8, "r")[: dump.stat().st_size // 8 * 8].view(np.uint64)
        base = best(lambda: words.sum())
        both = best(lambda: _on_two_threads(words))
        one, two = (best(partial(walk_heaps, process, heaps, lambda done, total: None, threads)) for threads in (1, 2))
    print(f"\n{name}: {blocks:,} blocks in {dump.stat().st_size / 1e6:,.0f} MB")
    print(f"{'':24}{'seconds':>10}{'M blocks/s':>12}{'x numpy.sum':>13}")
    rows = (
        ("numpy.sum", base),
        ("numpy.sum, two threads", both),
        ("walk, one thread", one),
        ("walk, two threads", two),
    )
    for what, seconds in rows:
        rate = "" if what.startswith("numpy") else f"{blocks / seconds / 1e6:.1f}"
        print(f"{what:24}{seconds:10.3f}{rate:>12}{seconds / base:13.1f}")
    print(
        f"two threads: walk {one / two:.2f} times as fast as on one, numpy.sum (this machine's memory) {base / both:.2f}",
        flush=True,
    )
    return blocks


def _on_two_threads(words: NDArray[np.uint64]) -> None:
    middle = len(words) // 2
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(np.sum, (words[:middle], words[middle:])))


def _commands(dump: Path, blocks: int) -> None:
    subprocess.run([*TOOL, "heaps", str(dump)], check=True, capture_output=True)  # writes the index
    rows = {
        "heaps --no-cache": measure([*TOOL, "heaps", str(dump), "--no-cache"]),
        "heaps, from the index": measure([*TOOL, "heaps", str(dump)]),
        "blocks --stat, from the index": measure([*TOOL, "blocks", str(dump), "--stat"]),
    }
    for what, row in rows.items():
        over = (row.peak_bytes - 150e6) / blocks
        print(
            f"{what:24}{row.seconds:10.2f} s, peak {row.peak_bytes / 1e6:.0f} MB (150 MB + {max(0.0, over):.1f} bytes a block)"
        )


if __name__ == "__main__":
    main()
