"""Owners of memory: each row of the table names what was built for it, and nothing without its evidence."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.analyses.memory.summary import summarize
from heapdump.runtimes.owners.owner import Program
from heapdump.runtimes.owners.rows import ROWS
from heapdump.snapshot import Snapshot, open_dump
from tests.asking import ask
from tests.builders import BuiltDump, ProcessBuilder, owners
from tests.builders.owners import BASE, DATA, GIB, KIB, MIB, PAGE, Owned
from tests.patching import poke

Make = Callable[[Owned], object]
KEY = 0x5D31A7E4C2980B16


def _segments(owned: Owned) -> None:
    for i in range(3):
        start = BASE + i * 64 * MIB
        owned.reserve(start, 32 * MIB, MIB, owners.mimalloc_segment(start, KEY))


def _pages(owned: Owned) -> None:
    start = BASE + 256 * KIB
    owned.reserve(start, 256 * KIB, 256 * KIB, owners.v8_page(start, 256 * KIB))


def _super_pages(owned: Owned) -> None:
    for i in range(3):
        owners.super_page(owned, BASE + i * 2 * MIB, BASE)


def _tables(owned: Owned) -> None:
    owned.reserve(BASE, 64 * KIB, 64 * KIB, protect=0x02)
    owned.reserve(BASE + 64 * KIB, 64 * KIB, 64 * KIB)
    owned.reserve(BASE + 128 * KIB, 128 * MIB - 128 * KIB)


def _bitmap(owned: Owned) -> None:
    owned.process.region(0x7DF500000000, 2 << 40, state="MEM_RESERVE", type="MEM_MAPPED")
    owned.spans.append((0x7DF500000000, 2 << 40))


def _pools(owned: Owned) -> None:
    pools = b"".join(owners.unreal_pool(16 * (i + 1)).ljust(64 * KIB, b"\0") for i in range(4))
    owned.reserve(BASE, 256 * KIB, 256 * KIB, pools)


def _chunks(owned: Owned) -> None:
    arena = BASE + 64 * MIB + 0x40
    owned.process.region(arena & -PAGE, PAGE).memory(
        arena & -PAGE, bytes(0x40) + b"\x24\x3d\x7d\x94".ljust(0xFC0, b"\1")
    )
    for i in range(2):
        owned.reserve(BASE + 2 * i * MIB, MIB, 64 * KIB, struct.pack("<Q", arena))


def _driver(owned: Owned) -> None:
    owned.reserve(BASE, MIB, MIB)
    owned.patches.append((DATA + 0x40, struct.pack("<Q", BASE)))


def _mapped(head: bytes) -> Make:
    def make(owned: Owned) -> None:
        owned.process.region(BASE, 64 * KIB, type="MEM_MAPPED", protect=2).memory(BASE, head.ljust(64 * KIB, b"\0"))
        owned.spans.append((BASE, 64 * KIB))

    return make


CASES: dict[str, tuple[str, Make, str, bytes]] = {
    "V8 heap cage": ("V8 heap cage", lambda o: o.reserve(BASE, 4 * GIB, MIB), "electron.exe", b""),
    "V8 sandbox": ("V8 sandbox", lambda o: o.reserve(BASE, 1024 * GIB, MIB), "chrome.dll", b""),
    "V8 trusted": ("V8 trusted range", lambda o: o.reserve(BASE, GIB, MIB), "msedge.dll", b""),
    "V8 tables": ("V8 pointer tables", _tables, "node.exe", b""),
    "pools": ("Chromium pools", lambda o: o.reserve(BASE, 32 * GIB, MIB), "chrome.dll", b""),
    "metadata": ("Chromium pools", lambda o: o.reserve(BASE + MIB, 16 * GIB, PAGE), "chrome.dll", b""),
    "bitmap": ("Control Flow Guard bitmap", _bitmap, "", b""),
    "V8 WebAssembly": ("V8 WebAssembly memory", lambda o: o.reserve(BASE + 64 * KIB, 10 * GIB, MIB), "node.exe", b""),
    "V8 code": ("V8 code range", lambda o: o.reserve(BASE, 128 * MIB, MIB, protect=0x40), "node.exe", b""),
    "V8 pages": ("V8 heap pages", _pages, "app.dll", b"Fatal JavaScript invalid size"),
    "Go": ("Go heap arenas", lambda o: o.reserve(0xC000000000, 64 * MIB, 4 * MIB), "service.dll", b"\xff Go buildinf:"),
    "mimalloc segments": ("mimalloc segments", _segments, "", b""),
    "mimalloc arenas": ("mimalloc arenas", lambda o: o.reserve(BASE, GIB, MIB), "uv.dll", b"mimalloc: warning: "),
    "PartitionAlloc": ("PartitionAlloc", _super_pages, "", b""),
    "mozjemalloc": ("jemalloc chunks", _chunks, "mozglue.dll", b""),
    "jemalloc": ("jemalloc chunks", lambda o: o.reserve(BASE, 2 * MIB, MIB), "redis.dll", b"<jemalloc>"),
    "tcmalloc": ("tcmalloc spans", lambda o: o.reserve(BASE, 3 * MIB, MIB), "libtcmalloc_minimal.dll", b""),
    "Unreal": ("Unreal binned allocator", _pools, "Game-Win64-Shipping.exe", b""),
    "Python": ("Python object arenas", lambda o: o.reserve(BASE, 256 * KIB, 256 * KIB, owners.python_pools(BASE)), "python311.dll", b""),
    "driver": ("GPU driver", _driver, "nvwgf2umx.dll", b""),
    "DirectX": ("DirectX", _driver, "d3d11.dll", b""),
    "write-combined": ("GPU driver", lambda o: o.reserve(BASE, MIB, MIB, protect=0x404), "dxgi.dll", b""),
    "LuaJIT": ("LuaJIT JIT code", lambda o: o.reserve(BASE, 128 * KIB, 128 * KIB, protect=0x20), "lua51.dll", b""),
    "OpenJ9": ("OpenJ9 (Java)", _driver, "j9gc29.dll", b""),
    "stack": ("stack of no listed thread", lambda o: owners.stack(o, BASE), "", b""),
    "SQLite": ("mapped SQLite database", _mapped(b"SQLite format 3\0\x10\0"), "", b""),
    "WAL": ("mapped SQLite WAL index", _mapped(owners.sqlite_wal_index()), "", b""),
    "font": ("mapped font", _mapped(b"\0\1\0\0\0\x10\1\0"), "", b""),
    "jimage": ("mapped Java runtime image", _mapped(b"\xda\xda\xfe\xca"), "", b""),
}  # fmt: skip
"""Case → row, memory, module, text in the module. Without a module the pattern proves the owner alone."""


def built(case: str, *, with_program: bool = True) -> tuple[BuiltDump, Owned]:
    _, make, module, text = CASES[case]
    owned = Owned(ProcessBuilder(build=19041))
    if with_program and module:
        owned.module(module, text)
    elif module:
        owned.module("other.dll")
    make(owned)
    owned.process.thread(4)
    return poke(owned.process.build(), *owned.patches), owned


def named(snapshot: Snapshot) -> dict[str, int]:
    """Owner → bytes."""
    rows = summarize(snapshot.usage, snapshot.heaps, snapshot.walk).unknown
    return {row.owner.removesuffix(" (presumed)"): row.bytes for row in rows if row.evidence}


@pytest.mark.parametrize("case", list(CASES))
def test_what_was_built_for_an_owner_is_named_to_the_byte(open_built, case):
    dump, owned = built(case)
    with open_built(dump) as snapshot:
        assert named(snapshot) == {CASES[case][0]: sum(size for _, size in owned.spans)}


@pytest.mark.parametrize("case", [case for case, row in CASES.items() if row[2] and case != "mozjemalloc"])
def test_no_owner_is_named_without_its_program(open_built, case):
    with open_built(built(case, with_program=False)[0]) as snapshot:
        assert named(snapshot) == {}


@pytest.mark.parametrize("case", list(CASES))
def test_totals_are_those_of_the_map(open_built, case):
    dump, _ = built(case)
    with open_built(dump) as snapshot:
        summary = summarize(snapshot.usage, snapshot.heaps, snapshot.walk)
        unknown = next(row for row in summary.usage if row.name == "<unknown>")
        assert sum(row.bytes for row in summary.unknown) == unknown.bytes
        assert sum(row.committed_bytes for row in summary.unknown) == unknown.committed_bytes
        assert sum(line.bytes for line in summary.reconciliation) == summary.committed_bytes


def test_every_row_of_the_table_is_built_here():
    many = {row.name for row in ROWS if row.name.startswith("mapped ") or row.name.endswith("JIT code")}
    assert {row.name for row in ROWS} - many == {row[0] for row in CASES.values()} - many
    assert len(many & {row[0] for row in CASES.values()}) >= 5  # one pattern with other modules, or other magic numbers
    assert all(row.source for row in ROWS)
    assert all(row.program is None or row.program != Program() for row in ROWS)


def test_a_program_is_recognised_by_an_export(open_built):
    owned = Owned(ProcessBuilder(build=19041)).module("static.exe")
    owned.reserve(BASE, GIB, MIB).process.thread(4)
    table = bytearray(0x100)
    struct.pack_into("<6I", table, 0x10, 1, 1, 1, 0xE040, 0xE044, 0xE048)
    struct.pack_into("<2IH", table, 0x40, 0x1000, 0xE050, 0)
    table[0x50:0x5A] = b"mi_malloc\0"
    patches = [(DATA, bytes(table)), (owners.MODULE + 0x98 + 112, struct.pack("<2I", 0xE000, 0x100))]
    with open_built(poke(owned.process.build(), *patches)) as snapshot:
        (row,) = [one for one in summarize(snapshot.usage, snapshot.heaps, snapshot.walk).unknown if one.evidence]
    assert row.owner == "mimalloc arenas"
    assert row.evidence.startswith("static.exe exports mi_malloc; 1 GB of address space reserved")


def test_modules_of_windows_are_not_searched_for_texts(open_built):
    owned = Owned(ProcessBuilder(build=19041))
    owned.process.module(owners.MODULE, owners.MODULE_BYTES, "C:\\Windows\\System32\\edge.dll")
    owned.reserve(BASE, GIB, MIB).process.thread(4)
    with open_built(poke(owned.process.build(), (DATA, b"mimalloc: warning: "))) as snapshot:
        assert named(snapshot) == {}


def test_a_claim_of_a_structure_wins_over_a_pattern(open_built):
    owned = Owned(ProcessBuilder(build=19041))
    owned.process.thread(4).thread(5)
    with open_built(owned.process) as snapshot:
        assert named(snapshot) == {}  # both stacks have the pattern, and are the threads'


def answer(path: Path, *words: str) -> Any:
    return json.loads(ask(path.parent / "index", [*words, "--json"]).stdout)["data"]


def test_summary_regions_and_triage_say_who_and_why(tmp_path):
    path = tmp_path / "v8.dmp"
    path.write_bytes(built("V8 code")[0].data)
    (unknown,) = [row for row in answer(path, "summary", str(path))["unknown"] if row["evidence"]]
    assert (unknown["owner"], unknown["trust"]) == ("V8 code range", "derived")
    (region,) = answer(path, "regions", str(path), "--at", hex(BASE))
    assert (region["usage"], region["detail"], region["trust"]) == ("<unknown>", "V8 code range", "derived")
    assert region["evidence"] == "node.exe is loaded; 128 MB reserved with 1 MB of executable memory"
    items = answer(path, "triage", str(path))["memory"]["items"]
    assert [item["bytes"] for item in items if item["item"] == "V8 code range"] == [MIB]


@pytest.mark.real
def test_a_real_electron_process_is_named_to_the_byte(recorded):
    path = recorded("real/partial/win11-26200-x64-electron-crashpad.dmp.xz")
    with open_dump(path, use_index=False) as snapshot:
        found = named(snapshot)
    tables = 4 * 512 * MIB
    assert found == {
        "Control Flow Guard bitmap": 2 << 40, "Chromium pools": found["Chromium pools"], "V8 heap cage": 8 * GIB,
        "V8 sandbox": (1 << 40) + 296 * GIB - 24 * GIB, "V8 pointer tables": tables, "V8 trusted range": GIB,
        "V8 code range": 512 * MIB,
    }  # fmt: skip


@pytest.mark.real
@pytest.mark.parametrize(
    "name", ["managed/t10", "managed/t31", "reports/09-heap-is-small-part", "oracle/26100.4061/basic"]
)
def test_no_owner_is_named_in_other_recordings(recorded, name):
    with open_dump(recorded(f"{name}.dmp.xz"), use_index=False) as snapshot:
        assert named(snapshot) == {}


@given(
    st.binary(min_size=0x180, max_size=0x400),
    st.sampled_from(["mimalloc segments", "V8 pages", "Unreal", "mozjemalloc"]),
)
def test_any_header_is_looked_at_without_a_traceback(tmp_path_factory, head, case):
    dump, owned = built(case)
    path = tmp_path_factory.mktemp("fuzz") / "one.dmp"
    path.write_bytes(poke(dump, *((start, head) for start, _ in owned.spans)).data)
    with open_dump(path, use_index=False) as snapshot:
        rows = summarize(snapshot.usage, snapshot.heaps, snapshot.walk).unknown
    assert sum(row.bytes for row in rows) > 0
