"""Containers that are members of blocks: which buffer they use, and how much of it; no false ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapdump.analyses.types.members import Container, find_containers, place_of
from tests.analyses.types.test_block_types import ARCHES, Blocks
from tests.builders import ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.patching import poke, word

Found = set[tuple[int, str, int, int]]


def found_in(open_built, arch: HeapArch, blocks: Blocks, *roots: int) -> Found:
    """(address, kind, bytes used, bytes held) of every container; `roots` lie in the program's data one after the other."""
    process = ProcessBuilder(arch=arch, build=19041).heap(blocks.heap.build())
    data = process.plan.exe + 0xC000 - 0x1000
    built = poke(
        process.build(),
        *blocks.late,
        *((data + i * blocks.pointer, word(value, blocks.pointer)) for i, value in enumerate(roots)),
    )
    with open_built(built) as snapshot:
        found = find_containers(snapshot.process.space.mapped, snapshot.graph)
        places = place_of(snapshot.graph, found, np.arange(len(found))).tolist()
        kinds = [Container(kind).words for kind in found.kind.tolist()]
        return set(zip(places, kinds, found.used.tolist(), found.capacity.tolist(), strict=True))


@pytest.mark.parametrize("arch", ARCHES)
def test_members_are_found_wherever_they_lie(open_built, arch):
    blocks = Blocks(arch)
    width = blocks.pointer
    members = [
        (blocks.vector(64, 48), "std::vector", 48, 64), (blocks.vector(80000, 60000), "std::vector", 60000, 80000),
        (blocks.string(b"a path that needs a block", 31), "std::string", 25, 31),
        (blocks.string("a longer text".encode("utf-16-le"), 15, 2), "std::wstring", 26, 30),
        (blocks.words(blocks.add(b"text of libstdc++".ljust(31, b"\0")), 17, 30), "std::string (libstdc++)", 17, 30),
        (blocks.vector(40, 0), "std::vector", 0, 40),
    ]  # fmt: skip
    content = blocks.words(7, 9)
    expected = set()
    for member, kind, used, capacity in members:
        expected.add((len(content), kind, used, capacity))
        content += member + blocks.words(3)
    owner = blocks.add(content)
    outer = blocks.add(blocks.words(1, owner, 2))
    globals_ = blocks.add(b"", 96)
    found = found_in(open_built, arch, blocks, outer, globals_, globals_ + 32, globals_ + 96)
    data = {one for one in found if one[2:] == (32, 96)}
    assert [kind for _, kind, *_ in data] == ["std::vector"]
    assert {(at - owner, *rest) for at, *rest in found - data} == expected
    assert width in (4, 8)


MISSES = {
    "vector that ends behind its block": lambda b: b.vector(64, 48, 8),
    "vector in a block that does not keep its own address": lambda b: b.loose_vector(80000, 60000),
    "string longer than its capacity": lambda b: b.words(b.add(b"a", 32)).ljust(16, b"\xaa") + b.words(32, 31),
    "string without an end": lambda b: b.string(b"x" * 32, 31, size=20),
    "string whose block has another size": lambda b: b.words(b.add(b"a path", 40)).ljust(16, b"\xaa") + b.words(6, 31),
    "three pointers in disorder": lambda b: b.words(*(lambda a: (a, a + 72, a + 64))(b.add(b"", 64))),
    "pointer and two numbers": lambda b: b.words(b.add(b"", 64), 3, 60),
}


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", MISSES)
def test_what_only_comes_near_is_none(open_built, arch, name):
    blocks = Blocks(arch)
    blocks.add(blocks.words(1) + MISSES[name](blocks) + blocks.words(0, 0, 0))
    assert found_in(open_built, arch, blocks) == set()


@pytest.mark.property
@pytest.mark.parametrize("arch", ARCHES)
@settings(max_examples=12)
@given(data=st.data())
def test_noise_of_pointers_and_numbers_holds_no_container(open_built, arch, data):
    blocks = Blocks(arch)
    made = [blocks.add(b"\x11" * 48, 48), blocks.add(b"", 100)]
    number = st.one_of(st.sampled_from([made[0], made[1], made[0] + 8]), st.integers(0, 40), st.integers(0, 1 << 31))
    for _ in range(4):
        made += [blocks.add(blocks.words(*data.draw(st.lists(number, min_size=3, max_size=8))))]
    found = found_in(open_built, arch, blocks)
    assert all(capacity in (48, 100, 47, 99, 46, 98) and used <= capacity for *_, used, capacity in found)


def test_a_buffer_of_a_member_is_named_after_it(open_built):
    blocks = Blocks("x64")
    for number in range(8):
        blocks.add(
            blocks.words(number + 3, *(int.from_bytes(b"name", "little"),) * 2) + blocks.vector(100 + 8 * number, 60)
        )
    with open_built(ProcessBuilder().heap(blocks.heap.build())) as snapshot:
        typing = snapshot.types.typing
        counts = {
            typing.labels[number].label: count
            for number, count in zip(*np.unique(typing.number, return_counts=True), strict=True)
        }
        assert counts["buffer of the std::vector at +24 of 48-byte record"] == 8
