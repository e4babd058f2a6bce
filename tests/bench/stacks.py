"""Times grouping 10 million blocks by 50,000 stacks, and naming 50,000 frames in 100 modules: `make bench`."""

from __future__ import annotations

import struct
import tempfile
import time
from pathlib import Path

import numpy as np

import heapdump
from heapdump.analyses.allocated.groups import dense, group
from heapdump.blocks.table import BlockTable
from heapdump.kernels.row import BUSY
from tests.builders import ProcessBuilder
from tests.patching import poke
from tests.process.symbols.test_namer import directories

_ROWS, _STACKS = 10_000_000, 50_000
_MODULES, _EXPORTS = 100, 500
_BASE, _STEP, _SIZE = 0x180000000, 0x100000, 0x40000
_EXPORT_AT = 0x20000


def main() -> None:
    """Prints two lines."""
    _grouping()
    _naming()


def _grouping() -> None:
    random = np.random.default_rng(1)
    numbers = (0x5000000 + random.integers(0, _STACKS, _ROWS) * 160).astype(np.uint64)
    table = BlockTable(
        np.arange(_ROWS, dtype=np.uint64) * np.uint64(64), np.full(_ROWS, 8, np.uint32),
        random.integers(8, 32, _ROWS).astype(np.uint32), np.full(_ROWS, 2, np.uint8), np.zeros(_ROWS, np.uint16),
        np.full(_ROWS, BUSY, np.uint16),
    )  # fmt: skip
    rows, seconds = np.arange(_ROWS), []
    for _ in range(4):  # the first one compiles
        start = time.perf_counter()
        groups = group(table, rows, *dense(numbers))
        seconds.append(time.perf_counter() - start)
    print(f"\ngrouping {_ROWS:,} blocks into {len(groups):,} stacks, their numbers read: {min(seconds):.2f} s")


def _exports() -> bytes:
    """An export table of _EXPORTS names, with everything that it points at."""
    data = bytearray(0x10000)
    at = {name: 0x100 + i * 4 * _EXPORTS for i, name in enumerate(("functions", "names", "ordinals", "pool"))}
    struct.pack_into(
        "<6I",
        data,
        0x10,
        1,
        _EXPORTS,
        _EXPORTS,
        *(_EXPORT_AT + at[name] for name in ("functions", "names", "ordinals")),
    )
    for i in range(_EXPORTS):
        text = f"function{i:05}".encode() + b"\0"
        place = at["pool"] + 16 * i
        struct.pack_into("<I", data, at["functions"] + 4 * i, 0x1000 + 64 * i)
        struct.pack_into("<I", data, at["names"] + 4 * i, _EXPORT_AT + place)
        struct.pack_into("<H", data, at["ordinals"] + 2 * i, i)
        data[place : place + len(text)] = text
    return bytes(data)


def _naming() -> None:
    process, content = ProcessBuilder(), _exports()
    bases = [_BASE + i * _STEP for i in range(_MODULES)]
    for i, base in enumerate(bases):
        process.module(base, _SIZE, rf"C:\app\module{i}.dll").memory(base + _EXPORT_AT, content)
    tables = struct.pack("<2I", _EXPORT_AT, len(content))
    built = poke(process.build(), *((base + directories("x64"), tables) for base in bases))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "modules.dmp"
        path.write_bytes(built.data)
        with heapdump.open_dump(path) as snapshot:
            namer = snapshot.namer()
            start = time.perf_counter()
            named = sum(
                namer.frame(base + 0x1001 + 64 * i).symbol is not None for base in bases for i in range(_EXPORTS)
            )
            seconds = time.perf_counter() - start
    print(f"naming {_MODULES * _EXPORTS:,} frames in {_MODULES} modules by exports: {seconds:.2f} s, {named:,} named")


if __name__ == "__main__":
    main()
