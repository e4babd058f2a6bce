"""Programs of plain structs, laid out in a heap: what every block is, and what it holds, is known.

Blocks are allocated in random order among freed ones. Memory that the program did not write to keeps what lay there: the
list links of the allocator, a stale pointer, or words of another struct.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.patching import poke

BASE = {"x64": 0x20000000000, "x86": 0x10000000}
MODULE = {"x64": 0x7FF700000000, "x86": 0x66000000}


@dataclass(frozen=True)
class Struct:
    """A struct of words. A word is: next, prev, left, right, parent, `*Name` (pointer), `?Name` (the same or null), int,
    double, text, time, zero, junk (not written to), `@1230` (address in the program's module). `size` in bytes, or that of
    the words.
    """

    name: str
    words: tuple[str, ...]
    count: int
    size: int = 0


@dataclass
class Program:
    """The process, and the struct of each block by address."""

    process: ProcessBuilder
    kinds: dict[int, str] = field(default_factory=dict)
    late: list[tuple[int, bytes]] = field(default_factory=list)

    def build(self) -> bytes:
        return poke(self.process.build(), *self.late).data


def program(
    structs: list[Struct], arch: HeapArch = "x64", seed: int = 1, stale: float = 0.03, *, remains: bool = False
) -> Program:
    """The structs, each `count` times. `stale`: share of pointers whose block is gone.

    `remains`: what a block does not write to holds the words of one block before it, at the same places, and the links of
    a free list before them; else words of several blocks.
    """
    rng = random.Random(seed)
    width = 8 if arch == "x64" else 4
    heap = NtHeapBuilder(arch=arch, build=19041, base=BASE[arch], reserve=0x4000000)
    order = [kind for kind in structs for _ in range(kind.count)]
    rng.shuffle(order)
    blocks: dict[str, list[int]] = {kind.name: [] for kind in structs}
    gone: list[int] = []
    for kind in order:
        if rng.random() < 0.1:
            gone.append(heap.free(2 + rng.randrange(6)) + 2 * width)
        size = kind.size or width * len(kind.words)
        blocks[kind.name].append(heap.busy(size))
    made = Program(ProcessBuilder(arch=arch, build=19041).heap(heap.build()))
    made.process.module(MODULE[arch], 0x10000, r"C:\acme\camera.dll")
    laid: list[int] = []
    whole: list[list[int]] = []
    for kind in structs:
        for number, at in enumerate(blocks[kind.name]):
            made.kinds[at] = kind.name
            values = [
                _word(word, number, blocks[kind.name], blocks, rng, gone if rng.random() < stale else [], laid, arch)
                for word in kind.words
            ]
            if remains:
                old = _remains(rng, whole, gone, len(values))
                values = [
                    old[i] if word == "junk" else one
                    for i, (word, one) in enumerate(zip(kind.words, values, strict=True))
                ]
                whole.insert(rng.randrange(len(whole) + 1), values)
                del whole[300:]
            laid = [*laid[-200:], *values]
            made.late.append(
                (at, b"".join((value & (1 << 8 * width) - 1).to_bytes(width, "little") for value in values))
            )
    rng.shuffle(made.late)
    return made


def _remains(rng: random.Random, whole: list[list[int]], gone: list[int], many: int) -> list[int]:
    """The words of a block that was freed before: nothing, or those of another block, perhaps with links in front."""
    old = list(rng.choice(whole)) if whole and rng.random() < 0.8 else []
    old = [*old, *[0] * many][:many]
    if gone and rng.random() < 0.5:
        old[:2] = [rng.choice(gone), rng.choice(gone)][: min(2, many)]
    return old


def _word(word, number, own, blocks, rng, gone, laid, arch):  # noqa: C901
    width = 8 if arch == "x64" else 4
    links = {"next": number + 1, "prev": number - 1, "left": 2 * number + 1, "right": 2 * number + 2}
    if word in links:
        other = links[word]
        return own[other] if 0 <= other < len(own) else 0
    if word == "parent":
        return own[(number - 1) // 2] if number else 0
    if word[0] in "*?":
        if word[0] == "?" and rng.random() < 0.4:
            return 0
        return rng.choice(gone or blocks[word[1:]])
    if word[0] == "@":
        return MODULE[arch] + int(word[1:], 16)
    if word == "junk":
        draw = rng.random()
        if draw < 0.4 or not laid:
            return 0
        return rng.choice(laid) if draw < 0.8 else rng.choice(gone or laid)
    if word == "text":
        return int.from_bytes(bytes(rng.choice(b"abcdefghij /.") for _ in range(width)), "little")
    if word == "double":
        value = rng.uniform(-1000, 1000)
        return int.from_bytes(struct.pack("<d" if width == 8 else "<f", value), "little")
    if word == "time":
        return 132_000_000_000_000_000 + rng.randrange(10**15)
    return rng.randrange(1, 60000) if word == "int" else 0


_KINDS = ("int", "double", "text", "zero", "*S0", "*S1", "?S0", "@1230")


def nature(word: str) -> str:
    """What a word shows: a pointer, an address in a module, or data; "" for nothing."""
    if word[0] in "*?" or word in ("next", "prev", "left", "right", "parent"):
        return "pointer"
    return {"@": "module", "j": "", "z": ""}.get(word[0], word)


def random_structs(rng: random.Random, arch: HeapArch, many: int = 8) -> list[Struct]:
    """Structs of three sizes; two of one size differ in two words and more that both write to."""
    sizes = rng.sample(range(3, 12), 3)
    kinds = [*_KINDS, "time"] if arch == "x64" else list(_KINDS)
    made: list[Struct] = []
    for number in range(many):
        size = rng.choice(sizes)
        for _ in range(300):
            words = [rng.choice(kinds) for _ in range(size)]
            if number < 2:
                words[:2] = ["next", "prev"] if number == 0 else ["left", "right"]
            words = ["junk" if rng.random() < 0.15 else word for word in words]
            says = sum(bool(nature(word)) for word in words) >= 2
            if says and all(len(one.words) != size or _differ(one.words, words) for one in made):
                break
        else:
            if number >= 2:
                continue
            words += ["int"] * (13 + number - len(words))
        made.append(Struct(f"S{number}", tuple(words), rng.choice([60, 150, 400])))
    return made


def _differ(first: tuple[str, ...], second: list[str]) -> bool:
    pairs = [(nature(a), nature(b)) for a, b in zip(first, second, strict=True)]
    return sum(bool(a and b) and a != b for a, b in pairs) >= 2
