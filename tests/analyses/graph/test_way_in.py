"""Where no root leads into any heap, unreachable blocks are not called a leak."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heapdump.cli import run
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.patching import poke, without_memory, word

DOUBT = "no root of the program leads into any heap: do not read this as a leak"
Capture = pytest.CaptureFixture[str]


def write(path: Path, holder: str) -> None:
    """Ten blocks; the first one is held by the program's data, a stack, ntdll's data, the PEB, or nothing."""
    heap = NtHeapBuilder(base=0x20000000000)
    first, *_ = [heap.busy(100) for _ in range(10)]
    process = ProcessBuilder().heap(heap.build())
    process.thread(7, content=word(first if holder in ("stack", "missing") else 0))
    plan = process.plan
    places = {"program": plan.exe + 0xC000 - 0x1000, "peb": plan.peb + 0x20, "ntdll": 0}
    built = process.build()
    ntdll = next(module for module in built.truth.modules if module.path.lower().endswith("ntdll.dll"))
    places["ntdll"] = ntdll.base + ntdll.size - 0x1000
    if holder in places:
        built = poke(built, (places[holder], word(first)))
    stack = (plan.stacks, plan.stacks + 0x100000)
    path.write_bytes(without_memory(built, stack) if holder == "missing" else built.data)


def ask(capfd: Capture, *words: str) -> Any:
    assert run([*words, "--json", "-q", "--no-cache"]) in (0, 4)
    return json.loads(capfd.readouterr().out)


@pytest.mark.parametrize("holder", ["nothing", "peb", "ntdll"])
def test_no_root_of_the_program_leads_into_any_heap(tmp_path: Path, capfd: Capture, holder: str) -> None:
    write(path := tmp_path / "strange.dmp", holder)
    assert DOUBT in ask(capfd, "leaks", str(path), "--unreachable")["notes"]
    triage = ask(capfd, "triage", str(path))["data"]
    assert DOUBT in [one["text"] for one in triage["who"]] and "--unreachable" not in " ".join(triage["next"])
    assert ask(capfd, "summary", str(path))["data"]["unreachable"]["is_whole"] is False
    block = ask(capfd, "blocks", str(path))["data"][-1]["address"]
    for question in (["leaks", str(path), "--unreachable"], ["refs", str(path), block]):
        assert run([*question, "--no-cache"]) == 0
        page = " ".join(capfd.readouterr().out.split())
        assert DOUBT in page and "a direct leak" not in page


@pytest.mark.parametrize("holder", ["program", "stack", "missing"])
def test_a_leak_is_called_one_where_roots_lead_into_the_heaps_or_are_missing(
    tmp_path: Path, capfd: Capture, holder: str
) -> None:
    write(path := tmp_path / "leak.dmp", holder)
    assert DOUBT not in ask(capfd, "leaks", str(path), "--unreachable")["notes"]
    assert "9 blocks" in json.dumps(ask(capfd, "triage", str(path))["data"]["who"]) or holder == "missing"
