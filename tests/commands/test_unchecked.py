"""A heap without checks is never reported as healthy: `check`, and the verdict line of `summary` and `heap`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heapdump.cli import run
from heapdump.heaps.nt import NtAllocator
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.heaps.test_discovery import PLACE, page, with_handle
from tests.patching import poke

HEAP, OTHER = 0x20000000000, 0x20010000000
NO_ALLOCATOR = f"heap {OTHER:#x} (unknown) is not checked: no allocator recognises it"
Capture = pytest.CaptureFixture[str]


def with_a_wine_heap(path: Path) -> None:
    """A healthy NT heap, and beside it one of Wine: FFEEFFEE in Windows' place, EEFFEEFF nowhere."""
    builder = NtHeapBuilder(base=HEAP)
    for size in (90, 40, 24):
        builder.busy(size)
    process = ProcessBuilder().heap(builder.build())
    process.heap_handle(OTHER, page({0x10: 0xFFEEFFEE}, size=4))
    process.write(path)


def ask(capfd: Capture, *arguments: str, code: int) -> tuple[list[str], list[str]]:
    """(lines on stdout, lines on stderr)."""
    assert run([*arguments, "--color", "never"]) == code
    captured = capfd.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


def test_a_heap_of_wine_is_not_checked(tmp_path: Path, capfd: Capture) -> None:
    with_a_wine_heap(dump := tmp_path / "wine.dmp")
    out, err = ask(capfd, "check", str(dump), code=4)
    assert out[0].startswith("no damage found: 1 heap with ")
    assert NO_ALLOCATOR in out
    assert [line for line in err if "is not checked" in line] == []  # the page says it
    assert f"heapdump: incomplete: heap {OTHER:#x} is not verified: " in err[0]
    assert ask(capfd, "check", str(dump), "--heap", hex(HEAP), code=4)[0][1:] == []
    out, _ = ask(capfd, "check", str(dump), "--json", code=4)
    document = json.loads("\n".join(out))
    assert (document["complete"], document["data"]) == (False, [])
    assert NO_ALLOCATOR in document["notes"]


def test_the_verdict_line_says_so(tmp_path: Path, capfd: Capture) -> None:
    with_a_wine_heap(dump := tmp_path / "wine.dmp")
    out, err = ask(capfd, "summary", str(dump), code=4)
    assert f"heap: no damage found in 1 heap; 1 heap not checked → heapdump check {dump}" in out
    assert len(err) == 1 and err[0].startswith(f"heapdump: incomplete: heap {OTHER:#x} is not verified: ")
    out, _ = ask(capfd, "heap", str(dump), hex(OTHER), code=4)
    assert f"heap: 1 heap not checked → heapdump check {dump} --heap {OTHER:#x}" in out
    out, _ = ask(capfd, "heap", str(dump), hex(HEAP), code=4)
    assert f"heap: no damage found in 1 heap → heapdump check {dump} --heap {HEAP:#x}" in out


def test_a_dump_with_nothing_but_such_heaps(tmp_path: Path, capfd: Capture) -> None:
    process = ProcessBuilder()
    process.heap_handle(OTHER, page({0x10: 0xFFEEFFEE}, size=4))
    process.write(dump := tmp_path / "wine.dmp")
    assert ask(capfd, "check", str(dump), code=4)[0] == ["no heap could be checked", "", NO_ALLOCATOR]
    assert "HEAP     1 heap not checked" in ask(capfd, "triage", str(dump), code=4)[0]


def test_a_kind_that_brings_no_check(tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its heaps are walked; a walk alone does not show that they are healthy."""
    monkeypatch.setattr(NtAllocator, "check", lambda self, job: False)
    builder = NtHeapBuilder(base=HEAP)
    builder.busy(90)
    ProcessBuilder().heap(builder.build()).write(dump := tmp_path / "nt.dmp")
    line = f"heap {HEAP:#x} (nt) is not checked: there are no checks for heaps of this kind"
    out, err = ask(capfd, "check", str(dump), code=4)
    assert out == ["no heap could be checked", "", line]
    assert err == []
    assert f"heap: 1 heap not checked → heapdump check {dump}" in ask(capfd, "summary", str(dump), code=4)[0]
    assert "HEAP     1 heap not checked" in ask(capfd, "triage", str(dump), code=4)[0]


def test_a_heap_whose_walk_failed(tmp_path: Path, capfd: Capture) -> None:
    """A segment heap by its signature and metadata, of which no known layout holds; beside it a healthy heap."""
    bounds = {0xE8 + 8 * i: value for i, value in enumerate((PLACE + 0x1000, PLACE + 0x3000, PLACE + 0x100000))}
    with_handle(page({0x10: 0xDDEEDDEE} | bounds)).write(dump := tmp_path / "segment.dmp")
    out, _ = ask(capfd, "check", str(dump), code=4)
    assert out[0].startswith("no damage found: 1 heap with ")
    assert out[2:] == [f"heap {PLACE:#x} (segment) is not checked: none of its blocks could be read"]
    verdict = f"heap: no damage found in 1 heap; 1 heap not checked → heapdump check {dump}"
    assert verdict in ask(capfd, "summary", str(dump), code=4)[0]


def test_damage_that_the_page_tells_is_not_told_again_on_stderr(tmp_path: Path, capfd: Capture) -> None:
    builder = NtHeapBuilder(base=HEAP)
    for size in (90, 40, 24):
        builder.busy(size)
    built = builder.build()
    damaged = built.truth.busy[1]
    dump = tmp_path / "crash.dmp"
    dump.write_bytes(poke(ProcessBuilder().heap(built).build(), (damaged.entry + 8, b"Z" * 8)).data)
    for command in (["heaps", str(dump)], ["heap", str(dump), f"{HEAP:#x}"]):
        out, err = ask(capfd, *command, "--no-cache", code=4)
        assert " is damaged" in " ".join(out)
        assert not any(" is damaged" in line for line in err)
        _, err = ask(capfd, *command, "--no-cache", "--json", code=4)
        assert any(" is damaged" in line for line in err)
