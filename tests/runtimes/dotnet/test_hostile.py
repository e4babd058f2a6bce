"""Damaged structures of a CLR: no traceback, no endless walk, no type that an exact name gets wrong."""

from __future__ import annotations

import random
import time

import pytest

from tests.builders.clr import LOADER, Release
from tests.runtimes.dotnet.plans import RELEASES, plan

_SEEDS, _SECONDS = 12, 10


def _any(rng: random.Random) -> bytes:
    return rng.randbytes(8)


def _near(rng: random.Random) -> bytes:
    """A pointer into the loader heap, at a multiple of 8."""
    return (LOADER + 0x1000 + 8 * rng.randrange(0x400)).to_bytes(8, "little")


@pytest.mark.hostile
@pytest.mark.parametrize("seed", range(_SEEDS))
@pytest.mark.parametrize("release", RELEASES)
def test_changed_bytes_of_the_runtime_are_survived(release: Release, seed: int, open_built):
    made = plan(release)
    data = bytearray(made.clr.build().data)
    rng = random.Random(f"{release}/{seed}")
    piece = bytes((made.clr.loader, made.clr.code, made.clr.clr)[seed % 3])
    start = data.find(piece)
    assert start > 0
    used = [i for i in range(0, len(piece), 8) if piece[i : i + 8].strip(b"\0\xcc")]
    for _ in range(rng.choice((1, 4, 30, 300))):
        at = start + rng.choice(used)
        data[at : at + 8] = rng.choice((_any(rng), bytes(8), b"\xff" * 8, _near(rng)))
    began = time.process_time()
    with open_built(bytes(data)) as snapshot:
        for clr in snapshot.runtimes:
            clr.code()
            clr.owners()
            for address, (type_, name, *_) in made.methods.items():
                found = clr.code_at(address + 1)
                if found is not None and found.trust == "exact" and found.method is not None:
                    assert (found.type, found.method) == (type_, name)
                clr.unwind_at(address + 1)
            if clr.heap is not None:
                clr.heap.types()
                clr.heap.rows()
                for address in made.objects:
                    found_object = clr.heap.object_at(address)
                    if found_object is not None:
                        clr.heap.text_of(found_object)
                        clr.heap.field_at(found_object, address + 8)
    assert time.process_time() - began < _SECONDS


@pytest.mark.hostile
@pytest.mark.parametrize("release", RELEASES)
def test_lists_that_run_in_circles_end(release: Release, open_built):
    made = plan(release)
    clr, p = made.clr, made.clr.p
    data = bytearray(clr.build().data)
    loader = data.find(bytes(clr.loader))
    for segment in clr.segments:  # each leads to the first one
        at = loader + segment - LOADER + 6 * p
        data[at : at + p] = clr.segments[0].to_bytes(p, "little")
    with open_built(bytes(data)) as snapshot:
        (found,) = snapshot.runtimes
        assert found.heap is not None
        assert sum(row.objects for row in found.heap.rows()) == len(made.objects)
