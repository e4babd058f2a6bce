"""Lists, maps and hash tables of the Visual C++ library: their nodes are counted and named; no false ones."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from heapdump import kernels
from heapdump.analyses.containers.node_roles import NodeKind
from tests.analyses.types.test_block_types import ARCHES, Blocks
from tests.builders import ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.patching import poke

NODE_BYTES = 64


class Containers(Blocks):
    """Blocks, and containers of nodes laid out among others in random order."""

    def __init__(self, arch: HeapArch, debug: bool = False) -> None:
        super().__init__(arch)
        self.rng = random.Random(26)
        self.debug = debug

    def nodes(self, many: int, size: int = NODE_BYTES) -> list[int]:
        """New blocks for nodes, in random order, among blocks of another size."""
        made = []
        for _ in range(many):
            if self.rng.random() < 0.2:
                self.heap.busy(24, b"\x33" * 24)
            made.append(self.node(size))
        self.rng.shuffle(made)
        return made

    def node(self, size: int) -> int:
        """One block; in debug builds behind the CRT's header."""
        if not self.debug:
            return self.heap.busy(size)
        header = 0x30 if self.pointer == 8 else 0x20
        block = self.heap.busy(header + size + 4)
        fields = self.words(0, 0, 0) + (0).to_bytes(4, "little") + (1).to_bytes(4, "little")
        fields += size.to_bytes(self.pointer, "little") + (7).to_bytes(4, "little")
        self.late.append((block, fields + b"\xfd" * 4))
        self.late.append((block + header + size, b"\xfd" * 4))
        return block + header

    def ring(self, many: int, count: int | None = None, broken: int = -1) -> bytes:
        """{ head; elements } of a ring. `broken`: a node that does not point back."""
        head, *elements = self.nodes(many + 1)
        ring = [head, *elements]
        for i, at in enumerate(ring):
            before = ring[i - 1] if i != broken else ring[(i + 2) % len(ring)]
            self.late.append((at, self.words(ring[(i + 1) % len(ring)], before) + b"value"))
        return self.words(head, many if count is None else count)

    def tree(
        self, many: int, count: int | None = None, damage: Callable[[list[int]], tuple[int, bytes]] | None = None
    ) -> bytes:
        """{ head; elements } of a balanced tree, in order of the addresses in `elements`."""
        head, *elements = self.nodes(many + 1)
        links = {at: [head, head, head] for at in elements}

        def build(low: int, high: int, parent: int) -> int:
            if low >= high:
                return head
            middle = (low + high) // 2
            at = elements[middle]
            links[at] = [build(low, middle, at), parent, build(middle + 1, high, at)]
            return at

        root = build(0, many, head)
        self.late += [(at, self.words(*three) + b"\1\0key") for at, three in links.items()]
        self.late.append((head, self.words(elements[0], root, elements[-1]) + b"\1\1"))
        if damage is not None:
            offset, content = damage([head, *elements])
            self.late.append((elements[many // 2] + offset, content))
        return self.words(head, many if count is None else count)

    def hash(self, many: int, buckets: int = 16) -> bytes:
        """{ load factor; list; vector of buckets; mask; buckets }."""
        pair = self.ring(many)
        size = 2 * buckets * self.pointer
        begin = self.add(self.words(*[self.heap.busy(8)] * (2 * buckets)), size)
        rest = self.words(begin, begin + size, begin + size, buckets - 1, buckets)
        return b"\0\0\x80\x3f".ljust(self.pointer, b"\0") + pair + rest


def found_in(open_built, blocks: Containers) -> list[tuple[str, int, int, int]]:
    """(kind, offset, elements, nodes with the head) of every container."""
    with open_built(
        poke(ProcessBuilder(arch=blocks.arch, build=19041).heap(blocks.heap.build()).build(), *blocks.late)
    ) as snapshot:
        found = snapshot.types.nodes
        many = np.bincount(found.container[found.role == 0], minlength=len(found)).tolist()
        kinds = [NodeKind(kind).words for kind in found.kind.tolist()]
        return sorted(zip(kinds, found.offset.tolist(), found.count.tolist(), many, strict=True))


MAKES = {
    "std::list": (lambda b, many: b.ring(many), 1),
    "std::map or set": (lambda b, many: b.tree(many), 1),
    "std::unordered_map or set": (lambda b, many: b.hash(many), 2),
}


@pytest.mark.parametrize("debug", [False, True], ids=["release", "debug"])
@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("kind", MAKES)
@pytest.mark.parametrize("many", [2, 3, 40])
def test_elements_are_counted(open_built, arch, kind, many, debug):
    make, words = MAKES[kind]
    blocks = Containers(arch, debug)
    blocks.add(blocks.words(5) + make(blocks, many) + blocks.words(0, 0))
    assert found_in(open_built, blocks) == [(kind, words * blocks.pointer, many, many + 1)]


def test_several_containers_of_one_object_are_told_apart(open_built):
    blocks = Containers("x64")
    blocks.add(blocks.words(5) + blocks.ring(7) + blocks.tree(9) + blocks.ring(4) + blocks.words(1, 2))
    found = found_in(open_built, blocks)
    assert [(kind, offset, count) for kind, offset, count, _ in found] == [
        ("std::list", 8, 7), ("std::list", 40, 4), ("std::map or set", 24, 9),
    ]  # fmt: skip


MISSES: dict[str, Callable[[Containers], bytes]] = {
    "list of another length": lambda b: b.ring(9, count=8),
    "list that is longer": lambda b: b.ring(9, count=10),
    "list of which one does not point back": lambda b: b.ring(9, broken=4),
    "list of one": lambda b: b.ring(1),
    "tree of another size": lambda b: b.tree(9, count=8),
    "tree that is larger": lambda b: b.tree(9, count=10),
    "tree with a node of a head's flags": lambda b: b.tree(9, damage=lambda _: (24, b"\1\1")),
    "tree with a cycle": lambda b: b.tree(9, damage=lambda at: (0, b.words(at[5], at[5], at[5]))),
    "tree with a pointer elsewhere": lambda b: b.tree(9, damage=lambda _: (8, b.words(7))),
}


@pytest.mark.parametrize("name", MISSES)
def test_what_only_comes_near_is_none(open_built, name):
    blocks = Containers("x64")
    blocks.add(blocks.words(5) + MISSES[name](blocks) + blocks.words(0, 0))
    assert found_in(open_built, blocks) == []


def test_compiled_loops_give_the_same(open_built, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(kernels, "WORTH_COMPILING", 0)
    blocks = Containers("x64")
    blocks.add(blocks.words(5) + blocks.ring(30) + blocks.tree(40) + blocks.words(1) + blocks.hash(20))
    found = [(kind, count) for kind, _, count, _ in found_in(open_built, blocks)]
    assert found == [("std::list", 30), ("std::map or set", 40), ("std::unordered_map or set", 20)]


def test_nodes_are_named_after_the_member_that_holds_them(open_built):
    blocks = Containers("x64")
    text = int.from_bytes(b"name", "little")
    for number in range(8):
        blocks.add(blocks.words(number + 3, text, text) + blocks.tree(6 + number))
    with open_built(poke(ProcessBuilder().heap(blocks.heap.build()).build(), *blocks.late)) as snapshot:
        typing = snapshot.types.typing
        counts = np.bincount(typing.number, minlength=len(typing.labels)).tolist()
        labels = {one.label: count for one, count in zip(typing.labels, counts, strict=True) if count}
        assert labels["node of the std::map or set at +24 of 40-byte record"] == sum(7 + number for number in range(8))
