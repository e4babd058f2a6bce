"""The heap of AddressSanitizer: chunks found by the shadow, confirmed by their headers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.analyses.damage.asan import asan_gaps
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


def test_shadow_full_of_chunks_without_headers_is_bounded(tmp_path):
    """A megabyte of shadow that promises 524,288 chunks: a bounded number is listed, and the rest is said."""
    heap = some_chunks()
    size = 1 << 20
    process = ProcessBuilder(build=19041)
    process.thread(4)
    base = 0x7F6D00000000
    process.region(base, 8 * size)
    process.region(heap.shadow_of(base), size).memory(heap.shadow_of(base), b"\xfa\x00" * (size // 2))
    path = tmp_path / "asan.dmp"
    path.write_bytes(poke(heap.add_to(process).build(), *heap.patches()).data)
    answer = ask(tmp_path / "index", ["heaps", str(path)])
    assert answer.exit_code == 4
    assert "507,904 chunks without a sound header are left out" in answer.stderr
    assert len(rows(path)) == len(heap.chunks) + (1 << 14)


def block(path: Path, address: int) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(ask(path.parent / "index", ["block", str(path), hex(address), "--json"]).stdout)[
        "data"
    ]
    return data


@pytest.mark.parametrize("old", [False, True])
def test_block_shows_the_shadow_and_the_header_of_a_chunk(tmp_path, old):
    heap = AsanHeapBuilder(old=old)
    first = heap.chunk(7, stack=21, kind=3)
    freed = heap.chunk(24, busy=False, stack=22, kind=2)
    path = tmp_path / "asan.dmp"
    path.write_bytes(built(heap).data)
    found = block(path, first + 7)
    assert (found["shadow"]["byte"], found["shadow"]["meaning"]) == (7, "partially addressable")
    assert found["chunk"] == {
        "function": "operator new[]",
        "thread": 0,
        "stack": 21,
        "free_thread": None,
        "free_stack": None,
    }
    (row,) = [row for row in found["shadow"]["rows"] if row["address"] == hex(heap.base)]
    assert row["bytes"].startswith("fafa07fafafafdfdfd")
    found = block(path, freed)
    assert (found["shadow"]["meaning"], found["chunk"]["function"]) == ("freed heap region", "operator new")
    page = ask(tmp_path / "index", ["block", str(path), hex(freed)]).stdout
    assert f"=>{heap.base:#x}: fa fa 07 fa fa fa[fd]fd fd" in page
    assert (
        "legend: 01-07 partially addressable (the first 1 to 7 bytes), fa heap left redzone, fd freed heap region"
        in page
    )
    assert "(stack 1094795585)" in page  # the id lies in the program's first bytes: 0x41414141


def test_block_without_addresssanitizer_has_no_shadow(tmp_path):
    path = tmp_path / "plain.dmp"
    process = ProcessBuilder(build=19041)
    process.thread(4)
    path.write_bytes(process.build().data)
    assert "shadow" not in block(path, 0x10000)


@pytest.mark.parametrize(
    ("value", "bug", "at"),
    [
        (0xFD, "heap-use-after-free", 4), (0xFA, "heap-buffer-overflow", 24), (0xFA, "heap-buffer-underflow", -1),
        (0xF2, "stack-buffer-overflow", 0), (0xF1, "stack-buffer-underflow", 0), (0xF5, "stack-use-after-return", 0),
        (0xF8, "stack-use-after-scope", 0), (0xF9, "global-buffer-overflow", 0), (0xF7, "use-after-poison", 0),
        (0xFC, "container-overflow", 0), (0xCA, "dynamic-stack-buffer-overflow", 0),
    ],
)  # fmt: skip
def test_without_a_report_the_shadow_of_the_exceptions_address_tells_the_bug(tmp_path, value, bug, at):
    heap = AsanHeapBuilder()
    heap.chunk(24)
    chunk = heap.chunk(24, busy=value != 0xFD)
    heap.chunk(24)
    other = 0x33330000
    address = chunk + at if value in (0xFA, 0xFD) else other
    process = ProcessBuilder(build=19041)
    process.thread(4, ip=0x401000)
    process.region(other, 0x10000)
    process.region(heap.shadow_of(other) & -0x1000, 0x1000)
    process.memory(heap.shadow_of(other) & -0x1000, bytes([value]) * 0x1000)
    process.exception(4, 0xC0000005, 0x401000, (1, address))
    path = tmp_path / "asan.dmp"
    path.write_bytes(poke(heap.add_to(process).build(), *heap.patches()).data)
    answer = ask(tmp_path / "index", ["check", str(path), "--json"])
    (record,) = [one for one in json.loads(answer.stdout)["data"] if one["kind"] == "asan_report"]
    assert (answer.exit_code, record["bug"], record["address"]) == (1, bug, hex(address))
    assert f"AddressSanitizer's shadow of {address:#x} is {value:02x}" in record["message"]
    if value in (0xFA, 0xFD):
        assert record["block"]["address"] == hex(chunk)


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("pointer", [8, 4])
def test_the_report_in_the_exception_is_the_incident(tmp_path, wide, pointer):
    """ASAN_SAVE_DUMPS: the exception leads to four texts."""
    text = REPORT.format(bad=0x12345678, size=24, start=0x12345660)
    at = 0x28A70000000 if pointer == 8 else 0x20000000
    texts = ["heap-buffer-overflow", "short", text, ""]
    memory, rows_ = bytearray(0x100), b""
    for one in texts:
        raw = one.encode("utf-16-le" if wide else "ascii") + b"\0\0"
        rows_ += struct.pack("<Q", len(one)) + (at + len(memory)).to_bytes(pointer, "little").ljust(8, b"\0")
        memory += raw
    head = struct.pack("<2I", 8 + len(rows_), 0xE073616F) + rows_
    memory[: len(head)] = head
    process = ProcessBuilder(arch="x64" if pointer == 8 else "x86", build=19041)
    process.thread(4, ip=0x401000)
    process.region(at, 0x4000).memory(at, bytes(memory).ljust(0x4000, b"\0"))
    process.exception(4, 0xE073616E, 0x401000, (at,))
    path = tmp_path / "saved.dmp"
    path.write_bytes(process.build().data)
    answer = ask(tmp_path / "index", ["check", str(path), "--json"])
    (record,) = [one for one in json.loads(answer.stdout)["data"] if one["kind"] == "asan_report"]
    assert (answer.exit_code, record["bug"], record["address"]) == (1, "heap-buffer-overflow", "0x12345678")
    assert (record["access"]["kind"], record["access"]["bytes"]) == ("write", 2)


@given(noise=st.binary(max_size=0x200), at=st.integers(0, 0xF0))
def test_a_damaged_exception_structure_is_survived(tmp_path_factory, noise, at):
    memory = bytearray(struct.pack("<2I8Q", 0x48, 0xE073616F, *(0x20, 0x20000080) * 4).ljust(0x400, b"a"))
    memory[at : at + len(noise)] = noise
    process = ProcessBuilder(arch="x86", build=19041)
    process.thread(4, ip=0x401000)
    process.region(0x20000000, 0x1000).memory(0x20000000, bytes(memory).ljust(0x1000, b"\0"))
    process.exception(4, 0xE073616E, 0x401000, (0x20000000,))
    path = tmp_path_factory.mktemp("asan") / "saved.dmp"
    path.write_bytes(process.build().data)
    with open_dump(path, use_index=False) as snapshot:
        assert len(snapshot.incidents) <= 2


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


def test_reports_that_were_cut_or_left_out_are_said(tmp_path):
    heap = some_chunks()
    text = REPORT.format(bad=0x1008, size=8, start=0x1000).split("SUMMARY")[0]
    texts = [text.ljust(5 << 20, "x"), *(text.replace("WRITE of size 2", f"WRITE of size {i}") for i in range(1_100))]
    content = "\0".join(texts).encode().ljust(8 << 20, b"\0")
    process = ProcessBuilder(build=19041)
    process.thread(4)
    process.region(0x28A70000000, len(content)).memory(0x28A70000000, content)
    path = tmp_path / "asan.dmp"
    path.write_bytes(poke(heap.add_to(process).build(), *heap.patches()).data)
    for command in "check", "triage", "summary":
        said = ask(tmp_path / "index", [command, str(path)]).stderr
        assert "AddressSanitizer's report at 0x28a7000" in said and "characters are known; it goes on" in said
        assert "such as the text at 0x28a7" in said and "there are too many" in said


@pytest.mark.parametrize(
    ("region", "is_mapped", "end", "is_cut"),
    [
        (0x2000, True, b"x", True),
        (0x1000, False, b"x", True),
        (0x1000, True, b"x", False),
        (0x2000, True, b"\0", False),
    ],
)
def test_a_report_is_cut_where_the_dump_has_no_more_of_its_text(tmp_path, region, is_mapped, end, is_cut):
    heap = some_chunks()
    text = REPORT.format(bad=0x1008, size=8, start=0x1000).split("SUMMARY")[0].encode()
    process = ProcessBuilder(build=19041)
    process.thread(4)
    process.region(0x28A70000000, region).memory(0x28A70000000, text.ljust(0x1000, end))
    heap.add_to(process)
    if not is_mapped:
        process.dump.drop(16)
    path = tmp_path / "asan.dmp"
    path.write_bytes(poke(process.build(), *heap.patches()).data)
    with open_dump(path, use_index=False) as snapshot:
        assert [one.is_cut for one in snapshot.report_context.asan_reports.reports] == [is_cut]
        assert len(asan_gaps(snapshot.report_context)) == is_cut
