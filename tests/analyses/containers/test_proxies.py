"""Proxies of containers in debug builds of Visual C++."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.analyses.containers.library_containers import LibraryContainers
from tests.analyses.types.test_block_types import ARCHES
from tests.builders import ProcessBuilder
from tests.patching import poke


def proxies_in(open_built, blocks: LibraryContainers) -> list[int]:
    """The addresses of all proxies."""
    built = poke(ProcessBuilder(arch=blocks.arch, build=19041).heap(blocks.heap.build()).build(), *blocks.late)
    with open_built(built) as snapshot:
        addresses: list[int] = snapshot.graph.start[snapshot.types.nodes.proxies].tolist()
        return addresses


def vector(blocks: LibraryContainers) -> bytes:
    """{ begin; end; end of capacity } of a new buffer."""
    begin = blocks.node(64)
    return blocks.words(begin, begin + 40, begin + 64)


def proxy(blocks: LibraryContainers, member: bytes, *, back: int = 0, iterator: int = 0, words: int = 2) -> int:
    """A block with { 1; proxy; member }; the proxy's address. `back`: bytes by which the proxy misses its place."""
    made = blocks.node(words * blocks.pointer)
    owner = blocks.node(2 * blocks.pointer + len(member))
    blocks.late.append((owner, blocks.words(1, made) + member))
    blocks.write(made, owner + blocks.pointer + back, iterator)
    return made


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("debug", [False, True], ids=["release CRT", "debug CRT"])
def test_the_proxy_of_a_container_is_known(open_built, arch, debug):
    blocks = LibraryContainers(arch, debug)
    made = proxy(blocks, vector(blocks))
    assert proxies_in(open_built, blocks) == [made]


def test_with_the_debug_crt_the_proxies_of_empty_containers_are_known(open_built):
    blocks = LibraryContainers("x64", debug=True)
    made = proxy(blocks, blocks.words(0, 0, 0))
    iterator = blocks.node(24)
    other = proxy(blocks, blocks.words(0, 0, 0), iterator=iterator)
    blocks.write(iterator, other, 0, 5)
    assert proxies_in(open_built, blocks) == sorted([made, other])


MISSES: dict[str, Callable[[LibraryContainers], int]] = {
    "of nothing, with the release CRT": lambda b: proxy(b, b.words(0, 0, 0)),
    "that leads beside its place": lambda b: proxy(b, vector(b), back=8),
    "of three words": lambda b: proxy(b, vector(b), words=3),
    "whose iterator is a number": lambda b: proxy(b, vector(b), iterator=5),
}


@pytest.mark.parametrize("name", MISSES)
def test_what_only_comes_near_is_none(open_built, name):
    blocks = LibraryContainers("x64")
    MISSES[name](blocks)
    assert proxies_in(open_built, blocks) == []


def test_a_pair_of_blocks_that_know_each_other_is_none(open_built):
    blocks = LibraryContainers("x64", debug=True)
    made = proxy(blocks, blocks.words(0, 0, 0), iterator=77)
    blocks.write(made, blocks.heap.busy(16))
    assert proxies_in(open_built, blocks) == []
