"""Times `summary` on a sparse dump of 12 GB with 20,000 memory ranges, and `--help`: `make bench`.

Prints seconds and peak memory of fresh processes (warm file cache, the best of some runs), and the ratio to a Python
that only imports numpy, measured in the same run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.processes import TOOL, measure
from tests.builders import NtHeapBuilder, ProcessBuilder

_HEAP = 0x28A65B00000
_LARGE = 0x30000000000
_PRIVATE = 0x40000000000
_LARGE_BLOCKS = 8_000
_PRIVATE_RANGES = 12_000


def write_sparse_dump(path: Path) -> int:
    """Writes the dump; its size in bytes. Almost all of it is a hole in the file."""
    process = ProcessBuilder(build=19041)
    heap = NtHeapBuilder(base=_HEAP, flags=0x2)
    for size in (24, 100, 4000):
        heap.busy(size)
    for i in range(_LARGE_BLOCKS):
        heap.virtual(_LARGE + i * 0x200000, 1_400_000)
    process.heap(heap.build())
    for i in range(_PRIVATE_RANGES):
        base = _PRIVATE + i * 0x40000
        process.region(base, 0x10000)
        process.zeros(base, 0x10000)
    process.write(path)
    return path.stat().st_size


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "sparse.dmp"
        size = write_sparse_dump(dump)
        found = json.loads(
            subprocess.run([*TOOL, "summary", str(dump), "--json"], capture_output=True, check=True).stdout
        )
        ranges = next(row["bytes"] for row in found["data"]["state"] if row["name"] == "MEM_COMMIT")
        print(
            f"sparse dump: {size / 1e9:.1f} GB, {ranges / 1e9:.1f} GB committed, {_LARGE_BLOCKS + _PRIVATE_RANGES:,} ranges and more"
        )
        base = measure([sys.executable, "-c", "import numpy"])
        rows = {
            "python -c 'import numpy'": base,
            "heapdump --help": measure([*TOOL, "--help"]),
            "heapdump summary (12 GB)": measure([*TOOL, "summary", str(dump)]),
            "heapdump summary --json": measure([*TOOL, "summary", str(dump), "--json"]),
            "heapdump heaps": measure([*TOOL, "heaps", str(dump)]),
            "heapdump regions --format csv": measure([*TOOL, "regions", str(dump), "--format", "csv"]),
        }
    print(f"{'':32}{'seconds':>10}{'x numpy':>10}{'peak MB':>10}")
    for name, row in rows.items():
        print(f"{name:32}{row.seconds:10.3f}{row.seconds / base.seconds:10.1f}{row.peak_bytes / 1e6:10.0f}")


if __name__ == "__main__":
    main()
