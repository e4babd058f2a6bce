"""`block` at addresses outside of all blocks: what is there, and no neighbours from far away."""

from __future__ import annotations

from pathlib import Path

import pytest

from heapdump.cli import run
from tests.builders import NtHeapBuilder, ProcessBuilder

Capture = pytest.CaptureFixture[str]
HEAP = 0x20000000000


def shown(capfd: Capture, dump: Path, address: int) -> str:
    capfd.readouterr()
    run(["block", str(dump), f"{address:#x}", "--color", "never", "--no-cache"])
    return capfd.readouterr().out


def test_code_and_stacks_are_named_without_neighbours(tmp_path: Path, capfd: Capture) -> None:
    heap = NtHeapBuilder(base=HEAP)
    heap.busy(100)
    free = heap.free(8)
    built = heap.build()
    process = ProcessBuilder().heap(built)
    sp = process.plan.stacks + 0x100000 - 0x400
    process.thread(0x44, content=bytes(64), sp=sp)
    process.module(0x66000000, 0x10000, r"C:\acme\vision.dll")
    process.write(dump := tmp_path / "crash.dmp")
    code = shown(capfd, dump, 0x66001234)
    assert code.startswith("0x66001234 is in no block: vision.dll+0x1234\n") and "Neighbours" not in code
    stack = shown(capfd, dump, sp + 8)
    assert " is in no block: stack of ~0 tid 0x44" in stack and "Neighbours" not in stack
    header = shown(capfd, dump, HEAP + 0x10)
    assert "Neighbours" in header
    assert " bytes free, " in shown(capfd, dump, free + 0x10)
