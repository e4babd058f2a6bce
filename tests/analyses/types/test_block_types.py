"""What blocks hold, told by their first bytes: each kind is found, none is seen in what only comes near or in noise."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.analyses.types import block_types, quick_starts
from heapdump.analyses.types.block_starts import BlockData
from heapdump.analyses.types.block_types import types_of, view_by_heap
from heapdump.analyses.types.content import content_of
from heapdump.analyses.types.content_kind import LIBRARY_KINDS
from heapdump.snapshot import Snapshot
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.patching import poke

BSTR, STRING, WSTRING, VECTOR = LIBRARY_KINDS
ARCHES: list[HeapArch] = ["x64", "x86"]
BASE = {"x64": 0x7FF700000000, "x86": 0x66000000}
Make = Callable[["Blocks"], bytes]


class Blocks:
    """A heap in the making whose blocks name each other."""

    def __init__(self, arch: HeapArch) -> None:
        self.arch = arch
        self.heap = NtHeapBuilder(arch=arch, build=19041, base=0x20000000000 if arch == "x64" else 0x1000000)
        self.heap.busy(40)
        self.late: list[tuple[int, bytes]] = []  # what is written once all is laid out
        self.pointer = 8 if arch == "x64" else 4

    def add(self, content: bytes, size: int | None = None) -> int:
        return self.heap.busy(len(content) if size is None else size, content)

    def words(self, *values: int) -> bytes:
        return b"".join(value.to_bytes(self.pointer, "little") for value in values)

    def string(self, text: bytes, capacity: int, width: int = 1, size: int | None = None) -> bytes:
        """A std::basic_string whose text lies in itself or in a new block of its capacity."""
        count = len(text) // width if size is None else size
        if capacity == 16 // width - 1:
            return text.ljust(16, b"\0")[:16] + self.words(count, capacity)
        return self.words(self.array(text, (capacity + 1) * width)).ljust(16, b"\xaa") + self.words(count, capacity)

    def array(self, content: bytes, size: int) -> int:
        """An array of the C++ library: 4 KiB and more are aligned to 32 bytes, the block's address before them."""
        if size < 4096:
            return self.add(content, size)
        more = self.pointer + 31
        block = self.heap.busy(size + more)
        at = (block + more) & ~31
        self.late.append((at - self.pointer, self.words(block) + content))
        return at

    def vector(self, size: int, used: int, shift: int = 0) -> bytes:
        begin = self.array(b"\1" * used, size)
        return self.words(begin, begin + used, begin + size + shift)

    def loose_vector(self, size: int, used: int) -> bytes:
        at = (self.heap.busy(size + self.pointer + 31) + self.pointer + 31) & ~31
        return self.words(at, at + used, at + size)

    def bstr(self, text: str, length: int | None = None, end: bytes = b"\0\0") -> bytes:
        data = text.encode("utf-16-le")
        prefix = struct.pack("<I", len(data) if length is None else length)
        return prefix.rjust(self.pointer, b"\xee") + data + end


def made(arch: HeapArch, *makes: Make) -> tuple[ProcessBuilder, list[int], Blocks]:
    """(a process with a block of each content, their addresses)."""
    blocks = Blocks(arch)
    addresses = [blocks.add(make(blocks)) for make in makes]
    return ProcessBuilder(arch=arch, build=19041).heap(blocks.heap.build()), addresses, blocks


def labels(snapshot: Snapshot, addresses: list[int]) -> list[str]:
    table = snapshot.walk.table
    rows = np.array([table.at(address)[0] for address in addresses])
    assert table.address[rows].tolist() == addresses
    found = [kinds_of(snapshot, rows, is_quick=is_quick) for is_quick in (False, True)]
    assert found[0] == found[1], "the loop over the first bytes says the same as arrays"
    return found[0]


def kinds_of(snapshot: Snapshot, rows: np.ndarray[Any, Any], *, is_quick: bool) -> list[str]:
    """The label of each row; `is_quick`: by the kernel, as of many blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_types, "compiled_if_worth", lambda kernel, blocks: kernel if is_quick else None)
        views = view_by_heap(snapshot.process, snapshot.heaps)
        found = types_of(snapshot.process, views, BlockData(snapshot.walk.table), rows, by_class=True)
        return [found.labels[number] for number in found.numbers.tolist()]


def seen(open_built, arch: HeapArch, make: Make) -> str:
    built, addresses, blocks = made(arch, make)
    with open_built(poke(built.build(), *blocks.late)) as snapshot:
        (label,) = labels(snapshot, addresses)
        if label in LIBRARY_KINDS:
            table, view = snapshot.walk.table, snapshot.process.views[0]
            assert content_of(snapshot.process, view, table, table.at(addresses[0])[0]).guess == label
    return label


HITS: dict[str, tuple[Make, str]] = {
    "string inside": (lambda b: b.string(b"name", 15), STRING),
    "string inside, all 15": (lambda b: b.string(b"exactly fifteen", 15), STRING),
    "string of UTF-8": (lambda b: b.string("图像".encode(), 15), STRING),
    "string outside": (lambda b: b.string(b"a path that needs a block", 31), STRING),
    "string outside, cleared": (lambda b: b.string(b"", 47), STRING),
    "string in an aligned block": (lambda b: b.string(b"long" * 1200, 5000), STRING),
    "string before other members": (lambda b: b.string(b"name", 15) + b.words(1, 2, 3), STRING),
    "wstring inside": (lambda b: b.string("key".encode("utf-16-le"), 7, 2), WSTRING),
    "wstring of Chinese": (lambda b: b.string("图像处理".encode("utf-16-le"), 7, 2), WSTRING),
    "wstring outside": (lambda b: b.string("a longer text".encode("utf-16-le"), 15, 2), WSTRING),
    "wstring in an aligned block": (lambda b: b.string("a longer text".encode("utf-16-le"), 3000, 2), WSTRING),
    "vector": (lambda b: b.vector(64, 48), VECTOR),
    "vector, full": (lambda b: b.vector(64, 64), VECTOR),
    "vector, cleared": (lambda b: b.vector(64, 0), VECTOR),
    "vector in an aligned block": (lambda b: b.vector(80000, 60000), VECTOR),
    "BSTR": (lambda b: b.bstr("a text"), BSTR),
    "BSTR of Chinese": (lambda b: b.bstr("相机参数"), BSTR),
    "BSTR with room behind": (lambda b: b.bstr("a text", end=b"\0" * 20), BSTR),
}


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", HITS)
def test_objects_of_the_libraries_are_told(open_built, arch, name):
    make, label = HITS[name]
    assert seen(open_built, arch, make) == label


MISSES: dict[str, Make] = {
    "string longer than its capacity": lambda b: b.string(b"name", 15, size=16),
    "string with a zero before its end": lambda b: b.string(b"na\0me", 15),
    "string without an end": lambda b: b.string(b"nameless", 15, size=4),
    "string of control characters": lambda b: b.string(b"\1\2\3\4", 15),
    "string of another capacity": lambda b: b.string(b"name", 15)[: -b.pointer] + b.words(14),
    "string whose block has another size": lambda b: b.words(b.add(b"a path", 40)).ljust(16, b"\xaa") + b.words(6, 31),
    "string outside without an end": lambda b: b.string(b"x" * 32, 31, size=20),
    "string outside that begins inside a block": lambda b: (
        b.words(b.add(b"a path", 40) + 8).ljust(16, b"\xaa") + b.words(0, 31)
    ),
    "string whose block is cut": lambda b: b.string(b"name", 15)[: -b.pointer],
    "wstring without an end": lambda b: b.string("keyword".encode("utf-16-le"), 7, 2, size=3),
    "wstring of controls": lambda b: b.string(b"\1\0\2\0\3\0", 7, 2),
    "vector that ends behind its block": lambda b: b.vector(64, 48, 8),
    "vector that ends before its block": lambda b: b.vector(64, 48, -8),
    "vector in a block that does not keep its own address": lambda b: b.loose_vector(80000, 60000),
    "vector in disorder": lambda b: b.words(*(lambda a: (a, a + 72, a + 64))(b.add(b"", 64))),
    "vector that begins inside a block": lambda b: b.words(*(lambda a: (a + 8, a + 16, a + 64))(b.add(b"", 64))),
    "vector, empty": lambda b: b.words(0, 0, 0, 1),
    "vector, cut": lambda b: b.vector(64, 48)[: -b.pointer],
    "BSTR of another length": lambda b: b.bstr("a text", 10),
    "BSTR of an odd length": lambda b: b.bstr("a text", 13, b"\0\0\0\0"),
    "BSTR longer than its block": lambda b: b.bstr("a text", 400),
    "BSTR without an end": lambda b: b.bstr("a text", end=b"x\0"),
    "BSTR whose end is not asked for": lambda b: b.bstr("a text", end=b""),
    "BSTR too short to be sure": lambda b: b.bstr("ab"),
    "BSTR of control characters": lambda b: b.bstr("\1\2\3\4"),
}


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", MISSES)
def test_what_only_comes_near_is_none(open_built, arch, name):
    assert seen(open_built, arch, MISSES[name]) not in LIBRARY_KINDS


@pytest.mark.parametrize("arch", ARCHES)
def test_many_blocks_are_told_in_parts_side_by_side(open_built, arch, monkeypatch):
    built, addresses, blocks = made(arch, *(make for make, _ in [*HITS.values()] * 3), lambda b: b.words(0, 0))
    monkeypatch.setattr("heapdump.analyses.types.block_types._BATCH", 2)
    with open_built(poke(built.build(), *blocks.late)) as snapshot:
        assert labels(snapshot, addresses) == [*(label for _, label in [*HITS.values()] * 3), "zeros"]


@pytest.mark.parametrize("arch", ARCHES)
def test_a_block_that_names_its_own_ends_is_no_vector(open_built, arch):
    _, (own,), _ = made(arch, lambda b: bytes(64))
    assert seen(open_built, arch, lambda b: b.words(own, own + 16, own + 64).ljust(64, b"\0")) not in LIBRARY_KINDS


def test_an_array_in_a_freed_block_is_none(open_built):
    blocks = Blocks("x64")
    gone = blocks.heap.free(6) + 16
    owner = blocks.add(blocks.words(gone, gone + 8, gone + 80))
    with open_built(ProcessBuilder().heap(blocks.heap.build())) as snapshot:
        assert labels(snapshot, [owner]) == ["other data"]


@pytest.mark.property
@pytest.mark.parametrize("arch", ARCHES)
@given(contents=st.lists(st.binary(min_size=1, max_size=64), min_size=1, max_size=40))
def test_noise_holds_no_objects(open_built, arch, contents):
    built, addresses, _ = made(arch, *(lambda b, content=content: content for content in contents))
    with open_built(built) as snapshot:
        assert not {*labels(snapshot, addresses)} & {*LIBRARY_KINDS}


Plan = list[tuple[str, int]]
PLANS: dict[str, tuple[str, ...]] = {
    "vector": ("start", "inside", "end"), "text": ("start", *["noise"] * 3, "small", "capacity"), "held": (*["text"] * 4, "small", "fifteen"),
    "wide text": ("start", *["noise"] * 3, "small", "wide capacity"), "wide held": (*["text"] * 4, "small", "seven"),
}  # fmt: skip
"""What objects consist of, as words of x86; one of x64 has half as many in its first 16 bytes."""


def word_of(blocks: Blocks, made: list[tuple[int, bytes]], kind: str, number: int) -> int:
    """A word as programs keep them: a pointer to an earlier block, into it or behind it, a small number, text, noise."""
    address, content = made[number % len(made)]
    near = {"start": address, "inside": address + number % (len(content) + 1), "end": address + len(content)}
    near |= {"capacity": len(content) - 1, "wide capacity": len(content) // 2 - 1}
    text = int.from_bytes([b"name", b"ab\0\0", b"a\0b\0", b"\0\0\0\0"][number % 4] * 2, "little")
    other = {"small": number % 20, "seven": 7, "fifteen": 15, "text": text, "noise": number * 0x9E3779B97F4A7C15}
    return (near | other)[kind] & ((1 << 8 * blocks.pointer) - 1)


def planned(blocks: Blocks, made: list[tuple[int, bytes]], plan: Plan | tuple[str, int]) -> bytes:
    """The content of a block: words each for itself, or those of an object."""
    if isinstance(plan, tuple):
        letters = PLANS[plan[0]]
        if blocks.pointer == 8 and len(letters) > 3:
            letters = (letters[0], letters[1], *letters[4:])
        plan = [(kind, plan[1]) for kind in letters]
    return blocks.words(*(word_of(blocks, made, kind, number) for kind, number in plan))


def is_text(unit: bytes) -> bool:
    """A character of a code page or of UTF-8, or one of UTF-16 in a script that counts."""
    value = int.from_bytes(unit, "little")
    wide = ((0xA0, 0x52F), (0x2010, 0x2030), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFF00, 0xFFEF))
    ranges = ((9, 13), (0x20, 0x7E), *(((0x80, 0xFF),) if len(unit) == 1 else wide))
    return any(low <= value <= high for low, high in ranges)


def expected(address: int, content: bytes, arrays: dict[int, bytes], pointer: int) -> set[str]:
    """The library's objects that a block can be, said word by word; its blocks are too small for aligned arrays."""
    word = [int.from_bytes(content[i : i + pointer], "little") for i in range(0, len(content) - pointer + 1, pointer)]
    out: set[str] = set()
    if len(word) > 2 and word[0] != address and word[0] in arrays and word[0] <= word[1] <= word[2] > word[0]:
        out |= {VECTOR} if word[2] - word[0] == len(arrays[word[0]]) else set()
    at = 16 // pointer
    if len(word) < at + 2:
        return out
    size, capacity = word[at : at + 2]
    for label, width in ((STRING, 1), (WSTRING, 2)):
        held = capacity == 16 // width - 1
        text = content[:16] if held else arrays.get(word[0], b"")
        if size > capacity or capacity < 16 // width - 1 or len(text) != (capacity + 1) * width:
            continue
        characters = [text[i : i + width] for i in range(0, len(text), width)]
        if not any(characters[size]) and (not held or (size > 0 and all(map(is_text, characters[:size])))):
            out.add(label)
    return out


NUMBERS = st.one_of(st.integers(0, 3), st.integers(0, 1 << 20))
WORD_KINDS = ["start", "inside", "end", "small", "seven", "fifteen", "text", "noise", "capacity", "wide capacity"]
WORDS = st.lists(st.tuples(st.sampled_from(WORD_KINDS), NUMBERS), min_size=2, max_size=8)
OBJECTS = st.tuples(st.sampled_from(sorted(PLANS)), NUMBERS)


@pytest.mark.property
@pytest.mark.parametrize("arch", ARCHES)
@given(plans=st.lists(st.one_of(WORDS, OBJECTS), min_size=1, max_size=30))
def test_blocks_of_pointers_and_numbers_are_told_as_word_by_word(open_built, arch, plans):
    blocks = Blocks(arch)
    made_ = [(blocks.add(content), content) for content in (b"name".ljust(16, b"\0"), b"\0" * 32, b"a\0b\0" * 4)]
    for plan in plans:
        content = planned(blocks, made_, plan)
        made_.append((blocks.add(content), content))
    with open_built(ProcessBuilder(arch=arch, build=19041).heap(blocks.heap.build())) as snapshot:
        found = labels(snapshot, [address for address, _ in made_])
    for (address, content), label in zip(made_, found, strict=True):
        can_be = expected(address, content, dict(made_), blocks.pointer)
        assert (
            (label in can_be)
            if can_be and any(content) and len({*content}) > 1
            else label not in (STRING, WSTRING, VECTOR)
        )


PIECES = st.one_of(
    st.sampled_from([0, 1, 15, 16, 0x41, 0x30000, 0xFFFF, (1 << 64) - 1, 0x4141414141414141, 0x0041004100410041]),
    st.integers(0, (1 << 64) - 1), st.integers(0, 0x3000),
)  # fmt: skip


@pytest.mark.property
@pytest.mark.parametrize("arch", ARCHES)
@given(
    blocks=st.lists(
        st.tuples(st.integers(0, 72), st.lists(st.tuples(st.sampled_from("nbim"), PIECES), min_size=9, max_size=9)),
        min_size=1,
        max_size=12,
    )
)
def test_the_loop_and_arrays_agree_on_any_words(open_built, arch, blocks):
    """Words are numbers, pointers to blocks, into blocks, and into modules."""
    heap = NtHeapBuilder(arch=arch, build=19041, base=0x20000000000 if arch == "x64" else 0x1000000)
    starts = [heap.busy(size) for size, _ in blocks]
    width, late = 8 if arch == "x64" else 4, []
    for start, (size, words) in zip(starts, blocks, strict=True):
        values = {
            "n": lambda value: value, "b": lambda value: starts[value % len(starts)],
            "i": lambda value: starts[value % len(starts)] + value % 64, "m": lambda value: BASE[arch] + value % 0x3000,
        }  # fmt: skip
        data = b"".join((values[kind](value) % (1 << 8 * width)).to_bytes(width, "little") for kind, value in words)
        late.append((start, data[:size]))
    process = ProcessBuilder(arch=arch, build=19041).heap(heap.build())
    process.module(BASE[arch], 0x4000, r"C:\\app\\any.dll")
    with open_built(poke(process.build(), *(one for one in late if one[1]))) as snapshot:
        labels(snapshot, starts)


def test_blocks_over_each_other_have_no_map_and_the_same_types(open_built, monkeypatch):
    """Heaps over each other are damage: pointers are then followed by arrays."""

    def pointers(blocks: Blocks) -> bytes:
        """Two pointers to starts of blocks."""
        return blocks.words(blocks.heap.busy(24) + blocks.pointer * 2, 0x1234)

    built, addresses, _ = made("x64", pointers, lambda b: b.words(0x1234, 7), lambda b: b.vector(64, 48))
    with open_built(built.build()) as snapshot:
        before = labels(snapshot, addresses)
        monkeypatch.setattr(quick_starts, "take_starts", lambda *_: (-1, 0, 0, 0))
        assert labels(snapshot, addresses) == before
