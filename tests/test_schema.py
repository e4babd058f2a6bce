"""docs/json-schema.json describes what every command prints, and holds what the interface promises."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from heapdump.cli import cli, run
from tests.analyses.graph.plans import Plan, lay
from tests.builders import NtHeapBuilder, ProcessBuilder, SegmentHeapBuilder
from tests.builders.page_heap import PageHeapBuilder
from tests.every_command import plain_calls
from tests.patching import poke

SCHEMA = json.loads((Path(__file__).parent.parent / "docs" / "json-schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
COMMANDS = [name for name in cli.list_commands(click.Context(cli)) if name not in ("mcp", "help")]
"""Commands that print JSON."""
CALLS = [
    "report", "fleet", "summary", "triage", "info", "heaps", "regions", "modules", "modules --imports memory --exports --sections --strings", "threads", "threads --frames --args",
    "gaps", "gaps --request 1M", "diff --all", "diff --group-by size --unreachable",
    "summary", "triage", "info", "heaps", "regions", "modules", "threads", "threads --frames --args",
    "blocks --state all --internal", "blocks --stat", "virt-blocks", "check", "leaks --group-by size", "leaks --group-by type",
    "leaks --group-by stack", "leaks --unreachable --report-objects", "page-heap", "page-heap --state all", "retained",
    "managed", "managed --threads", "managed 0x10", "managed 0x10 0x401000",
    "retained --by type", "block 0x10", "memory 0x7ffe0000", "memory 0x10 --as pointers", "memory 0x10 --as links",
    "memory 0x10 --as text", "struct", "struct _HEAP", "struct _PEB 0x10", "struct _TEB 0x7ffe0000",
    "disasm 0x401000", "disasm 0x10 --before 0", "search hex:00 --count 9",
    "waste", "leaks --group-by structure", "leaks --group-by owner", "retained --group-by owner",
    "search 0x10", "search x --at 0x10..0x7ffe1000",
]  # fmt: skip
"""Calls that every dump answers. Those that need an address of a block follow in `calls`."""
Capture = pytest.CaptureFixture[str]

PROMISED = {
    "summary": "process usage type state protect largest reconciliation findings",
    "region": "address size allocation_base state type protect usage detail bytes_in_dump",
    "module": "name path address size timestamp version pdb listed",
    "thread": "id teb stack_base stack_limit ip sp",
    "heapRecord": (
        "address index kind role flags flag_names segments reserved_bytes committed_bytes free_bytes free_blocks "
        "busy_bytes busy_blocks uncommitted_ranges virtual_blocks virtual_bytes lock_contention front_end stack_traces "
        "external_fragmentation virtual_fragmentation integrity lfh_free_blocks lfh_free_bytes"
    ),
    "block": "address entry heap segment kind state size entry_size flags stack",
    "largeBlock": "list_entry commit_bytes reserve_bytes address entry size",
    "locatedBlock": "offset relation frames neighbours content address entry heap",
    "frame": "address module symbol offset file line trust",
    "group": "key count bytes min_size max_size share heaps frames sample",
    "diff": "same_process dumps counters usage address_space modules heaps groups reconciliation",
    "diffGroup": "key frames old_count new_count old_bytes new_bytes delta_bytes values trend",
    "gaps": "largest_free_bytes free_bytes fragmentation limit_bytes large_address_aware runs culprits",
    "gapCulprit": "address bytes owner gain_bytes reason",
    "moduleChange": "name change old new",
    "unreachable": "direct indirect possible reachable groups suppressed",
    "instruction": "address bytes text target is_current",
    "place": "address usage block text",
    "member": "offset field type value meaning",
    "memory": "address bytes value points_to",
    "finding": "id kind severity heap block address length message expected found culprit frames evidence",
    "managed": "runtime heaps code types",
    "managedPlace": "address kind type method token module offset trust",
    "usageRow": "name regions bytes busy_share total_share",
}
"""Definition of the schema → members that the interface promises."""


def process(place: Path) -> None:
    """A process with a damaged NT heap, a segment heap, large blocks and recorded threads."""
    heap = NtHeapBuilder(base=0x20000000000)
    for size in (90, 40, 24, 300, 64):
        heap.busy(size)
    heap.free(20)
    heap.busy(16)
    heap.virtual(0x20100000000, 3_200_000)
    built = heap.build()
    candidate, victim = built.truth.busy[2], built.truth.busy[3]
    end = candidate.user + candidate.size
    segment = SegmentHeapBuilder(base=0x21000000000)
    segment.segment(0x21010000000)
    segment.chunks([100, 200, 300])
    segment.lfh_blocks(64, [50, -1, 64, 63])
    segment.large(0x21020000000, 600_000)
    made = ProcessBuilder().heap(built).thread(7, ip=0x401000, name="main")
    made = segment.build().add_to(made)
    place.write_bytes(poke(made.build(), (end, b"Z" * (victim.user - end))).data)


def page_heap(place: Path) -> None:
    """A process that died in a freed block of a page heap."""
    builder = PageHeapBuilder(0x30000000)
    builder.block(100, trace=builder.trace(0x401000, 0x402000), thread=7)
    gone = builder.block(144, state="freed", trace=builder.trace(0x403000), thread=8)
    made = ProcessBuilder(build=19041, nt_global_flag=0x02000000).heap(builder.build())
    made.thread(99).dump.exception(99, 0xC0000005, 0x401000, (0, gone + 8))
    made.write(place)


def graph(place: Path) -> None:
    """A process whose blocks hold each other."""
    edges = [(0, 1, "start"), (1, 2, "inside"), (3, 2, "start"), (2, 2, "start")]
    roots = [("module", 0, "start"), ("peb", 1, "start")]
    place.write_bytes(lay(Plan("x64", [64] * 4, edges, roots)).built.data)  # type: ignore[arg-type]


DUMPS: dict[str, Callable[[Path], None]] = {"process": process, "page-heap": page_heap, "graph": graph}


def ask(dump: Path, call: str, capfd: Capture) -> Any:
    """The document that a call prints, which the schema must hold."""
    name, *rest = call.split()
    code = run([name, str(dump), *([str(dump)] if name == "diff" else []), *rest, "--json", "-q"])
    out = capfd.readouterr().out
    assert code in (0, 1, 4), (call, code)
    document = json.loads(out)
    wrong = best_match(VALIDATOR.iter_errors(document))
    assert wrong is None, f"{call}: {wrong.json_path}: {wrong.message}"
    return document


def calls_about(dump: Path, capfd: Capture) -> list[str]:
    """Calls about each heap, about busy blocks, and about the first block of a page heap."""
    heaps = ask(dump, "heaps", capfd)["data"]
    busy = ask(dump, "blocks", capfd)["data"]
    held = ask(dump, "retained", capfd)["data"]["blocks"]
    pages = [block["address"] for block in busy if block["kind"] == "page"]
    return [
        *(f"heap {heap['address']}" for heap in heaps),
        *(f"block {busy[i]['address']}" for i in {0, len(busy) // 2}),
        f"refs {busy[0]['address']} --depth=2",
        *(f"retained {block['address']}" for block in held[:1]),
        *(f"page-heap {address}" for address in pages[:1]),
    ]


def test_the_schema_is_one_and_names_every_command() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["command"]["enum"] == COMMANDS


@pytest.mark.parametrize("definition", PROMISED)
def test_the_schema_requires_what_the_interface_promises(definition: str) -> None:
    assert set(PROMISED[definition].split()) <= set(SCHEMA["$defs"][definition]["required"])


def test_no_record_may_have_members_that_the_schema_does_not_name() -> None:
    def objects(value: Any) -> list[dict[str, Any]]:
        """Every schema of an object inside a value."""
        if isinstance(value, list):
            return [found for item in value for found in objects(item)]
        if not isinstance(value, dict):
            return []
        own = [value] if value.get("type") == "object" else []
        return own + [found for item in value.values() for found in objects(item)]

    assert all(found["additionalProperties"] is False for found in objects(SCHEMA))


@pytest.mark.parametrize("name", DUMPS)
def test_every_command_prints_what_the_schema_says(name: str, tmp_path: Path, capfd: Capture) -> None:
    dump = tmp_path / "crash.dmp"
    DUMPS[name](dump)
    calls = [*CALLS, *calls_about(dump, capfd)]
    for call in [*calls, *plain_calls(calls, "mcp", "help")]:
        ask(dump, call, capfd)


@pytest.mark.real
@pytest.mark.parametrize("name", ["17763.475/corrupt-crash", "17763.475/segment-ust", "2600.5512/pageheap"])
def test_recorded_dumps_fit_the_schema(name: str, recorded: Callable[[str], Path], capfd: Capture) -> None:
    dump = recorded(f"oracle/{name}.dmp.xz")
    for call in [*CALLS, *calls_about(dump, capfd)]:
        ask(dump, call, capfd)
