"""A dump whose only heap has 1 GiB of blocks, about 9 million of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.builders import NtHeapBuilder, ProcessBuilder

BASE = 0x28A00000000
MANY = 256  # entries between two free ones
_LONGEST = 208


def write_big_dump(path: Path, segment_bytes: int, total_bytes: int = 1 << 30, seed: int = 7) -> tuple[int, int]:
    """Writes the dump; (blocks in it, bytes of the file). Segments fill up with requests of 8 to 208 bytes.

    One block in 256 is free.
    """
    random = np.random.default_rng(seed)
    heap = NtHeapBuilder(base=BASE, reserve=segment_bytes)
    blocks, room = 0, segment_bytes - 0x4000
    for number in range(total_bytes // segment_bytes):
        if number:
            heap.segment(BASE + number * segment_bytes, segment_bytes)
        left = room
        while left > MANY * (_LONGEST + 16) + 0x100:
            sizes = random.integers(8, _LONGEST, MANY)
            heap.many(sizes)
            heap.free(2 + int(random.integers(8)))
            left -= int((np.maximum(2, (sizes + 23) // 16) * 16).sum()) + 160
            blocks += MANY + 1
    ProcessBuilder(build=19041).heap(heap.build()).write(path)
    return blocks, path.stat().st_size
