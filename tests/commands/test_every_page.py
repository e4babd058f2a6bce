"""Every command on the sample, in 80 columns and in 160: no line too wide, no blanks at ends, no words of Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fixtures.sample import sample
from heapdump.cli import run

BLOCK, VECTOR = "0x43500060", "0x28a65b01140"
COMMANDS = (
    "triage", "summary", "info", "heaps", "heap #0", "virt-blocks", "blocks --limit 20", "blocks --stat", "leaks",
    "leaks --group-by type", "leaks --unreachable", "retained", "retained --group-by type", f"refs {VECTOR}", "waste",
    "managed", "check", f"block {BLOCK}", "page-heap", "regions --limit 20", "gaps", "modules", "modules ntdll",
    "threads --frames --args", "threads ~2 --registers", f"memory {VECTOR} --as pointers", "struct _HEAP 0x29fb0000",
    "disasm rip", "search MZ",
)  # fmt: skip


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "sample.dmp"
    sample().write(path)
    return path


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_keeps_to_the_width(
    dump: Path, command: str, width: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.chdir(dump.parent)
    name, *rest = command.split()
    assert run([name, dump.name, *rest]) in (0, 1, 4)
    shown = capfd.readouterr()
    lines = shown.out.splitlines()
    assert max(map(len, lines)) <= width
    assert [line for line in lines if line != line.rstrip() or re.search(r"\b(None|nan|True|False)\b", line)] == []
    causes = [line.partition("incomplete: ")[2] for line in shown.err.splitlines()]
    assert len(set(causes)) == len(causes)
    assert not any(cause in " ".join(shown.out.split()) for cause in causes)
