"""The heap of AddressSanitizer: chunks found by the shadow, confirmed by their headers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.snapshot import open_dump
from tests.asking import ask
from tests.builders import BuiltDump, ProcessBuilder
from tests.builders.asan_heap import AsanHeapBuilder, Chunk
from tests.patching import poke, without_memory

SIZES = [1, 7, 8, 16, 24, 129, 5000]


def built(heap: AsanHeapBuilder) -> BuiltDump:
    process = ProcessBuilder(arch=heap.arch, build=19041)
    process.thread(4)
    return poke(heap.add_to(process).build(), *heap.patches())


def some_chunks(**options: object) -> AsanHeapBuilder:
    heap = AsanHeapBuilder(**options)  # type: ignore[arg-type]
    for i, size in enumerate(SIZES * 2):
        heap.chunk(size, busy=i % 3 != 2, stack=5 + i % 2, redzone=(16, 32, 128)[i % 3])
    return heap


def rows(path: Path) -> list[Chunk]:
    answer = ask(path.parent / "index", ["blocks", str(path), "--state", "all", "--json"])
    data = json.loads(answer.stdout)["data"]
    return [Chunk(int(b["address"], 16), b["size"], b["state"] == "busy", b["stack"] or 0) for b in data]


def plain(chunks: list[Chunk]) -> list[tuple[int, int, bool]]:
    return [(chunk.address, chunk.size, chunk.busy) for chunk in chunks]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(("arch", "base"), [("x64", 0x7F6C8D920000), ("x86", 0x12340000)])
def test_every_chunk_is_listed_with_its_size_and_state(tmp_path, arch, base, old):
    heap = some_chunks(arch=arch, base=base, old=old)
    path = tmp_path / "asan.dmp"
    path.write_bytes(built(heap).data)
    assert plain(rows(path)) == plain(heap.chunks)
    answer = ask(tmp_path / "index", ["heaps", str(path), "--json"])
    (record,) = json.loads(answer.stdout)["data"]
    busy = [chunk.size for chunk in heap.chunks if chunk.busy]
    assert (record["kind"], record["busy_blocks"], record["busy_bytes"]) == ("asan", len(busy), sum(busy))
    assert (answer.exit_code, record["address"]) == (0, hex(heap.runtime))


def test_a_static_runtime_is_found_in_the_program_itself(tmp_path):
    heap = some_chunks(name="service.exe")
    path = tmp_path / "asan.dmp"
    path.write_bytes(built(heap).data)
    assert plain(rows(path)) == plain(heap.chunks)


@given(sizes=st.lists(st.tuples(st.integers(1, 400), st.booleans()), min_size=1, max_size=40))
def test_random_chunks(tmp_path_factory, sizes):
    heap = AsanHeapBuilder()
    for size, busy in sizes:
        heap.chunk(size, busy=busy)
    path = tmp_path_factory.mktemp("asan") / "asan.dmp"
    path.write_bytes(built(heap).data)
    with open_dump(path, use_index=False) as snapshot:
        table = snapshot.walk.table
        found = [(b.address, b.size, b.state == "busy") for b in (table.block(i) for i in range(len(table)))]
    assert found == plain(heap.chunks)


def test_groups_by_stack_have_the_ids_of_the_runtime_as_keys(tmp_path):
    heap = some_chunks()
    path = tmp_path / "asan.dmp"
    path.write_bytes(built(heap).data)
    answer = ask(tmp_path / "index", ["leaks", str(path), "--group-by", "stack", "--json"])
    groups = {group["key"]: group["bytes"] for group in json.loads(answer.stdout)["data"]}
    sums = {f"AddressSanitizer stack {stack}": 0 for stack in (5, 6)}
    for chunk in heap.chunks:
        if chunk.busy:
            sums[f"AddressSanitizer stack {chunk.stack}"] += chunk.size
    assert groups == sums


def test_the_shadow_and_the_chunks_have_their_usage_and_their_items(tmp_path):
    heap = some_chunks()
    path = tmp_path / "asan.dmp"
    path.write_bytes(built(heap).data)
    data = json.loads(ask(tmp_path / "index", ["summary", str(path), "--json"]).stdout)["data"]
    usage = {row["name"]: row["bytes"] for row in data["usage"]}
    assert usage["ASanShadow"] == 0x1000
    items = {item["item"]: item["bytes"] for item in data["reconciliation"]}
    busy = sum(chunk.size for chunk in heap.chunks if chunk.busy)
    assert items["AddressSanitizer heap: allocated chunks"] == busy
    assert items["AddressSanitizer shadow"] == 0x1000
    assert sum(items.values()) == {row["name"]: row["bytes"] for row in data["state"]}["MEM_COMMIT"]


def test_a_damaged_header_is_an_error_and_its_chunk_a_guess_by_the_shadow(tmp_path):
    heap = some_chunks()
    victim = heap.chunks[4]
    path = tmp_path / "asan.dmp"
    path.write_bytes(poke(built(heap), (victim.address - 16, b"\x42" * 16)).data)
    answer = ask(tmp_path / "index", ["check", str(path), "--json"])
    (finding,) = json.loads(answer.stdout)["data"]
    assert (finding["kind"], finding["severity"], finding["address"]) == (
        "asan_chunk",
        "error",
        hex(victim.address - 16),
    )
    assert answer.exit_code == 1
    assert plain(rows(path)) == plain(heap.chunks)
    (record,) = (b for b in json.loads(ask(tmp_path / "index", ["blocks", str(path), "--json"]).stdout)["data"]
                 if b["address"] == hex(victim.address))  # fmt: skip
    assert record["trust"] == "guess"


def test_a_header_with_state_zero_is_no_chunk_and_no_damage(tmp_path):
    heap = some_chunks()
    path = tmp_path / "asan.dmp"
    path.write_bytes(poke(built(heap), (heap.chunks[0].address - 16, b"\0")).data)
    assert ask(tmp_path / "index", ["check", str(path)]).exit_code == 0
    assert plain(rows(path)) == plain(heap.chunks[1:])


def test_missing_shadow_is_said_with_its_size(tmp_path):
    heap = some_chunks()
    low = heap.shadow_of(heap.base) & -0x1000
    path = tmp_path / "asan.dmp"
    path.write_bytes(without_memory(built(heap), (low, low + 0x1000)))
    answer = ask(tmp_path / "index", ["heaps", str(path)])
    assert answer.exit_code == 4
    assert "4,096 bytes of shadow are not in the dump" in answer.stderr


@given(noise=st.binary(min_size=64, max_size=64), at=st.integers(0, 0x100))
def test_random_shadow_is_survived(tmp_path_factory, noise, at):
    heap = some_chunks()
    path = tmp_path_factory.mktemp("asan") / "asan.dmp"
    path.write_bytes(poke(built(heap), (heap.shadow_of(heap.base) + at, noise)).data)
    with open_dump(path, use_index=False) as snapshot:
        assert len(snapshot.walk.table) <= 200


REPORT = """==7==ERROR: AddressSanitizer: heap-buffer-overflow on address {bad:#x} at pc 0x1 bp 0x2 sp 0x3
WRITE of size 2 at {bad:#x} thread T3
    #0 0x401000 in Fill fill.c:9

{bad:#x} is located 0 bytes after {size}-byte region [{start:#x},{bad:#x})

SUMMARY: AddressSanitizer: heap-buffer-overflow fill.c:9 in Fill
"""


def test_the_runtimes_own_report_is_the_incident(tmp_path):
    heap = some_chunks()
    victim = heap.chunks[3]
    text = REPORT.format(bad=victim.address + victim.size, size=victim.size, start=victim.address)
    process = ProcessBuilder(build=19041)
    process.thread(4)
    process.region(0x28A70000000, 0x1000).memory(0x28A70000000, text.encode().ljust(0x1000, b"\0"))
    path = tmp_path / "asan.dmp"
    path.write_bytes(poke(heap.add_to(process).build(), *heap.patches()).data)
    answer = ask(tmp_path / "index", ["check", str(path), "--json"])
    (record,) = json.loads(answer.stdout)["data"]
    assert (answer.exit_code, record["kind"], record["bug"]) == (1, "asan_report", "heap-buffer-overflow")
    assert record["address"] == hex(victim.address + victim.size)
    assert record["block"]["address"] == hex(victim.address)
    assert (record["access"]["kind"], record["access"]["bytes"]) == ("write", 2)
    page = ask(tmp_path / "index", ["check", str(path)]).stdout
    assert "    WRITE of size 2" in page and "#0 0x401000 in Fill fill.c:9" in page
