"""Allocation stacks that lead through jitted code: every command that shows stacks names the managed frames."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from heapdump.cli import cli
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.process.stacks.test_trace_database import RECORDS, UST, record
from tests.runtimes.dotnet.plans import plan

_MSVCRT = 0x66001234
_PAY = "Acme.Orders!Acme.Orders.Order.Pay()+0x21"
_POST = "Acme.Orders!Acme.Orders.Ledger<System.__Canon>.Post()+0x31"


@dataclass(frozen=True)
class Written:
    """A dump with a block of every stack. `block`: allocated by `Pay`."""

    path: Path
    block: int

    def ask(self, command: str, *args: str) -> Any:
        """The data of the JSON answer."""
        return json.loads(self.read(command, *args, "--json"))["data"]

    def read(self, command: str, *args: str) -> str:
        """What the command prints."""
        result = CliRunner().invoke(cli, [command, str(self.path), *args, "--no-cache"])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.output


def write(path: Path, *, blocks: int, shift: int = 0, large: int = 0) -> Written:
    """A native heap whose blocks a managed method allocated through a P/Invoke stub. `large`: bytes of a large block."""
    made = plan("8", shift=shift)
    starts = {values[1]: start for start, values in made.methods.items()}
    stack = (_MSVCRT, starts["IL_STUB_PInvoke"] + 0x10, starts["Pay"] + 0x21, starts["Post"] + 0x31)
    heap = NtHeapBuilder(base=0x20000000000, flags=UST)
    found = [heap.busy(100, trace=RECORDS) for _ in range(blocks)]
    if large:
        found.insert(0, heap.virtual(0x20010000000, large, trace=RECORDS))
    process = made.clr.add_to(ProcessBuilder().heap(heap.build()))
    process.module(0x66000000, 0x10000, r"C:\windows\system32\msvcrt.dll")
    process.region(RECORDS, 0x1000).memory(RECORDS, record("x64", stack).ljust(0x1000, b"\0"))
    process.write(path)
    return Written(path, found[0])


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return write(tmp_path / "held.dmp", blocks=5)


def test_leaks_groups_by_managed_stack_caller_and_assembly(written: Written):
    (by_stack,) = written.ask("leaks", "--group-by", "stack")
    assert by_stack["key"] == f"{_PAY} ← Acme.Orders.Ledger<System.__Canon>.Post"
    stub, pay, post = by_stack["frames"][1:]
    assert (stub["module"], stub["symbol"]) == ("DynamicClass", "DynamicClass.IL_STUB_PInvoke")
    assert (pay["module"], pay["symbol"], pay["offset"]) == ("Acme.Orders", "Acme.Orders.Order.Pay", 0x21)
    assert (pay["trust"], pay["signature"], post["offset"]) == ("exact", "()", 0x31)
    (by_caller,) = written.ask("leaks", "--group-by", "caller")
    assert by_caller["key"] == _PAY
    (by_module,) = written.ask("leaks", "--group-by", "module")
    assert (by_module["key"], by_module["count"]) == ("Acme.Orders", 5)


def test_a_group_of_managed_stacks_is_read_from_the_index_as_it_was(written: Written, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setenv("HEAPDUMP_CACHE", str(tmp_path / "cache"))
    answers = [
        CliRunner().invoke(cli, ["leaks", str(written.path), "--group-by", "stack", "--json"]).output for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert '"signature": "()"' in answers[1]


def test_block_and_exports_name_managed_frames(written: Written):
    page = written.read("block", hex(written.block))
    assert [line.strip() for line in page.splitlines() if "+0x" in line and "!" in line][-2:] == [_PAY, _POST]
    folded = written.read("leaks", "--export", "folded")
    assert ";Acme.Orders!Acme.Orders.Order.Pay;DynamicClass!DynamicClass.IL_STUB_PInvoke;" in folded


def test_a_large_block_ends_in_the_managed_method_that_wanted_it(tmp_path: Path):
    """The story of 13 GB in large blocks: `!heap -s` does not count them, and the last frame is managed."""
    large = write(tmp_path / "large.dmp", blocks=2, large=3 << 20)
    (row,) = large.ask("virt-blocks")
    assert (row["address"], row["size"]) == (hex(large.block), 3 << 20)
    assert _PAY in large.read("block", row["address"])
    assert "Acme.Orders.Order.Pay" in large.read("virt-blocks")
    (group,) = large.ask("leaks", "--group-by", "caller", "--size", "512K..")
    assert (group["key"], group["bytes"]) == (_PAY, 3 << 20)


def test_diff_knows_a_managed_stack_at_other_addresses(written: Written, tmp_path: Path):
    later = write(tmp_path / "later.dmp", blocks=9, shift=0x1000)
    (group,) = (one for one in written.ask("diff", str(later.path))["groups"] if one["delta_bytes"])
    assert (group["old_count"], group["new_count"], group["delta_bytes"]) == (5, 9, 400)
    assert "Acme.Orders.Order.Pay" in group["key"]
