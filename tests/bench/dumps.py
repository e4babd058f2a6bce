"""The dumps of the benches, by name; each is written once, by `python -m tests.bench.dumps NAME FILE`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.bench.big_heap import BASE, MANY, write_big_dump
from tests.bench.graph import write_graph_dump
from tests.builders import NtHeapBuilder, ProcessBuilder, SegmentHeapBuilder
from tests.builders.page_heap import PageHeapBuilder
from tests.patching import poke

Truth = dict[str, int]
_SEGMENT = 254 << 16
_LFH_BASE, _LFH_SEGMENT = 0x20000000000, 0xF00000
_LFH_SEGMENTS = 200
_GRAPH = 4_000_000
_DAMAGED_SEGMENTS, _DAMAGED_BLOCKS = 8, 80_000
_PAGE_BLOCKS = 300_000


def small(path: Path) -> Truth:
    """A heap of 100,000 blocks."""
    return _of_big(path, 1 << 20, 12 << 20)


def backend(path: Path) -> Truth:
    """A heap of 512 MB, 4 million blocks of the back end."""
    return _of_big(path, _SEGMENT, 512 << 20)


def backend_40m(path: Path) -> Truth:
    """A heap of 5 GB, 40 million blocks; the builder needs 11 GB of memory."""
    return _of_big(path, _SEGMENT, 5 << 30)


def _of_big(path: Path, segment_bytes: int, total_bytes: int) -> Truth:
    """A big dump; nothing in it points to a block."""
    blocks = write_big_dump(path, segment_bytes, total_bytes)[0]
    busy = blocks - blocks // (MANY + 1)
    return {"blocks": blocks, "busy": busy, "unreachable": busy, "held": 0}


def graph(path: Path) -> Truth:
    """4 million blocks, of which a global holds 80 % as a tree."""
    write_graph_dump(path, _GRAPH, 112, tree=True)
    return {"blocks": _GRAPH, "unreachable": _GRAPH - int(_GRAPH * 0.8), "held": int(_GRAPH * 0.8)}


def lfh_100(path: Path) -> Truth:
    """An NT heap of LFH subsegments with 100 blocks each, a fifth of them free."""
    return _of_lfh(path, 100, 40_000)


def lfh_1000(path: Path) -> Truth:
    """Likewise with 1,000 blocks each."""
    return _of_lfh(path, 1_000, 4_000)


def _of_lfh(path: Path, blocks: int, subsegments: int) -> Truth:
    """An NT heap of LFH subsegments; blocks of 32 bytes and a header."""
    random = np.random.default_rng(5)
    heap = NtHeapBuilder(base=_LFH_BASE, reserve=_LFH_SEGMENT, front_end="lfh", flags=0x1002)
    busy, left, segment = 0, _LFH_SEGMENT - 0x20000, 0
    for _ in range(subsegments):
        asked = np.where(random.random(blocks) < 0.2, -1, random.integers(17, 32, blocks))
        if left < 2 * blocks * 48:
            segment += 1
            heap.segment(_LFH_BASE + segment * (_LFH_SEGMENT + 0x100000), _LFH_SEGMENT)
            left = _LFH_SEGMENT - 0x20000
        heap.subsegment(3, asked.tolist())
        left -= blocks * 48 + 0x100
        busy += int((asked >= 0).sum())
    ProcessBuilder(build=19041).heap(heap.build()).write(path)
    return {"busy": busy}


def segment_lfh(path: Path) -> Truth:
    """A segment heap of LFH subsegments of one page each, a fifth of their blocks free."""
    random, base, megabyte = np.random.default_rng(3), 0x20000000000, 1 << 20
    heap, busy = SegmentHeapBuilder(base=base, seed=3), 0
    for number in range(_LFH_SEGMENTS):
        heap.segment(base + (number + 4) * megabyte)
        for _ in range(250):
            block = 16 * int(random.integers(2, 17))
            asked = random.integers(block - 15, block + 1, heap.most_lfh_blocks(block, 1))
            asked[random.random(len(asked)) < 0.2] = -1
            heap.lfh_blocks(block, asked)
            busy += int((asked >= 0).sum())
    heap.build().add_to(ProcessBuilder(build=19041)).write(path)
    return {"busy": busy}


def page_heap(path: Path) -> Truth:
    """A page heap of 300,000 blocks, as many nodes; the pages of the blocks are not in the dump."""
    room = -(-(_PAGE_BLOCKS + 1) * 0x68 // 0x1000) * 0x1000 + 0x20000
    heap = PageHeapBuilder(_LFH_BASE, reserve=_PAGE_BLOCKS * 0x2000 + room, room=room)
    for i in range(_PAGE_BLOCKS):
        heap.block(40 + i % 900, is_in_dump=False)
    ProcessBuilder(build=19041).heap(heap.build()).write(path)
    return {"blocks": _PAGE_BLOCKS}


def damaged(path: Path) -> Truth:
    """A heap of 100,000 blocks, every tenth of which wrote 8 bytes behind its end: as many as one walk keeps."""
    heap = NtHeapBuilder(base=BASE, reserve=1 << 24)
    sizes = np.full(100_000, 88)
    first = heap.many(sizes)
    built = ProcessBuilder(build=19041).heap(heap.build()).build()
    step, every = 96, 10
    headers = [first + step * i + 8 for i in range(every, len(sizes), every)]
    path.write_bytes(poke(built, *((at, b"AAAAAAAA") for at in headers)).data)
    return {"damaged": len(headers), "busy": len(sizes)}


def damaged_often(path: Path) -> Truth:
    """A heap of 640,000 blocks, every tenth of which wrote 8 bytes behind its end."""
    heap, step, every = NtHeapBuilder(base=BASE, reserve=_SEGMENT), 96, 10
    headers = list[tuple[int, bytes]]()
    for number in range(_DAMAGED_SEGMENTS):
        if number:
            heap.segment(BASE + number * _SEGMENT, _SEGMENT)
        first = heap.many(np.full(_DAMAGED_BLOCKS, 88)) + 8
        headers += [(first + step * i, b"AAAAAAAA") for i in range(every, _DAMAGED_BLOCKS, every)]
    built = ProcessBuilder(build=19041).heap(heap.build()).build()
    path.write_bytes(poke(built, *headers).data)
    return {"kept": 10_000, "busy": _DAMAGED_SEGMENTS * _DAMAGED_BLOCKS}


DUMPS: dict[str, Callable[[Path], Truth]] = {
    make.__name__: make
    for make in (small, backend, backend_40m, graph, lfh_100, lfh_1000, segment_lfh, page_heap, damaged, damaged_often)
}

if __name__ == "__main__":
    print(json.dumps(DUMPS[sys.argv[1]](Path(sys.argv[2]))))
