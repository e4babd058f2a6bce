"""A dump in which no heap is known: commands say that, and claim nothing about heaps."""

from __future__ import annotations

from pathlib import Path

import pytest

from heapdump.cli import run
from tests.builders import DumpBuilder

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def dump(tmp_path: Path) -> str:
    """A dump with one module and some memory that says nothing."""
    builder = DumpBuilder().module(0x400000, 0x10000, "C:\\app.exe")
    builder.memory(0x500000, bytes([0, 1, 2, 3] * 0x400))
    builder.region(0x500000, 0x1000)
    builder.write(tmp_path / "small.dmp")
    return str(tmp_path / "small.dmp")


def lines(capfd: Capture, *arguments: str) -> str:
    code = run([*arguments, "--color", "never", "--no-cache"])
    captured = capfd.readouterr()
    assert code in (2, 4), captured.err
    return captured.out + captured.err


def test_no_command_claims_what_is_not_known(dump: str, capfd: Capture) -> None:
    assert "page heap is off" not in (shown := lines(capfd, "page-heap", dump))
    assert "whether page heap is on is not known" in shown
    assert "every block is held" not in (shown := lines(capfd, "leaks", dump, "--unreachable"))
    assert shown.startswith("no busy block of the program is in this dump\n")
    assert "not added up" not in lines(capfd, "waste", dump)
    assert "of 0 blocks" not in lines(capfd, "retained", dump)
    assert "there are: none" not in (shown := lines(capfd, "heap", dump, "0x10000"))
    assert "no heap is known in this dump" in shown


def test_a_region_without_a_printable_byte_has_no_preview(dump: str, capfd: Capture) -> None:
    run(["regions", dump, "--at", "0x500000", "--color", "never", "--no-cache"])
    assert "[....]" not in (shown := capfd.readouterr().out) and "[..." not in shown
    assert "<unknown>" in shown
