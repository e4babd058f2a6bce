"""Overwritten metadata of recorded healthy heaps: found where it is; overwritten user data: never reported."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from heapdump.blocks.kind import BlockKind
from heapdump.process.model import Process
from heapdump.snapshot import Snapshot, open_dump
from heapdump.spans import Span

pytestmark = pytest.mark.real
ROUNDS = int(os.environ.get("HEAPDUMP_FUZZ", "1"))
"""`make fuzz` sets more."""

HEAPS = [
    ("19041.508", "basic"), ("19041.508", "lfh"), ("2600.5512", "basic"), ("7601.17514", "lfh"), ("19041.804-x86", "basic"),
    ("26100.4061", "tailcheck"), ("19041.508", "pageheap-light"), ("26100.4061", "segment"),
]  # fmt: skip


class Patched:
    """A dump's file with bytes that are changed and put back."""

    def __init__(self, path: Path, process: Process) -> None:
        self._mapped = process.space.mapped
        self._data = bytearray(path.read_bytes())

    def place(self, address: int) -> int:
        """The file offset of an address."""
        word = address & ~7
        offset = self._mapped.file_place(Span(word, word + 8))
        assert offset is not None
        return offset + address - word

    def write(self, target: Path, address: int, data: bytes) -> None:
        """The dump with these bytes there, as a file."""
        at = self.place(address)
        changed = bytearray(self._data)
        changed[at : at + len(data)] = data
        target.write_bytes(changed)


def metadata(snapshot: Snapshot, rng: random.Random, count: int) -> list[tuple[int, str]]:
    """Addresses of bytes that the heaps verify, and what they are."""
    table, out = snapshot.walk.table, []
    for _ in range(count * 4):
        block = table.block(rng.randrange(len(table)))
        heap = snapshot.heaps[block.heap]
        view = snapshot.view_of(heap)
        old = heap.layout is not None and "2600" in heap.layout
        wide = 8 if view.pointer_bytes == 8 else 0
        if block.is_internal:
            continue
        if block.kind is BlockKind.BACKEND and heap.segments:
            # before Vista flags and unused bytes of a header are verified by nothing
            out.append(
                (block.entry + wide + rng.choice((0, 1, 2, 3, 7) if old else (0, 1, 2, 3, 4, 5, 6)), "entry header")
            )
        elif block.kind is BlockKind.LFH and heap.kind == "nt":
            out.append((block.entry + wide + rng.randrange(4), "LFH header"))
        elif block.kind is BlockKind.VS:
            # bytes 2 to 5 of the first word are the chunk's size and that of the one before
            out.append((block.entry + rng.choice((2, 3, 4, 5)), "chunk header"))
        elif block.kind in (BlockKind.LIGHT, BlockKind.PAGE) and block.state == "busy" and block.size:
            out.append((rng.choice((block.entry + rng.randrange(4), block.address + block.size)), "page heap"))
        if block.kind is BlockKind.BACKEND and block.flags & 4 and block.state == "busy":
            out.append((block.address + block.size + rng.randrange(8), "tail fill"))
    return out[:count]


@pytest.mark.parametrize(("build", "scenario"), HEAPS)
def test_overwritten_metadata_is_found(recorded, tmp_path, build, scenario):
    path = recorded(f"oracle/{build}/{scenario}.dmp.xz")
    rng = random.Random(f"{build} {scenario} {ROUNDS}")
    missed: list[str] = []
    count = 12 * ROUNDS
    with open_dump(path, use_index=False) as snapshot:
        assert not [p for p in snapshot.explained_findings if p.finding.severity == "error"]
        patched, places = Patched(path, snapshot.process), metadata(snapshot, rng, count)
        old = {at: snapshot.process.space.read(at, 1)[0] for at, _ in places}
    for at, what in places:
        target = tmp_path / "x.dmp"
        patched.write(target, at, bytes([rng.choice([v for v in range(256) if v != old[at]])]))
        with open_dump(target, use_index=False) as snapshot:
            found = [p.finding for p in snapshot.explained_findings]
            if not any(f.address <= at < f.address + max(f.length, 1) for f in found):
                missed.append(f"{what} {at:#x}: {[(f.kind, hex(f.address)) for f in found]}")
    assert len(missed) <= 0.05 * len(places), missed


@pytest.mark.parametrize(("build", "scenario"), HEAPS)
def test_overwritten_user_data_is_never_reported(recorded, tmp_path, build, scenario):
    path = recorded(f"oracle/{build}/{scenario}.dmp.xz")
    rng = random.Random(f"{build} {scenario}")
    data = bytearray(path.read_bytes())
    with open_dump(path, use_index=False) as snapshot:
        patched, table = Patched(path, snapshot.process), snapshot.walk.table
        rows = np.flatnonzero(table.is_busy & ~table.is_internal)
        for row in rng.sample(rows.tolist(), min(400, len(rows))):
            block = table.block(row)
            if block.size and snapshot.process.space.try_read(block.address, block.size) is not None:
                at = patched.place(block.address)
                size = min(block.size, 64)
                data[at : at + size] = rng.randbytes(size)
    target = tmp_path / "x.dmp"
    target.write_bytes(data)
    with open_dump(target, use_index=False) as snapshot:
        assert not [p.finding for p in snapshot.explained_findings if p.finding.severity == "error"]
