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
_SUBSEGMENT, _LFH_SEGMENTS = 400, 200
_GRAPH = 4_000_000
_DAMAGED_SEGMENTS, _DAMAGED_BLOCKS = 8, 80_000
_PAGE_BLOCKS = 1_100  # nodes that the builder has room for


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


def lfh(path: Path) -> Truth:
    """An NT heap of LFH subsegments with 400 blocks each, a fifth of them free."""
    random = np.random.default_rng(5)
    heap = NtHeapBuilder(base=_LFH_BASE, reserve=_LFH_SEGMENT, front_end="lfh", flags=0x1002)
    busy, left, segment = 0, _LFH_SEGMENT - 0x20000, 0
    for _ in range(2_000):
        asked = np.where(random.random(_SUBSEGMENT) < 0.2, -1, random.integers(33, 48, _SUBSEGMENT))
        if left < 2 * _SUBSEGMENT * 64:
            segment += 1
            heap.segment(_LFH_BASE + segment * (_LFH_SEGMENT + 0x100000), _LFH_SEGMENT)
            left = _LFH_SEGMENT - 0x20000
        heap.subsegment(4, asked.tolist())
        left -= _SUBSEGMENT * 64 + 0x100
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
    """A page heap of 1,100 blocks, as many nodes."""
    heap = PageHeapBuilder(0x1000000, reserve=0x2000000)
    for i in range(_PAGE_BLOCKS):
        heap.block(40 + i % 900, state="freed" if i % 5 == 0 else "busy")
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
    return {"damaged": len(headers), "busy": _DAMAGED_SEGMENTS * _DAMAGED_BLOCKS}


DUMPS: dict[str, Callable[[Path], Truth]] = {
    make.__name__: make
    for make in (small, backend, backend_40m, graph, lfh, segment_lfh, page_heap, damaged, damaged_often)
}

if __name__ == "__main__":
    print(json.dumps(DUMPS[sys.argv[1]](Path(sys.argv[2]))))
