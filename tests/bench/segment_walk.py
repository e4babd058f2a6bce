"""Times the walk of a segment heap of 1 GiB, written by the builder: `python -m tests.bench.segment_walk`.

Half of its segments hold LFH blocks, half VS chunks. Blocks a second after compilation, on one thread, and the ratio to
`numpy.sum` over the same bytes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import heapdump
from heapdump.heaps.walk import walk_heaps
from tests.bench.processes import best
from tests.builders import ProcessBuilder, SegmentHeapBuilder

BASE = 0x20000000000
_MiB = 1 << 20


def write_big_segment_heap(path: Path, segments: int = 1024, seed: int = 3) -> int:
    """Writes the dump; its bytes. LFH blocks of 32 to 256 bytes in pages, chunks of up to 200 bytes in 64 KiB."""
    random = np.random.default_rng(seed)
    heap = SegmentHeapBuilder(base=BASE, seed=seed)
    for number in range(segments):
        heap.segment(BASE + (number + 4) * _MiB)
        if number % 2:
            for _ in range(14):
                heap.chunks(random.integers(0, 200, 480))
        else:
            for _ in range(250):
                block = 16 * int(random.integers(2, 17))
                asked = random.integers(block - 15, block + 1, heap.most_lfh_blocks(block, 1))
                asked[random.random(len(asked)) < 0.2] = -1
                heap.lfh_blocks(block, asked)
    return heap.build().add_to(ProcessBuilder(build=19041)).write(path).size


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "segment.dmp"
        size = write_big_segment_heap(path)
        with heapdump.open_dump(path, use_index=False) as snapshot:
            process, heaps = snapshot.process, snapshot.heaps

            def walk() -> int:
                """Once; its rows."""
                return len(walk_heaps(process, heaps, lambda done, total: None, 1).table)

            rows = walk()  # compiles
            words = np.memmap(path, np.uint8, "r")[: size // 8 * 8].view(np.uint64)
            base, seconds = best(words.sum), best(walk)
    print(
        f"{rows:,} rows in {size / 1e6:,.0f} MB: {seconds:.2f} s, {rows / seconds / 1e6:.1f} M blocks/s, {seconds / base:.1f} x numpy.sum"
    )


if __name__ == "__main__":
    main()
