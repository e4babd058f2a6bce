"""Formats of data: each is recognised by its header, none in what only comes near or in noise."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from heapdump.analyses.contents.recognise import FORMATS, TEXT_WORDS, WORDS, recognise, recognise_plain, trust_of
from heapdump.analyses.types.block_starts import BlockData
from heapdump.analyses.types.block_types import types_of, view_by_heap
from heapdump.analyses.types.content import content_of
from heapdump.snapshot import Snapshot
from heapdump.trust import Trust
from tests.analyses.contents.examples import FOUND, NOT_FOUND, png
from tests.analyses.types.test_block_types import Blocks, labels
from tests.builders import NtHeapBuilder, ProcessBuilder

LEAST_FORMATS = 60
_NOISE_BYTES = 1 << 16


@pytest.fixture
def seen(open_built):
    """The labels of contents that lie in one heap."""

    def of(*contents: bytes) -> list[str]:
        blocks = Blocks("x64")
        blocks.heap = NtHeapBuilder(base=0x20000000000, reserve=0x1000000)
        addresses = [blocks.add(content) for content in contents]
        with open_built(ProcessBuilder().heap(blocks.heap.build())) as snapshot:
            return labels(snapshot, addresses)

    return of


def test_each_format_is_recognised_by_an_example(seen):
    found = dict(zip(FOUND, seen(*(content for content, _ in FOUND.values())), strict=True))
    assert found == {name: word for name, (_, word) in FOUND.items()}


def test_what_only_comes_near_is_none(seen):
    found = dict(zip(NOT_FOUND, seen(*NOT_FOUND.values()), strict=True))
    assert {name: word for name, word in found.items() if word in WORDS} == {}


def test_words_are_distinct_and_headers_give_more_trust_than_text():
    assert len(WORDS) == len(set(WORDS))
    assert len({one.word for one in FORMATS}) >= LEAST_FORMATS - 5
    assert {trust_of(word) for word in TEXT_WORDS} == {Trust.GUESS}
    assert trust_of("PNG image") is Trust.DERIVED


@pytest.mark.parametrize("many", [16, 40, 200])
def test_random_bytes_are_no_format(open_built, many):
    rng = np.random.default_rng(many)
    blocks = Blocks("x64")
    block = blocks.add(rng.integers(0, 256, _NOISE_BYTES, np.uint8).tobytes())
    with open_built(ProcessBuilder().heap(blocks.heap.build())) as snapshot:
        assert noise_words(snapshot, block, _NOISE_BYTES, many) == {}


def noise_words(snapshot: Snapshot, start: int, size: int, many: int) -> dict[str, int]:
    """Word → how often it is recognised in blocks of `many` bytes at every byte of a memory."""
    memory = snapshot.process.space.mapped
    address = np.arange(start, start + size - 64, dtype=np.uint64)
    sizes = np.full(len(address), many, np.uint64)
    words = np.stack([memory.gather(address + np.uint64(i), 8)[0] for i in (0, 8)], axis=1)
    found = recognise(memory, address, sizes, words.view(np.uint8).reshape(-1, 16))
    plain = recognise_plain(memory, address, sizes)
    return {WORDS[number]: 1 for number in (*found[found >= 0].tolist(), *plain[plain >= 0].tolist())}


def test_block_says_the_sides_of_an_image(open_built):
    blocks = Blocks("x64")
    at = blocks.add(png(640, 480))
    with open_built(ProcessBuilder().heap(blocks.heap.build())) as snapshot:
        table = snapshot.walk.table
        found = content_of(snapshot.process, snapshot.process.views[0], table, table.at(at)[0])
        assert found.guess == "PNG image: 640 × 480, 8 bits, RGBA"


def test_a_block_that_the_dump_holds_in_part_is_no_format_of_its_missing_bytes(open_built):
    """Bytes that are not in the dump are no evidence: neither a header nor a trailer of zeros."""
    blocks = Blocks("x64")
    at = blocks.add(b"\0" * 100)
    built = ProcessBuilder().heap(blocks.heap.build())
    with open_built(built) as snapshot:
        memory = snapshot.process.space.mapped
        far = np.array([1 << 40], np.uint64)
        raw = np.frombuffer(png()[:16], np.uint8).reshape(1, 16)
        assert recognise(memory, far, np.array([100], np.uint64), raw).tolist() == [-1]
        assert at


def test_leaks_put_images_together(open_built):
    blocks = Blocks("x64")
    for _ in range(3):
        blocks.add(png())
    with open_built(ProcessBuilder().heap(blocks.heap.build())) as snapshot:
        table = snapshot.walk.table
        rows = np.flatnonzero(table.is_busy)
        found = types_of(
            snapshot.process, view_by_heap(snapshot.process, snapshot.heaps), BlockData(table), rows, by_class=False
        )
        counts = np.bincount(found.numbers, minlength=len(found.labels)).tolist()
        assert dict(zip(found.labels, counts, strict=True))["PNG image"] == 3
        assert found.trusts[found.labels.index("PNG image")] is Trust.DERIVED
        typing = snapshot.types.typing
        (label,) = (one for one in typing.labels if one.label == "PNG image")
        assert not label.is_object and not re.search("vtable", label.label)


def test_the_page_of_types_names_every_format():
    page = (Path(__file__).parents[3] / "docs" / "reference" / "types.md").read_text(encoding="utf-8")
    plain = {word.partition(" (")[0] for word in WORDS if not word.startswith("frame of ")}
    assert {word for word in plain if word not in page} == set()
