"""Times the pointer graph on generated heaps, in fresh processes: `make bench`.

8 million blocks with 1 GiB, 80 % of them linked to a tree that one global holds; a list of a million blocks; dominators of
ten million nodes. Compiled code comes from numba's cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.retained import retained_of
from heapdump.analyses.graph.roots import Area, RootKind, Roots
from heapdump.analyses.graph.sweep import Edges
from heapdump.spans import Span
from tests.bench.processes import TOOL, measure
from tests.builders import NtHeapBuilder, ProcessBuilder

_BASE, _SEGMENT = 0x28A00000000, 254 << 16
_MANY = 4096


def write_graph_dump(path: Path, blocks: int, size: int, tree: bool, linked: float = 0.8, seed: int = 3) -> None:
    """A heap of `blocks` blocks of `size` bytes; the first share of a random order of them is linked, the rest lost.

    `tree`: block i of that order points to 2i + 1 and 2i + 2; else to the next one. The program's data points to the first.
    """
    heap, starts, entry = NtHeapBuilder(base=_BASE, reserve=_SEGMENT), [], max(2, (size + 23) // 16) * 16
    segment, left = 0, _SEGMENT - 0x4000
    for first in range(0, blocks, _MANY):
        count = min(_MANY, blocks - first)
        if left < count * entry + 0x1000:
            segment += 1
            heap.segment(_BASE + segment * _SEGMENT, _SEGMENT)
            left = _SEGMENT - 0x4000
        starts.append(heap.many(np.full(count, size)) + 16 + entry * np.arange(count))
        left -= count * entry
    process = ProcessBuilder(build=19041).heap(heap.build())
    process.write(path)
    address = np.concatenate(starts).astype(np.uint64)
    if seed:
        address = np.random.default_rng(seed).permutation(address)
    held = int(blocks * linked)
    from heapdump.snapshot import open_dump

    with open_dump(path, use_index=False) as snapshot:
        space, data = snapshot.process.space, process.plan.exe + 0xC000 - 0x1000
        places = np.concatenate([address[:held], [np.uint64(data)]])
        i = np.searchsorted(space.mapped.starts, places, side="right") - 1
        at = (space.mapped.file_offsets[i] + (places - space.mapped.starts[i]).astype(np.int64)) // 8
        assert not ((space.mapped.file_offsets[i] - space.mapped.starts[i].astype(np.int64)) % 8).any()
    words = np.memmap(path, np.uint64, "r+", shape=path.stat().st_size // 8)
    words[at[-1]] = address[0]
    number = np.arange(held)
    for word, target in enumerate((2 * number + 1, 2 * number + 2) if tree else (number + 1,)):
        good = target < held
        words[at[:-1][good] + word] = address[target[good]]
    words.flush()


def main() -> None:
    """Prints the tables."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HEAPDUMP_CACHE"] = str(Path(folder) / "index")
        for name, count, size, tree in (
            ("8 M blocks, 80 % in a tree", 8_000_000, 112, True),
            ("a list of 1 M blocks", 1_000_000, 48, False),
        ):
            dump = Path(folder) / "graph.dmp"
            subprocess.run(
                [sys.executable, "-m", "tests.bench.graph", str(dump), str(count), str(size), str(int(tree))],
                check=True,
            )
            _commands(name, dump)
            dump.unlink()
    _dominators(10_000_000)


def _commands(name: str, dump: Path) -> None:
    print(f"\n{name}: {dump.stat().st_size / 1e6:,.0f} MB")
    leaks = [*TOOL, "leaks", str(dump), "--unreachable"]
    measure([*leaks, "--no-cache"], 1)  # compiles
    rows = {"leaks --unreachable --no-cache": measure([*leaks, "--no-cache"], 3)}
    subprocess.run(leaks, capture_output=True, check=True)  # writes the index
    rows["leaks --unreachable, from the index"] = measure(leaks, 3)
    rows["retained, walk and graph from the index"] = measure([*TOOL, "retained", str(dump)], 1)
    rows["retained, from the index"] = measure([*TOOL, "retained", str(dump)], 3)
    for what, row in rows.items():
        print(
            f"{what:44}{row.seconds:8.2f} s, {row.cpu_seconds:6.2f} CPU, peak {row.peak_bytes / 1e6:,.0f} MB, "
            f"{row.own_bytes / 1e6:,.0f} MB without pages of files",
            flush=True,
        )


def _dominators(nodes: int) -> None:
    random = np.random.default_rng(1)
    degree = np.full(nodes, 2, np.int32)
    targets = random.integers(0, nodes, 2 * nodes).astype(np.int32)
    targets[::2] = np.minimum(np.arange(nodes) * 2 + 1, nodes - 1)  # a tree, and as many edges across it
    roots = Roots((Area(Span(0x1000, 0x2000), RootKind.MODULE, 8),), (), ())
    start = 0x10000 + 64 * np.arange(nodes)
    graph = PointerGraph(
        np.arange(nodes, dtype=np.int32), start, np.full(nodes, 48), np.full(nodes, 8, np.uint8), Edges.of(degree, targets, 0), roots,
        Edges.of(np.array([1], np.int32), np.zeros(1, np.int32), 0), 0,
    )  # fmt: skip
    seconds = []
    for _ in range(2):  # the first one compiles
        begin = time.perf_counter()
        tree = retained_of(graph)
        seconds.append(time.perf_counter() - begin)
    print(
        f"\ndominators of {nodes:,} nodes, {len(targets):,} edges: {min(seconds):.1f} s; {int(tree.blocks[0]):,} reached"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write_graph_dump(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1")
    else:
        main()
