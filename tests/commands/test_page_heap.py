"""`page-heap`, and what `block`, `summary` and `leaks` say of page heap and CRT debug blocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heapdump.cli import run
from tests.builders import ProcessBuilder
from tests.builders.page_heap import PageHeapBuilder
from tests.heaps.test_crt import GUARD, NAMES, header

PLACE = 0x30000000
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PageHeapBuilder:
    """A page heap whose dump is the only one in the current folder: two busy blocks, a freed one, a crash at that."""
    monkeypatch.delenv("HEAPDUMP_DUMP", raising=False)
    monkeypatch.chdir(tmp_path)
    builder = PageHeapBuilder(PLACE)
    allocated, freed = builder.trace(0x401000, 0x402000), builder.trace(0x403000)
    builder.block(100, trace=allocated, thread=7)
    source = header(("x64", "ucrt"), (0, 0), NAMES, 12, 1, 60, 3) + b"\xcd" * 60 + GUARD
    builder.block(len(source), trace=allocated, thread=7, fill=source)
    gone = builder.block(144, state="freed", trace=freed, thread=8)
    process = ProcessBuilder(build=19041, nt_global_flag=0x02000000).heap(builder.build())
    process.region(NAMES, 0x1000).memory(NAMES, b"main.cpp".ljust(0x1000, b"\0"))
    process.thread(99).dump.exception(99, 0xC0000005, 0x401000, (0, gone + 8))
    process.write(tmp_path / "crash.dmp")
    return builder


def ask(capfd: Capture, *arguments: str) -> Any:
    assert run([*arguments, "--json", "-q"]) == 0
    return json.loads(capfd.readouterr().out)["data"]


def asked(capfd: Capture, *arguments: str) -> str:
    assert run([*arguments, "-q"]) == 0
    return capfd.readouterr().out


def test_roots(page: PageHeapBuilder, capfd: Capture) -> None:
    (root,) = ask(capfd, "page-heap")
    assert (root["address"], root["mode"], root["role"], root["stack_traces"]) == (hex(PLACE), "full", "process", True)
    assert (root["busy_blocks"], root["freed_blocks"], root["busy_bytes"]) == (2, 1, 212)
    assert root["virtual_bytes"] == 3 * 0x2000
    assert root["cost"] == pytest.approx(root["committed_bytes"] / 212)
    assert "1 page heap: 2 busy blocks with 212 B requested" in asked(capfd, "page-heap", "crash.dmp")


def test_blocks_by_state(page: PageHeapBuilder, capfd: Capture) -> None:
    truth = page.build().truth.blocks
    for state, names in (("busy", {"busy"}), ("freed", {"freed"}), ("all", {"busy", "freed"})):
        rows = ask(capfd, "page-heap", "--heap", hex(PLACE), "--state", state)
        assert {row["address"] for row in rows} == {hex(b.user) for b in truth if b.state in names}
        assert {row["kind"] for row in rows} == {"page"}
    freed = ask(capfd, "page-heap", "--state", "freed")[0]
    assert (freed["stack"], freed["free_stack"]) == (None, truth[2].trace)


def test_one_block(page: PageHeapBuilder, capfd: Capture) -> None:
    busy, _, freed = page.build().truth.blocks
    record = ask(capfd, "page-heap", hex(busy.user + 5))
    assert (record["offset"], record["relation"], record["stack"]) == (5, "user", busy.trace)
    assert [frame["address"] for frame in record["frames"]] == ["0x401000", "0x402000"]
    assert record["page"] == {
        "node": hex(busy.node), "virtual_block": hex(busy.virtual), "virtual_bytes": 0x2000, "guard": hex(busy.guard),
        "thread": 7, "header_in_dump": True, "damage": [],
    }  # fmt: skip
    record = ask(capfd, "page-heap", "crash.dmp", hex(freed.user))
    assert [frame["address"] for frame in record["free_frames"]] == ["0x403000"]
    assert record["frames"] == []
    shown = asked(capfd, "page-heap", hex(busy.user))
    assert "stamps and fills hold" in shown
    assert f"allocated by stack {busy.trace:#x}" in shown
    assert "freed by stack" in asked(capfd, "block", hex(freed.user))


def test_an_address_of_no_page_heap_block_is_refused(page: PageHeapBuilder, capfd: Capture) -> None:
    assert run(["page-heap", "0x1234"]) == 2
    assert "heapdump block crash.dmp 0x1234" in capfd.readouterr().err


def test_summary_and_block_tell_the_crash(page: PageHeapBuilder, capfd: Capture) -> None:
    freed = page.build().truth.blocks[2]
    crash = ask(capfd, "summary")["crash"]
    assert (crash["bug"], crash["block"]["address"]) == ("heap-use-after-free", hex(freed.user))
    assert [frame["address"] for frame in crash["freed_by"]] == ["0x403000"]
    assert crash["allocated_by"] == []
    sentence = f"read at offset +8 of a 144-byte block [{freed.user:#x},{freed.user + 144:#x})"
    assert f"heap: heap-use-after-free at {freed.user + 8:#x}: {sentence}" in asked(capfd, "summary")
    assert f"heap-use-after-free: {sentence}" in asked(capfd, "block", hex(freed.user + 8))
    assert any("heap-use-after-free" in line for line in ask(capfd, "summary")["findings"])


def test_crt_blocks_in_blocks_block_and_leaks(page: PageHeapBuilder, capfd: Capture) -> None:
    plain, debug, _ = page.build().truth.blocks
    rows = {row["address"]: row for row in ask(capfd, "blocks")}
    assert "crt" not in rows[hex(plain.user)]
    crt = rows[hex(debug.user)]["crt"]
    assert crt == {
        "address": hex(debug.user + 0x30), "size": 60, "file": "main.cpp", "line": 12, "request": 3, "use": "normal",
        "subtype": 0, "damage": [],
    }  # fmt: skip
    assert "main.cpp(12) : {3} normal block" in asked(capfd, "block", hex(debug.user))
    groups = {group["key"]: group["count"] for group in ask(capfd, "leaks", "--group-by", "source")}
    assert groups == {"main.cpp(12)": 1, "not a block of the CRT's debug heap": 1}
    (by_stack,) = ask(capfd, "leaks", "--group-by", "stack")
    assert (by_stack["count"], [frame["address"] for frame in by_stack["frames"]]) == (2, ["0x401000", "0x402000"])


def test_a_double_free_of_a_page_heap_block_is_one_report_at_the_block(capfd: Capture, tmp_path: Path) -> None:
    page = PageHeapBuilder(0x30000000)
    freed = page.block(144, state="freed")
    built = page.build()
    process = ProcessBuilder(build=19041, nt_global_flag=0x02000000).heap(built).thread(99)
    values = (0x32725641, 7, 0x30001000, built.truth.blocks[0].node, 144, 0)
    process.dump.exception(99, 0xC0000421, 0x7FFB0000, values)
    process.write(tmp_path / "stop.dmp")
    assert run(["check", str(tmp_path / "stop.dmp"), "-q"]) == 1
    (report,) = capfd.readouterr().out.split("\n==")[1:]
    assert report.startswith(f"4242==ERROR: heapdump: double-free on address {freed:#x}\n")
    assert "seen by: verifier stop 0x7, exception 0xc0000421\n" in report
    assert f"{freed:#x} is located 0 bytes inside 144-byte region [{freed:#x},{freed + 144:#x}), free page" in report
    for name in ("triage", "summary"):
        run([name, str(tmp_path / "stop.dmp"), "-q"])
        page_text = capfd.readouterr().out
        assert "no other damage found in 1 heap" in page_text and "no damage found" not in page_text
