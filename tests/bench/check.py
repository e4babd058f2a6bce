"""Times `check` beside the walk on a heap of 1 GiB, written by the builder: `make bench`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import heapdump
from tests.bench.big_heap import write_big_dump

_RUNS = 5


def main() -> None:
    """Prints the best of some runs, after compilation."""
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "big.dmp"
        write_big_dump(dump, 1 << 20)
        walks, checks, rows = [], [], 0
        for _ in range(_RUNS + 1):
            with heapdump.open_dump(dump, use_index=False) as snapshot:
                assert snapshot.heaps
                start = time.perf_counter()
                rows = len(snapshot.walk.table)
                middle = time.perf_counter()
                assert not snapshot.explained_findings
                walks.append(middle - start)
                checks.append(time.perf_counter() - middle)
        walk, check = min(walks[1:]), min(checks[1:])
        print(
            f"\ncheck, {rows:,} rows: walk {walk:.2f} s, examining {check:.2f} s, together {(walk + check) / walk:.1f} times the walk"
        )


if __name__ == "__main__":
    main()
