"""Times `diff` of two dumps with 8 million blocks each beside the walks alone, in fresh processes: `make bench`.

The commands run once before, so that compiled code comes from numba's cache. `info` and `heaps` open a dump; `heaps`
walks it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.bench.big_heap import write_big_dump
from tests.bench.processes import TOOL, measure

_BYTES = 890 << 20
"""Bytes of heap with some 8 million blocks."""


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HEAPDUMP_CACHE"] = str(Path(folder) / "index")
        dumps = [str(Path(folder) / name) for name in ("old.dmp", "new.dmp")]
        for seed, path in enumerate(dumps):
            blocks, size = write_big_dump(Path(path), 1 << 20, _BYTES, seed)
            print(f"{blocks:,} blocks in {size / 1e6:,.0f} MB", flush=True)
        walks = [measure([*TOOL, "heaps", path, "--no-cache"], 3) for path in dumps]
        walk = sum(one.seconds for one in walks)
        print(f"{'two walks (heaps --no-cache, each)':44}{walk:8.2f} s, peak {walks[0].peak_bytes / 1e6:,.0f} MB")
        for by in ("size", "heap", "type"):
            diff = [*TOOL, "diff", *dumps, "--group-by", by]
            measure([*diff, "--no-cache"], 1)  # compiles
            cold = measure([*diff, "--no-cache"], 3)
            measure(diff, 1)  # writes the index
            warm = measure(diff, 3)
            for words, row in ((f"diff by {by}, without an index", cold), (f"diff by {by}, from the index", warm)):
                print(f"{words:44}{row.seconds:8.2f} s, peak {row.peak_bytes / 1e6:,.0f} MB", flush=True)


if __name__ == "__main__":
    main()
