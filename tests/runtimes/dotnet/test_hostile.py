"""Damaged structures of a CLR: no traceback, no endless walk, no type that an exact name gets wrong."""

from __future__ import annotations

import random
import time

import pytest

from tests.builders.clr import LOADER, Release
from tests.runtimes.dotnet.plans import RELEASES, plan

_SEEDS, _SECONDS = 12, 10


@pytest.mark.hostile
@pytest.mark.parametrize("seed", range(_SEEDS))
@pytest.mark.parametrize("release", RELEASES)
def test_changed_bytes_of_the_runtime_are_survived(release: Release, seed: int, open_built):
    made = plan(release)
    data = bytearray(made.clr.build().data)
    rng = random.Random(f"{release}/{seed}")
    loader = data.find(bytes(made.clr.loader))
    assert loader > 0
    used = len(made.clr.loader.rstrip(b"\0"))
    for _ in range(rng.choice((1, 4, 30, 300))):
        data[loader + 0x1000 + rng.randrange(used - 0x1000)] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
    start = time.monotonic()
    with open_built(bytes(data)) as snapshot:
        for clr in snapshot.runtimes:
            clr.code()
            clr.owners()
            for address, (type_, *_) in made.methods.items():
                found = clr.code_at(address + 1)
                if found is not None and found.trust == "exact" and found.type is not None:
                    assert found.type.partition("<")[0] in {
                        kind.partition("<")[0] for kind in (type_ or "", "DynamicClass")
                    }
            if clr.heap is not None:
                clr.heap.types()
                clr.heap.rows()
                for address in made.objects:
                    found_object = clr.heap.object_at(address)
                    if found_object is not None:
                        clr.heap.text_of(found_object)
                        clr.heap.field_at(found_object, address + 8)
    assert time.monotonic() - start < _SECONDS


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
