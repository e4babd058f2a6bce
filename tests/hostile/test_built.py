"""Built dumps with flipped bits, overwritten words and cut ends: refused by name or answered, nothing else."""

from __future__ import annotations

import random
import struct
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import BuiltDump, ProcessBuilder
from tests.builders.process_plan import ProcessArch
from tests.heaps.nt.plans import FIXED, Generation, heap_of
from tests.hostile.ladder import climb, survives
from tests.hostile.values import WORDS

pytestmark = pytest.mark.hostile
PROCESSES = [("x64", 19041), ("x86", 2600), ("x86", 19041), ("wow64", 7601), ("x64", 7601)]


@cache
def healthy(arch: ProcessArch, build: int) -> BuiltDump:
    """A process with heaps, threads, names, an exception and every stream the builder writes."""
    process = ProcessBuilder(arch=arch, build=build)
    own = Generation("x64" if arch == "x64" else "x86", build)
    process.heap(heap_of(own, FIXED[3]).build())
    process.heap(heap_of(own, FIXED[2], base=own.base + 0x4000000).build())
    if arch == "wow64":
        process.heap(heap_of(Generation("x64", build), FIXED[2], base=0x40000000).build(), view="x64")
    process.thread(100, name="main").thread(104)
    process.exception(100, 0xC0000005, own.base, (1, 0x10))
    process.dump.unloaded(0x60000000, 0x10000, "gone.dll").thread_info(100, start_address=0x401000).comment("c")
    process.module(0x50000000, 0x8000, "C:\\a.dll", pdb=("a.pdb", bytes(16), 1))
    return process.build()


def metadata_bytes(built: BuiltDump) -> int:
    """File offset at which the memory begins."""
    return built.truth.size - sum(size for _, size in built.truth.ranges)


@pytest.mark.parametrize(("arch", "build"), PROCESSES)
def test_the_healthy_dump_is_answered_without_notes(write_dump, open_built, arch, build):
    built = healthy(arch, build)
    assert climb(write_dump(built)).committed_bytes > 0
    with open_built(built) as snapshot:
        assert snapshot.gaps == ()


CHANGES = st.lists(
    st.tuples(st.integers(0, 1 << 40), st.sampled_from(WORDS), st.sampled_from([1, 2, 4, 8])), min_size=1, max_size=6
)


@pytest.mark.property
@pytest.mark.parametrize(("arch", "build"), PROCESSES)
@given(changes=CHANGES)
def test_overwritten_words_of_the_streams_are_survived(write_dump, arch, build, changes):
    built = healthy(arch, build)
    data = bytearray(built.data)
    room = metadata_bytes(built) // 4
    for place, value, size in changes:
        at = place % room * 4
        data[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    path = write_dump(bytes(data))
    survives(path)
    path.unlink()


@pytest.mark.property
@pytest.mark.parametrize(("arch", "build"), PROCESSES)
@given(flips=st.lists(st.integers(0, 1 << 50), min_size=1, max_size=40))
def test_flipped_bits_anywhere_are_survived(write_dump, arch, build, flips):
    data = bytearray(healthy(arch, build).data)
    for flip in flips:
        data[flip // 8 % len(data)] ^= 1 << flip % 8
    path = write_dump(bytes(data))
    survives(path)
    path.unlink()


@pytest.mark.property
@pytest.mark.parametrize(("arch", "build"), PROCESSES)
@given(cut=st.one_of(st.integers(0, 6000), st.integers(0, 1 << 40)))
def test_a_dump_cut_anywhere_is_survived(write_dump, arch, build, cut):
    built = healthy(arch, build)
    size = cut % len(built.data)
    path = write_dump(built.data[:size])
    answered = survives(path)
    path.unlink()
    if size >= metadata_bytes(built):
        assert answered, "all streams are whole: what is left must be answered"
    if size < 32:
        assert not answered


@pytest.mark.parametrize(("arch", "build"), PROCESSES)
def test_every_word_of_each_peb_and_teb_may_be_wild(write_dump, arch, build):
    """One dump for each wild value, written over a member after the other in turn."""
    built = healthy(arch, build)
    rng = random.Random(build)
    size = 4 if arch == "x86" else 8
    starts = [t.teb for t in built.truth.threads]
    ranges = dict(built.truth.ranges)
    at = metadata_bytes(built)
    offsets = {}
    for start, length in built.truth.ranges:
        offsets[start] = at
        at += length
    places = [(offsets[teb], 0x70) for teb in starts if teb in ranges]
    places += [(offsets[teb] + 0x1000, 0x500) for teb in starts if teb in ranges and ranges[teb] > 0x1500]
    assert places
    for value in WORDS:
        data = bytearray(built.data)
        for begin, length in places:
            for _ in range(6):
                word = begin + rng.randrange(length // size) * size
                struct.pack_into("<Q" if size == 8 else "<I", data, word, value & ((1 << 8 * size) - 1))
        path = write_dump(bytes(data))
        assert survives(path), "damage inside memory is no reason to refuse the dump"
        path.unlink()


@pytest.mark.property
@given(
    content=st.binary(max_size=600), prefix=st.sampled_from([b"", b"MDMP", b"MDMP\x93\xa7\xb1\x61\x03\0\0\0\x20\0\0\0"])
)
def test_random_bytes_are_refused_or_survived(write_dump, content, prefix):
    path = write_dump(prefix + content)
    survives(path)
    path.unlink()
