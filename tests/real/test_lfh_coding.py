"""The builder's layouts and codes of the LFH against recorded heaps, so that builder and reader share no mistake.

Nothing of heapdump but the address space is used: user blocks are found by their signature alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

import heapdump
from heapdump.memory.space import AddressSpace
from tests.builders.nt_heap_layout import HeapArch, heap_layout
from tests.builders.nt_heap_lfh_layout import SIGNATURE, LfhLayout, lfh_layout

RECORDED: list[tuple[str, HeapArch, int, int]] = [
    # dump, arch, build, least number of blocks
    ("oracle/2600.5512/lfh", "x86", 2600, 5000),
    ("oracle/7601.17514/lfh", "x64", 7601, 5000),
    ("real/win7sp1-wow64-fizzbuzz", "x86", 7601, 200),
    ("hard/9200.16578-x86/life", "x86", 9200, 2000),
    ("oracle/9600.16384/lfh", "x64", 9600, 5000),
    ("oracle/19041.804-x86/lfh", "x86", 19041, 5000),
    ("oracle/26100.4061/lfh", "x64", 26100, 5000),
]


@dataclass(frozen=True)
class Subsegment:
    """One that links back to its user blocks; `granules` of each of `count` blocks."""

    address: int
    user_blocks: int
    granules: int
    count: int
    free: int
    hint: int


def subsegments(space: AddressSpace, at: LfhLayout) -> Iterator[Subsegment]:
    for start, end in zip(space.mapped.starts.tolist(), space.mapped.ends.tolist(), strict=True):
        for found in re.finditer(SIGNATURE.to_bytes(4, "little"), space.read(start, end - start)):
            user = start + found.start() - at.signature
            address = space.try_integer(user, at.pointer) or 0
            if user % 8 == 0 and space.try_integer(address + at.user_blocks, at.pointer) == user:
                exchange = space.integer(address + at.exchange, 4)
                granules, count = (space.integer(address + place, 2) for place in (at.block_size, at.block_count))
                yield Subsegment(address, user, granules, count, exchange & 0xFFFF, exchange >> 16)


def key_of(space: AddressSpace, at: LfhLayout, heap: int, sub: Subsegment) -> int | None:
    """The key by the code of the first block, None where another block's code or the offsets say otherwise."""
    first, stride, key = at.first_offset(sub.count), sub.granules * at.granule, None
    for number in range(sub.count):
        entry = sub.user_blocks + first + number * stride
        word = space.read(entry + (8 if at.pointer == 8 else 0), 8)
        code = at.code(key=0, heap=heap, subsegment=sub.address, user_blocks=sub.user_blocks, entry=entry)
        solved = int.from_bytes(word[: at.code_bytes], "little") ^ int.from_bytes(code, "little")
        key = solved if key is None else key
        if solved != key or behind_code(at, word) != behind_code(at, rewritten(at, word, number)):
            return None
    if not at.bitmap or key is None:
        return key
    context = space.integer(heap + heap_layout("x64" if at.pointer == 8 else "x86", at.build).front_end, at.pointer)
    offsets = at.encoded_offsets(key=key, context=context, user_blocks=sub.user_blocks, first=first, stride=stride)
    return key if space.integer(sub.user_blocks + at.offsets, 4) == offsets else None


def rewritten(at: LfhLayout, word: bytes, number: int) -> bytes:
    """The header word that the builder writes for a block of the same code, state and count of unused bytes."""
    is_busy, unused = (word[5] & 1, word[6]) if at.is_classic else (word[7] & 0x3F, word[7] & 0x7F)
    return at.header_word(word[: at.code_bytes], number, unused if is_busy else None, 0)


def behind_code(at: LfhLayout, word: bytes) -> bytes:
    """The header word without its code, and without what the allocator leaves as it finds it."""
    if at.is_classic:
        return word[5:6] + word[6 if word[5] & 1 else 7 :]
    return word[5 if at.bitmap else 6 :]


def live_blocks(space: AddressSpace, at: LfhLayout, sub: Subsegment, live: dict[int, tuple[int, int]]) -> set[int]:
    """Heaps of the program's blocks in a subsegment, whose sizes are those of their headers."""
    heaps = set()
    for number in range(sub.count):
        entry = sub.user_blocks + at.first_offset(sub.count) + number * sub.granules * at.granule
        if entry + at.granule in live:
            size, heap = live[entry + at.granule]
            unused = space.integer(entry + (8 if at.pointer == 8 else 0) + (6 if at.is_classic else 7), 1)
            assert size == sub.granules * at.granule - (unused if at.is_classic else unused & 0x3F)
            heaps.add(heap)
    return heaps


@pytest.mark.real
@pytest.mark.parametrize(("name", "arch", "build", "least"), RECORDED, ids=[row[0] for row in RECORDED])
def test_every_recorded_lfh_block_is_as_the_builder_writes_it(recorded, name, arch, build, least):
    at, heaps, live = lfh_layout(arch, build), {0x700000}, {}
    if not name.startswith("real"):
        truth = json.loads(recorded(f"{name}.truth.json.xz").read_text())
        heaps = {int(heap["handle"], 16) for heap in truth["heaps"]}
        live = {int(b["ptr"], 16): (b["size"], int(b["heap"], 16)) for b in truth["blocks"]}
    with heapdump.open_dump(recorded(f"{name}.dmp.xz")) as snapshot:
        space = snapshot.process.space
        found = list(subsegments(space, at))
        keys = [
            {key_of(space, at, h, sub) for h in live_blocks(space, at, sub, live) or heaps} - {None} for sub in found
        ]
        assert len(set.intersection(*keys)) == 1, "one key for the whole process"
        assert sum(sub.count for sub in found) >= least
        for sub in found:
            assert_free_blocks(space, at, sub)


def assert_free_blocks(space: AddressSpace, at: LfhLayout, sub: Subsegment) -> None:
    """Headers, bitmap, count and chain name the same free blocks."""
    first, stride, word_offset = at.first_offset(sub.count), sub.granules * at.granule, 8 if at.pointer == 8 else 0
    words = [space.read(sub.user_blocks + first + i * stride + word_offset, 8) for i in range(sub.count)]
    free = [i for i, word in enumerate(words) if not (word[5] & 1 if at.is_classic else word[7] & 0x3F)]
    assert len(free) == sub.free
    if at.bitmap:
        bits, buffer = sub.count, space.integer(sub.user_blocks + at.bitmap + at.pointer, at.pointer)
        assert (space.integer(sub.user_blocks + at.bitmap, 4), buffer) == (bits, sub.user_blocks + at.bits)
        data = space.read(buffer, -(-bits // (8 * at.pointer)) * at.pointer)
        unset = np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little") == 0)
        assert unset.tolist() == free
        return
    chain: list[int] = []
    place = sub.hint
    while place != 0xFFFF and len(chain) <= sub.count:
        chain.append((place * at.granule - first) // stride)
        place = space.integer(sub.user_blocks + place * at.granule + at.granule, 2)
    assert sorted(chain) == free
