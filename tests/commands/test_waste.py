"""`waste` on built processes: copies, zeros, unused capacity, padding, sparse subsegments, free and reserved memory."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from heapdump import cli
from tests.analyses.types.test_block_types import Blocks
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.patching import poke
from tests.samples import SAMPLES


def rows(path: Path, *arguments: str) -> list[dict[str, Any]]:
    with redirect_stdout(StringIO()) as out:
        assert cli.run(["waste", str(path), *arguments, "--json", "-q"]) == 0
    found = json.loads(out.getvalue())["data"]
    assert isinstance(found, list)
    return found


def write(path: Path, blocks: Blocks) -> Path:
    process = ProcessBuilder(arch=blocks.arch, build=19041).heap(blocks.heap.build())
    path.write_bytes(poke(process.build(), *blocks.late).data)
    return path


@pytest.mark.parametrize("arch", ["x64", "x86"])
def test_copies_and_zeros_are_found_by_their_whole_content(tmp_path, arch: HeapArch):
    blocks = Blocks(arch)
    picture = bytes(range(1, 251)) * 8
    copies = [blocks.add(picture) for _ in range(5)]
    blocks.add(picture[:1000] + b"\0" + picture[1001:])  # differs in the middle alone
    blocks.add(picture[:-8])  # another size
    pair = [blocks.add(b"q" * 300), blocks.add(b"q" * 300)]
    for _ in range(3):
        blocks.add(bytes(100))  # too short
    empty = [blocks.add(b"", size) for size in (256, 5000)]
    found = rows(write(tmp_path / "copies.dmp", blocks), "--kind", "duplicates", "--kind", "zeros")
    assert [(one["kind"], one["bytes"], one["of_bytes"], one["count"]) for one in found] == [
        ("duplicates", 8000, 10000, 5), ("zeros", 5256, 5256, 2), ("duplicates", 300, 600, 2),
    ]  # fmt: skip
    assert [{int(at, 16) for at in one["sample"]} for one in found] == [{*copies}, {*empty}, {*pair}]
    assert found[0]["text"].startswith("5 copies of the same 2,000 bytes")
    assert len(rows(tmp_path / "copies.dmp", "--kind", "duplicates", "--min-size", "1K")) == 1
    assert len(rows(tmp_path / "copies.dmp", "--kind", "duplicates", "--min-bytes", "1K")) == 1


@pytest.mark.parametrize("arch", ["x64", "x86"])
def test_unused_capacity_is_counted_by_the_member_that_has_it(tmp_path, arch: HeapArch):
    blocks = Blocks(arch)
    for number in range(8):
        words = (int.from_bytes(b"name", "little"),) * 2
        blocks.add(blocks.words(number + 3, *words) + blocks.vector(100 + 8 * number, 60) + blocks.words(1))
    (found,) = rows(write(tmp_path / "vectors.dmp", blocks), "--kind", "capacity")
    capacity = sum(100 + 8 * number for number in range(8))
    assert (found["bytes"], found["of_bytes"], found["count"], found["trust"]) == (capacity - 480, capacity, 8, "guess")
    at, size = 3 * blocks.pointer, 7 * blocks.pointer
    assert found["text"].startswith(f"8 × the std::vector at +{at} of {size}-byte record: 53% of 1.0 kB is unused")


def test_waste_of_the_allocator_is_counted_by_heap(tmp_path):
    heap = NtHeapBuilder(base=0x20000000000, front_end="lfh")
    heap.busy(100)
    heap.free(40)
    heap.busy(30)
    heap.subsegment(4, [50, *[-1] * 9])
    heap.subsegment(4, [50] * 10)
    path = tmp_path / "heap.dmp"
    ProcessBuilder().heap(heap.build()).write(path)
    found = {one["kind"]: one for one in rows(path)}
    assert (found["sparse"]["bytes"], found["sparse"]["count"]) == (9 * 64, 1)
    assert found["free"]["bytes"] >= 640
    assert found["padding"]["heap"] == "0x20000000000"
    assert found["padding"]["bytes"] >= 12 + 16 + 11 * 14
    assert found["reserve"]["bytes"] > 0
    assert {one["kind"] for one in rows(path, "--kind", "free")} == {"free"}


def test_without_blocks_there_is_nothing_to_save(tmp_path):
    path = tmp_path / "none.dmp"
    ProcessBuilder().write(path)
    assert rows(path) == []


@pytest.mark.parametrize("arch", ["x64", "x86"])
def test_waste_of_each_type_of_blocks(tmp_path, arch: HeapArch):
    blocks = Blocks(arch)
    for number in range(6):
        for _ in range(3):
            blocks.add(b"a text that is there three times, number %d" % number, 60)
    for _ in range(4):
        blocks.add(b"", 64)
    path = write(tmp_path / "types.dmp", blocks)
    found = {(one["kind"], one["type"]): one for one in rows(path, "--by-type", "--min-size", "16")}
    copies = found["duplicates", "text (ASCII)"]
    assert (copies["bytes"], copies["of_bytes"], copies["count"]) == (12 * 60, 18 * 60, 18)
    assert copies["text"] == "18 copies of 6 contents: text (ASCII)"
    zeros = [one for (kind, _), one in found.items() if kind == "zeros"]
    assert sum(one["bytes"] for one in zeros) >= 4 * 64
    padding = {one["type"]: one for one in rows(path, "--by-type", "--kind", "padding")}
    assert padding["text (ASCII)"]["count"] == 18
    by_heap = sum(one["bytes"] for one in rows(path, "--kind", "padding"))
    assert sum(one["bytes"] for one in padding.values()) == by_heap


def test_copies_name_their_type(tmp_path):
    blocks = Blocks("x64")
    for _ in range(3):
        blocks.add(b"a text of several words, there three times".ljust(300, b"."))
    (found,) = rows(write(tmp_path / "types.dmp", blocks), "--kind", "duplicates")
    assert found["text"] == "3 copies of the same 300 bytes: text (ASCII)"
    assert found["type"] == "text (ASCII)"


def test_the_page_sums_up_each_kind_of_containers(tmp_path):
    blocks = Blocks("x64")
    for number in range(8):
        blocks.add(blocks.words(number + 3) + blocks.vector(1000, 400) + blocks.words(1))
    path = write(tmp_path / "vectors.dmp", blocks)
    with redirect_stdout(StringIO()) as out:
        cli.run(["waste", str(path), "--kind", "capacity", "-q"])
    assert "7.812 kB in 8 × std::vector, 60% of it unused capacity" in out.getvalue()


def test_freed_blocks_of_a_page_heap_are_kept_by_it(tmp_path: Path) -> None:
    SAMPLES["page-heap"](tmp_path / "crash.dmp")
    texts = [row["text"] for row in rows(tmp_path / "crash.dmp", "--kind", "free")]
    assert any(text.endswith("1 freed block that page heap keeps") for text in texts)
