"""The table of witnesses in layouts/README.md says what the layout files and the recordings say."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from heapdump import layouts
from heapdump.layouts import layout_names
from tests.recordings import dumps

FOLDER = Path(layouts.__file__).parent
GROUPS: dict[str, tuple[str, ...]] = {
    "process": ("_PEB", "_TEB", "_NT_TIB"),
    "NT heap": ("_HEAP", "_HEAP_ENTRY", "_HEAP_SEGMENT", "_HEAP_UCR_DESCRIPTOR", "_HEAP_VIRTUAL_ALLOC_ENTRY", "_HEAP_COUNTERS"),
    "LFH": ("_LFH_HEAP", "_HEAP_SUBSEGMENT", "_HEAP_USERDATA_HEADER", "_HEAP_LOOKASIDE"),
    "segment heap": ("_SEGMENT_HEAP", "_HEAP_SEG_CONTEXT", "_HEAP_PAGE_SEGMENT", "_HEAP_PAGE_RANGE_DESCRIPTOR"),
    "VS, LFH of it": ("_HEAP_VS_CONTEXT", "_HEAP_VS_SUBSEGMENT", "_HEAP_LFH_SUBSEGMENT", "_HEAP_LARGE_ALLOC_DATA"),
    "page heap": ("_DPH_HEAP_ROOT", "_DPH_HEAP_BLOCK", "_DPH_BLOCK_INFORMATION"),
    "stacks": ("_STACK_TRACE_DATABASE", "_RTL_STACK_TRACE_ENTRY"),
}  # fmt: skip
NT = {
    "x86_2600", "x64_7601", "x86_9200", "x64_9600", "x64_14393", "x64_16299", "x64_17763.379", "x64_19041", "x86_19041",
    "x64_22000", "x64_26100",
}  # fmt: skip
SEGMENT = {"x64_14393", "x64_16299", "x64_17763.379", "x64_19041", "x86_19041", "x64_22000", "x64_26100"}
STACKS = NT - {"x86_9200", "x64_16299"}
RECORDED = {
    "process": NT, "NT heap": NT, "LFH": NT, "segment heap": SEGMENT, "VS, LFH of it": SEGMENT,
    "page heap": {"x86_2600", "x64_19041", "x86_19041"}, "stacks": STACKS,
}  # fmt: skip
"""Layouts under which recorded processes with such structures were read, and agreed with what the program did."""

SCENARIOS = {
    "process": "*", "NT heap": "*", "LFH": "*", "segment heap": "seg*", "VS, LFH of it": "seg*", "page heap": "pageheap*",
    "stacks": "*ust*",
}  # fmt: skip
"""Names of recorded scenarios whose processes have such structures."""

REAL = {("x86_7601", "process"), ("x86_7601", "NT heap"), ("x86_7601", "LFH")}
WORDS = (
    ("inferred", "neighbour"), ("read off memory", "read off"), ("copied", "neighbour"), ("corroborated", "neighbour"), ("build attributed", "PDB?"), ("secondary", "neighbour"),
    ("kernel PDB", "PDB"), ("ntdll PDB", "PDB"), ("binary-verified", "disassembly"), ("confirmed", "recorded"), ("documented", "documented"),
)  # fmt: skip
ORDER = ("neighbour", "read off", "PDB?", "documented", "disassembly", "PDB", "recorded")


def witness(name: str, group: str) -> str:
    """The weakest witness of the structures of a group in one layout; an empty cell where it has none of them."""
    structs = json.loads((FOLDER / f"{name}.json").read_text())["structs"]
    found = [structs[each]["confidence"] for each in GROUPS[group] if each in structs]
    if not found:
        return ""
    if name in RECORDED[group]:
        return "recorded"
    if (name, group) in REAL:
        return "real dump"
    words = [next(word for part, word in WORDS if part in confidence) for confidence in found]
    return min(words, key=ORDER.index)


def rows() -> list[str]:
    """The table as Markdown."""
    head = ["| layout | " + " | ".join(GROUPS) + " |", "|---" * (len(GROUPS) + 1) + "|"]
    names = [
        name for arch in ("x64", "x86") for name in sorted(layout_names(arch), key=lambda n: float(n.split("_")[1]))
    ]
    return head + [
        f"| {name} | " + " | ".join(witness(name, group) or "–" for group in GROUPS) + " |" for name in names
    ]


@pytest.mark.golden
def test_the_table_of_witnesses_is_that_of_the_files():
    """`make golden` rewrites the table."""
    path = FOLDER / "README.md"
    text = path.read_text(encoding="utf-8")
    head, behind = text.split(rows()[0])
    tail = behind[behind.index("\n\n") :]
    wanted = head + "\n".join(rows()) + tail
    if os.environ.get("HEAPDUMP_WRITE_GOLDEN"):
        path.write_text(wanted, encoding="utf-8")
    else:
        assert text == wanted


def recorded_layouts(pattern: str) -> set[str]:
    """The layouts of the builds of recorded scenarios; folders are named `build.revision`, those of x86 `…-x86`.

    The recordings of XP in the folder `oracle` are x86 without a word.
    """
    found = set()
    for name in (*dumps(f"oracle/*/{pattern}"), *dumps(f"hard/*/{pattern}")):
        if "*" in name.split("/")[1]:
            continue  # the folder has none
        build, _, arch = name.split("/")[1].partition("-")
        number, revision = (int(part) for part in build.split("."))
        found.add(layouts.candidates("x86" if arch or number < 3790 else "x64", number, revision)[0])
    return found


@pytest.mark.real
@pytest.mark.parametrize("group", SCENARIOS)
def test_what_the_table_calls_recorded_is_recorded_and_nothing_else_is(recorded, group):
    recorded("README.md")  # skips where the recordings are missing
    assert recorded_layouts(SCENARIOS[group]) == RECORDED[group]
