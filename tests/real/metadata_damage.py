"""Random damage to the metadata of a recorded heap, one after the other, and the count of what each does to the answer.

In: a dump, and what lists the places of its metadata. Out: a `Tally`. The tests of both kinds of heap use it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from heapdump.snapshot import Snapshot, open_dump
from tests.heaps.nt.damage import NEW, Place, Tally, compare, program_blocks
from tests.real.test_fuzz_check import Patched

ROUNDS = int(os.environ.get("HEAPDUMP_FUZZ", "1"))
"""`make fuzz` sets more."""

_A_ROUND = 10
"""Damages of a dump in a round."""

Places = Callable[[Snapshot, random.Random, int], list[Place]]
"""(snapshot, draw, number) → so many places of metadata."""

IsWitnessed = Callable[[Place, bytes, bytes], bool]
"""(place, old bytes, new bytes) → whether anything else in the heap tells that they were changed."""


@dataclass(frozen=True)
class Change:
    """Bytes of metadata that are overwritten: what they are, where, the old and the new ones."""

    place: Place
    address: int
    old: bytes
    new: bytes

    def __str__(self) -> str:
        start = self.address - self.place.address
        return f"{self.place.what}+{start:#x} at {self.address:#x} = {self.old.hex()} -> {self.new.hex()}"


def drawn_change(draw: random.Random, place: Place, old: bytes) -> Change:
    """One bit flipped, or up to eight bytes that are zeros, ones, text or anything; `old`: the bytes of the place."""
    start = draw.randrange(place.length)
    flipped = bytes([old[start] ^ 1 << draw.randrange(8)])
    others = draw.choice((*NEW, draw.randbytes(8)))[: min(draw.choice((1, 2, 4, 8)), place.length - start)]
    new = draw.choice((flipped, others))
    return Change(place, place.address + start, old[start : start + len(new)], new)


def tally_of_damages(
    path: Path, name: str, places: Places, target: Path, is_witnessed: IsWitnessed = lambda *_: True
) -> Tally:
    """What the damages of all rounds do, each alone in the dump at `path`; `name`: seeds the draw; `target`: a file."""
    draw, tally = random.Random(f"{name} {ROUNDS}"), Tally()
    with open_dump(path, use_index=False) as snapshot:
        known, chosen = program_blocks(snapshot), places(snapshot, draw, _A_ROUND * ROUNDS)
        patched, space = Patched(path, snapshot.process), snapshot.process.space
        changes = [drawn_change(draw, place, space.read(place.address, place.length)) for place in chosen]
    for change in changes:
        if change.new == change.old or not is_witnessed(change.place, change.old, change.new):
            continue
        patched.write(target, change.address, change.new)
        with open_dump(target, use_index=False) as snapshot:
            touched = range(change.address, change.address + len(change.new))
            compare(tally, str(change), snapshot, known, touched, needs_gap=True)
    return tally
