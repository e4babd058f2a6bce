"""The commands for memory, structures, code and modules on damaged dumps: an answer or one line, never a traceback."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from heapdump.cli import run
from tests.builders import NtHeapBuilder, ProcessBuilder

CALLS = (
    "memory rsp --as pointers", "memory peb", "memory poi(peb+18)+10 --as links", "memory rsp --as utf16 --frame 1",
    "struct _PEB peb", "struct _TEB teb", "struct _HEAP poi(peb+30)", "struct _HEAP_ENTRY poi(peb+30)+740",
    "struct _RTL_USER_PROCESS_PARAMETERS poi(peb+20)", "struct", "disasm rip", "disasm rip --function", "search app",
    "search 0x20000000000 --count 50", "modules", "modules ntdll", "modules --imports --exports --sections --strings",
)  # fmt: skip


@pytest.mark.hostile
@pytest.mark.parametrize("seed", range(12))
def test_damaged_dumps_are_answered_or_refused_in_one_line(tmp_path: Path, capfd, seed: int) -> None:
    heap = NtHeapBuilder(base=0x20000000000)
    for size in (40, 96, 600):
        heap.busy(size)
    made = (
        ProcessBuilder()
        .heap(heap.build())
        .thread(7, ip=0x20000000800)
        .module(0x67000000, 0x8000, r"C:\acme\vision.dll")
    )
    data, chance = bytearray(made.build().data), random.Random(seed)
    for _ in range(chance.choice((1, 20, 400, 3000))):
        data[chance.randrange(len(data))] = chance.choice((0, 0xFF, chance.randrange(256)))
    if seed % 4 == 3:
        del data[chance.randrange(len(data)) :]
    path = tmp_path / "hurt.dmp"
    path.write_bytes(data)
    for call in CALLS:
        name, *rest = call.split()
        code = run([name, str(path), *rest, "--no-cache", *(["--json"] if chance.random() < 0.5 else [])])
        err = capfd.readouterr().err
        assert code in (0, 2, 3, 4), (call, err)
        assert "Traceback" not in err
        if code in (2, 3):
            assert len([line for line in err.splitlines() if "error:" in line]) == 1, (call, err)
