"""`refs` on a built process: holders by level, targets, paths, what is no block."""

from __future__ import annotations

import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from heapdump import cli
from tests.analyses.graph.plans import Plan, lay

CHAIN = Plan(
    "x64",
    [64, 64, 64, 64],
    [(0, 1, "start"), (1, 2, "inside"), (3, 2, "start"), (2, 2, "start")],
    [("module", 0, "start"), ("peb", 1, "start")],
)


@pytest.fixture
def dump(tmp_path: Path) -> tuple[str, list[int]]:
    laid = lay(CHAIN)
    path = tmp_path / "chain.dmp"
    path.write_bytes(laid.built.data)
    return str(path), laid.users


def run(*arguments: str) -> tuple[int, str, str]:
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = cli.run(["refs", *arguments])
    return code, out.getvalue(), err.getvalue()


def test_holders_targets_and_paths(dump):
    path, at = dump
    data = json.loads(run(path, hex(at[2] + 5), "--json", "--depth", "3", "--all-paths", "4")[1])["data"]
    assert (data["block"]["address"], data["reach"]) == (hex(at[2]), "possible")
    assert {(h["level"], h["root"] or h["block"], h["offset"], h["to"], h["to_offset"]) for h in data["holders"]} == {
        (1, hex(at[1]), 0, hex(at[2]), 63), (1, hex(at[2]), 0, hex(at[2]), 0), (1, hex(at[3]), 0, hex(at[2]), 0),
        (2, "PEB+0x510", None, hex(at[1]), 0), (2, hex(at[0]), 0, hex(at[1]), 0), (3, "app.exe!.data+0x1000", None, hex(at[0]), 0),
    }  # fmt: skip
    assert len(data["holders"]) == 6
    assert [(p["root"]["root"], [b["address"] for b in p["blocks"]]) for p in data["paths"]] == [
        ("PEB+0x510", [hex(at[1]), hex(at[2])]), ("app.exe!.data+0x1000", [hex(at[0]), hex(at[1]), hex(at[2])]),
    ]  # fmt: skip
    assert [(t["offset"], t["to"], t["to_size"]) for t in data["targets"]] == [(0, hex(at[2]), 64)]


def test_the_table_tells_the_path(dump):
    path, at = dump
    code, out, _ = run(path, hex(at[2]))
    assert code == 0
    assert f"from PEB+0x510\n  → {at[1]:#x}, 64 bytes, at +0x0\n  → {at[2]:#x}, 64 bytes\n" in out
    assert f"{at[1]:#x}+0x0" in out and f"{at[2]:#x}+0x3f" in out
    leaked = run(path, hex(at[3]))[1]
    assert "is held by nothing: a direct leak" in leaked and "nothing points at it" in leaked


def test_holders_of_several_levels_are_a_tree(dump):
    path, at = dump
    lines = run(path, hex(at[2]), "--depth", "3", "--limit", "50")[1].splitlines()
    first = lines.index("Who points at it, and below who holds that")
    held = [line[:24].rstrip() for line in lines[first + 2 : first + 8]]
    assert held == [
        f"{at[2]:#x}+0x0", f"{at[1]:#x}+0x0", "  PEB+0x510", f"  {at[0]:#x}+0x0", "    app.exe!.data+0x1000", f"{at[3]:#x}+0x0",
    ]  # fmt: skip
    flat = run(path, hex(at[2]), "--depth", "3", "--sort", "level")[1]
    assert "Level  Held by" in flat


def test_a_long_path_is_shown_by_its_ends(tmp_path):
    plan = Plan("x64", [64] * 20, [(i, i + 1, "start") for i in range(19)], [("module", 0, "start")])
    laid = lay(plan)
    path = tmp_path / "long.dmp"
    path.write_bytes(laid.built.data)
    out = run(str(path), hex(laid.users[19]))[1]
    assert "from app.exe!.data+0x1000 → 6 × 64-byte record → 8 more blocks → 6 × 64-byte record\n" in out
    assert out.count("  →") == 12 and "… 8 more blocks" in out


def test_an_address_in_no_busy_block_is_refused(dump):
    code, _, err = run(dump[0], "0x1234")
    assert code == 2 and f"is in no busy block of the program; what is there: heapdump block {dump[0]} 0x1234" in err


@pytest.mark.parametrize(
    ("links", "sentence"),
    [
        ([(0, 1), (1, 0)], "held by nothing but a reference cycle of 2 blocks; no root"),
        ([(0, 0)], "held by nothing; no root"),
    ],
    ids=["two", "one"],
)
def test_the_first_block_of_a_circle_is_held_by_it_alone(tmp_path, links, sentence):
    laid = lay(Plan("x64", [64, 64], [(a, b, "start") for a, b in links], []))
    path = tmp_path / "circle.dmp"
    path.write_bytes(laid.built.data)
    assert f"{laid.users[0]:#x}, 64 bytes, is {sentence}" in run(str(path), hex(laid.users[0]))[1]
