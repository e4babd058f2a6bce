"""`diff` on built processes: groups, reconciliation, matching between runs, filters, limits, memory."""

from __future__ import annotations

import gzip
import json
import random
import re
import struct
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from heapdump import cli
from heapdump.snapshot import Snapshot
from tests.address_spaces import process as address_space
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.dump.test_counters import counters_1
from tests.heaps.test_crt import NAMES, built_with
from tests.moments import LOAD, MODULES, NONE, RUN, STOP, Moment, Stack
from tests.patching import poke
from tests.recordings import Recorded, builds, truth_of
from tests.render.test_profiles import fields, packed
from tests.samples import SAMPLES

OLD = Moment({LOAD: [5000, 5000], RUN: [100, 200, 300], NONE: [50, 60]})
NEW = Moment({LOAD: [5000] * 9, STOP: [70_000], RUN: [100], NONE: [50, 60]}, timestamp=1_700_003_600)


@dataclass
class Result:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def data(self) -> Any:
        return json.loads(self.stdout)["data"]


def run(*arguments: object) -> Result:
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = cli.run(["diff", *map(str, arguments)])
    return Result(code, out.getvalue(), err.getvalue())


def written(folder: Path, *moments: Moment) -> list[str]:
    return [moment.write(folder / f"{i}.dmp") for i, moment in enumerate(moments)]


def stack_of(group: dict[str, Any], modules: Mapping[str, int]) -> Stack:
    """The stack of a group by the addresses of its frames."""
    out = []
    for frame in group["frames"]:
        address = int(frame["address"], 16)
        out.append(next((name, address - base) for name, base in modules.items() if base <= address < base + 0x10000))
    return tuple(out)


def expected(old: dict[Any, tuple[int, int]], new: dict[Any, tuple[int, int]]) -> dict[Any, Any]:
    """Key → (old count, new count, old bytes, new bytes)."""
    nothing = (0, 0)
    keys = {**old, **new}
    return {
        key: (old.get(key, nothing)[0], new.get(key, nothing)[0], old.get(key, nothing)[1], new.get(key, nothing)[1])
        for key in keys
    }


def found(group: dict[str, Any]) -> tuple[int, ...]:
    return tuple(group[name] for name in ("old_count", "new_count", "old_bytes", "new_bytes"))


def test_every_stack_has_its_numbers_of_both_dumps(tmp_path):
    result = run(*written(tmp_path, OLD, NEW), "--all", "--json")
    assert result.exit_code == 0, result.stderr
    groups = result.data["groups"]
    assert {stack_of(g, MODULES): found(g) for g in groups} == expected(OLD.amounts(), NEW.amounts())
    assert [g["delta_bytes"] for g in groups] == [70_000, 35_000, -500, 0]
    assert [g["delta_count"] for g in groups] == [1, 7, -2, 0]
    assert all(
        g["values"]
        == [{"count": g["old_count"], "bytes": g["old_bytes"]}, {"count": g["new_count"], "bytes": g["new_bytes"]}]
        for g in groups
    )
    assert result.data["reconciliation"] == {
        "groups_delta": 104_500,
        "busy_delta": 104_500,
        "omitted_delta": 0,
        "old_bytes": OLD.bytes,
        "new_bytes": NEW.bytes,
    }


def test_groups_that_did_not_change_are_listed_with_all_only(tmp_path):
    groups = run(*written(tmp_path, OLD, NEW), "--json").data["groups"]
    assert len(groups) == 3 and all(g["delta_bytes"] for g in groups)


def test_sizes_have_their_numbers_of_both_dumps(tmp_path):
    groups = run(*written(tmp_path, OLD, NEW), "--group-by", "size", "--all", "--json").data["groups"]
    sizes = {int(g["key"].split()[0].replace(",", "")): found(g) for g in groups}
    assert sizes == expected(OLD.by_size(), NEW.by_size())


@pytest.mark.parametrize("by", ["stack", "caller", "module", "size", "heap", "type", "content", "source"])
def test_random_deltas_add_up_to_the_change_of_all_busy_bytes(tmp_path, by):
    chance = random.Random(by)
    moments = [
        Moment(
            {
                stack: [chance.randrange(1, 9000) for _ in range(chance.randrange(60))]
                for stack in (LOAD, RUN, STOP, NONE)
            }
        )
        for _ in range(2)
    ]
    data = run(*written(tmp_path, *moments), "--group-by", by, "--all", "--json").data
    delta = moments[1].bytes - moments[0].bytes
    assert sum(g["delta_bytes"] for g in data["groups"]) == delta
    assert (data["reconciliation"]["busy_delta"], data["reconciliation"]["omitted_delta"]) == (delta, 0)


def test_another_run_with_modules_elsewhere_has_the_same_groups(tmp_path):
    moved = {name: base + 0x1230000 for name, base in MODULES.items()}
    again = replace(NEW, modules=moved, pid=77, create_time=1_700_000_100, heap=0x31000000000)
    data = run(*written(tmp_path, OLD, again), "--all", "--json").data
    assert (data["same_process"], data["relation"], data["different"]) == (
        False,
        "same_program",
        ["pid", "create_time"],
    )
    by_stack = {stack_of(g, moved if g["new_count"] else MODULES): found(g) for g in data["groups"]}
    assert by_stack == expected(OLD.amounts(), NEW.amounts())
    assert {m["name"]: m["change"] for m in data["modules"]} == dict.fromkeys(MODULES, "moved")
    assert {g["trust"] for g in data["groups"]} == {"exact"}
    ids = {g["id"] for g in data["groups"]}
    assert ids == {g["id"] for g in run(*written(tmp_path, OLD, NEW), "--all", "--json").data["groups"]}


def test_a_module_of_another_build_has_derived_groups(tmp_path):
    data = run(*written(tmp_path, OLD, replace(NEW, builds={"vision.dll": 0x60000000})), "--all", "--json").data
    assert {stack_of(g, MODULES): found(g) for g in data["groups"]} == expected(OLD.amounts(), NEW.amounts())
    assert {bool(g["frames"]): g["trust"] for g in data["groups"]} == {True: "derived", False: "exact"}
    assert [(m["name"], m["change"]) for m in data["modules"]] == [("vision.dll", "version")]


def test_the_same_stack_in_other_modules_is_another_group(tmp_path):
    other: Stack = (("msvcrt.dll", 0x1234), ("vision.dll", 0x3020), ("vision.dll", 0x2200), ("vision.dll", 0x2900))
    data = run(*written(tmp_path, Moment({LOAD: [8]}), Moment({other: [8]})), "--json").data
    assert sorted(found(g) for g in data["groups"]) == [(0, 1, 0, 8), (1, 0, 8, 0)]


def test_nothing_changed_between_a_dump_and_itself(tmp_path):
    (path,) = written(tmp_path, OLD)
    result = run(path, path)
    assert result.exit_code == 0
    assert "busy memory did not change" in result.stdout and "no group of blocks changed" in result.stdout
    assert run(path, path, "--json").data["groups"] == []


def test_other_programs_are_compared_and_called_so(tmp_path):
    data = run(*written(tmp_path, OLD, replace(NEW, exe="C:\\acme\\other.exe", pid=1)), "--json").data
    assert (data["same_process"], data["relation"]) == (False, "different_programs")
    assert data["reconciliation"]["groups_delta"] == 104_500


def test_heaps_are_matched_by_role_and_order_between_runs(tmp_path):
    def process(base: int, pid: int, sizes: list[int]) -> str:
        made = Moment({NONE: [10]}, heap=base, pid=pid, records_stacks=False).process()
        for i, size in enumerate(sizes):
            heap = NtHeapBuilder(base=base + (i + 1) * 0x1000000, flags=0x1002, index=i + 1)
            heap.busy(size)
            made.heap(heap.build())
        made.write(tmp_path / f"{pid}.dmp")
        return str(tmp_path / f"{pid}.dmp")

    old, new = process(0x20000000000, 1, [100, 200]), process(0x31000000000, 2, [150, 200, 999])
    data = run(old, new, "--group-by", "heap", "--all", "--json").data
    assert [(h["address"], h["old_address"], h["change"], h["delta_bytes"]) for h in data["heaps"]] == [
        ("0x31003000000", None, "new", 999),
        ("0x31001000000", "0x20001000000", None, 50),
        ("0x31000000000", "0x20000000000", None, 0),
        ("0x31002000000", "0x20002000000", None, 0),
    ]
    assert sorted(found(g) for g in data["groups"]) == [
        (0, 1, 0, 999),
        (1, 1, 10, 10),
        (1, 1, 100, 150),
        (1, 1, 200, 200),
    ]
    one = run(
        old, new, "--heap", "0x20001000000", "--json"
    ).data  # an address of the old dump; in the new one it is matched
    assert one["reconciliation"] == {
        "groups_delta": 50,
        "busy_delta": 1049,
        "omitted_delta": 999,
        "old_bytes": 310,
        "new_bytes": 1359,
    }
    assert run(old, new, "--heap", "#1", "--json").data["groups"] == one["groups"]
    assert run(old, new, "--heap", "1", "--json").data["groups"] == one["groups"]
    assert {run(old, new, "--heap", word).exit_code for word in ("0x999", "#9", "#x")} == {2}


def test_filters_leave_out_blocks_and_the_page_says_how_many_bytes(tmp_path):
    paths = written(tmp_path, OLD, NEW)
    data = run(*paths, "--size", "5000", "--json").data
    assert [found(g) for g in data["groups"]] == [(2, 9, 10_000, 45_000)]
    assert data["reconciliation"]["omitted_delta"] == 69_500
    assert "+35,000 bytes + +69,500 left out" not in (page := run(*paths, "--size", "5000").stdout)
    assert "+35,000 bytes, and +69,500 that filters leave out = busy blocks of all heaps: +104,500 bytes" in page
    assert [found(g) for g in run(*paths, "--focus", "vision.dll.0x2f00", "--json").data["groups"]] == [
        (0, 1, 0, 70_000)
    ]
    assert [g["delta_bytes"] for g in run(*paths, "--min-bytes", "10K", "--json").data["groups"]] == [70_000, 35_000]
    rules = tmp_path / "rules"
    rules.write_text("leak:mymalloc\n")
    assert [g["delta_bytes"] for g in run(*paths, "--suppressions", rules, "--json").data["groups"]] == [70_000]


def test_without_stacks_in_one_dump_types_are_compared_and_it_is_said(tmp_path):
    paths = written(tmp_path, OLD, replace(NEW, records_stacks=False))
    silent = run(*paths, "--json")
    assert silent.exit_code == 0 and silent.data["groups"][0]["frames"] == []
    asked = run(*paths, "--group-by", "stack", "--json")
    assert asked.exit_code == 4
    notes = json.loads(asked.stdout)["notes"]
    assert (
        len(notes) == 1 and notes[0].startswith("1.dmp: no allocation stacks") and "grouped by type instead" in notes[0]
    )


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ("growth=102K", 1),
        ("growth=104500", 0),
        ("growth=104499", 1),
        ("group=70000", 0),
        ("group=69999", 1),
        ("private=1G", 0),
    ],
)
def test_limits_of_growth_decide_the_exit_code(tmp_path, limit, code):
    assert run(*written(tmp_path, OLD, NEW), "--fail-on", limit).exit_code == code


def test_limits_are_refused_where_they_make_no_sense(tmp_path):
    paths = written(tmp_path, OLD, NEW)
    assert run(*paths, "--fail-on", "rain=1M").exit_code == 2
    assert run(*paths, "--fail-on", "growth").exit_code == 2
    assert run(paths[0]).exit_code == 2


def test_the_page_says_what_grew(tmp_path):
    page = run(*written(tmp_path, OLD, NEW)).stdout
    assert "busy memory grew by 102.1 kB (+975.7%): from 10.5 kB to 112.5 kB, from 7 blocks to 13 blocks" in page
    assert (
        "66.7% of what grew is 68.4 kB in 1 more block, now 1 of 70,000 bytes, allocated by vision.dll+0x2f00" in page
    )
    assert (
        "33.3% of what grew is 34.2 kB in 7 more blocks, now 9 of 5,000 bytes, allocated by mymalloc.dll+0x3020" in page
    )
    assert "(+1 h)" in page and "the same process: addresses can be compared" in page
    assert "leak" not in page.lower()


def test_what_windows_counted_is_compared(tmp_path):
    paths = []
    for i, private in enumerate((41, 60)):
        process = OLD.process()
        process.dump.stream(22, counters_1(private=private << 20)).stream(
            12, struct.pack("<4I", 16, 32, 3 + i, 0) + bytes(32 * 4)
        )
        paths.append(tmp_path / f"{i}.dmp")
        process.write(paths[-1])
    counters = {row["name"]: row["values"] for row in run(*paths, "--json").data["counters"]}
    assert counters["working_set_bytes"] == [57 << 20] * 2 and counters["handles"] == [3, 4]


def test_dumps_out_of_order_are_noted(tmp_path):
    result = run(*written(tmp_path, NEW, OLD), "--json")
    assert "not named in the order of their times" in " ".join(json.loads(result.stdout)["notes"])
    assert result.data["seconds"] is None


def test_one_walk_at_a_time_is_in_memory(tmp_path, monkeypatch):
    paths = written(tmp_path, OLD, NEW, NEW)
    opened: list[Snapshot] = []
    really = Snapshot._walk_heaps

    def walk(snapshot: Snapshot) -> Any:
        assert [one for one in opened if "walk" in one.__dict__ or "stacks" in one.__dict__] == []
        opened.append(snapshot)
        return really(snapshot)

    monkeypatch.setattr(Snapshot, "_walk_heaps", walk)
    assert run(paths[0], paths[1], "--no-cache", "--group-by", "size").exit_code == 0
    assert len(opened) == 2


def series(blocks: list[dict[Stack, list[int]]], hours: float = 0.5, **more: Any) -> list[Moment]:
    return [Moment(one, timestamp=1_700_000_000 + round(3600 * hours * i), **more) for i, one in enumerate(blocks)]


GROWING = series(
    [
        {LOAD: [5000] * (10 + 8 * i), RUN: [100, 300, 200, 250, 120][i % 5 :][:1] * 9, STOP: [70_000] * (i > 3) + [9]}
        for i in range(7)
    ]
)


def test_several_dumps_have_values_slopes_and_shapes(tmp_path):
    data = run(*written(tmp_path, *GROWING), "--json").data
    groups = {stack_of(g, MODULES): g for g in data["groups"]}
    assert {stack: g["trend"]["class"] for stack, g in groups.items()} == {
        LOAD: "steady_growth",
        STOP: "step",
        RUN: "sawtooth",
    }
    load = groups[LOAD]
    assert load["values"] == [{"count": 10 + 8 * i, "bytes": 5000 * (10 + 8 * i)} for i in range(7)]
    assert (load["trend"]["slope"], load["trend"]["slope_count"], load["trend"]["per"]) == (80_000, 16, "hour")
    assert (load["trend"]["share_up"], load["trend"]["kendall_s"]) == (1, 21)
    assert data["groups"][0] == load  # slope times share of the growth
    assert sum(g["trend"]["share"] for g in data["groups"]) == pytest.approx(1)
    busy = next(one for one in data["trends"] if one["name"] == "busy_bytes")
    assert (busy["class"], busy["per"]) == ("steady_growth", "hour")
    assert data["reconciliation"]["omitted_delta"] == 0
    assert len(data["dumps"]) == 7 and len(data["counters"][0]["values"]) == 7


def test_several_dumps_are_put_in_the_order_of_their_times(tmp_path):
    paths = written(tmp_path, *GROWING)
    first = run(*paths, "--json")
    again = run(*paths[3:], *paths[:3], "--json")
    assert json.loads(again.stdout)["data"] == first.data
    assert [one["path"] for one in json.loads(again.stdout)["dumps"]] == paths


def test_without_times_slopes_are_per_dump(tmp_path):
    paths = written(tmp_path, *(replace(moment, timestamp=7) for moment in GROWING))
    load = next(g for g in run(*paths, "--json").data["groups"] if stack_of(g, MODULES) == LOAD)
    assert (load["trend"]["slope"], load["trend"]["per"]) == (40_000, "dump")


def test_three_dumps_have_no_shape_and_two_no_trend(tmp_path):
    paths = written(tmp_path, *GROWING)
    assert {g["trend"]["class"] for g in run(*paths[:3], "--json").data["groups"]} == {None}
    assert {g["trend"] is None for g in run(*paths[:2], "--json").data["groups"]} == {True}


def test_the_page_of_several_dumps_shows_what_grows_steadily(tmp_path):
    page = " ".join(run(*written(tmp_path, *GROWING)).stdout.split())
    assert (
        "steady growth of 78.1 kB/h (77% of what grew; 6 of 6 steps up, p < 0.001): 234.4 kB in 48 more blocks, now 58 of 5,000 bytes"
        in page
    )
    assert "▁▂▃▅▆▇█" in page and "▁▁▁▁███" in page


def test_a_32_bit_process_is_told_when_its_largest_free_run_is_used_up(tmp_path):
    paths = []
    for i in range(5):
        made = address_space(hooked=False, timestamp=1_700_000_000 + 3600 * i)
        made.region(0x40000000, 0x1000000 * (i + 1))
        paths.append(tmp_path / f"{i}.dmp")
        made.write(paths[-1])
    found = run(*paths, "--json").data
    outlook = found["outlook"]
    assert outlook["bytes_per_hour"] == 16 << 20
    assert outlook["bytes_left"] == 0x40000000 - 0x10200000 and outlook["hours"] == pytest.approx(
        outlook["bytes_left"] / (16 << 20)
    )
    assert any(
        "at 16.0 MB/h of private memory, the largest allocatable block (766.0 MB) is used up in 48 h" in one
        for one in found["findings"]
    )


@pytest.mark.parametrize("variant", [("x64", "ucrt"), ("x86", "ucrt")])
def test_request_numbers_of_the_debug_heap_tell_new_blocks_exactly(tmp_path, variant):
    old = [(40, NAMES, 12, 1, 1), (100, NAMES, 30, 1, 7), (7, NAMES, 12, 1, 9)]
    new = [old[0], (100, NAMES, 30, 1, 10), (100, NAMES, 30, 1, 11), old[2]]  # 7 was freed
    paths = []
    for i, blocks in enumerate((old, new)):
        built, _ = built_with(variant, blocks)
        paths.append(tmp_path / f"{i}.dmp")
        paths[-1].write_bytes(built.data)
    result = run(*paths, "--group-by", "source", "--json")
    assert result.data["crt"] == {"last_request": 9, "new_blocks": 2, "new_bytes": 200}
    assert [(g["key"], g["delta_count"]) for g in result.data["groups"]] == [("d:\\src\\app\\main.cpp(30)", 1)]
    assert (
        "2 blocks with 200 bytes were allocated after the first dump (CRT request numbers above 9)"
        in result.data["findings"]
    )


def test_the_umdh_log_has_every_change_and_the_total(tmp_path):
    result = run(*written(tmp_path, OLD, NEW), "--export", "umdh")
    assert result.exit_code == 0
    size, count = (
        r"([+-]) +(\d+) \( *(\d+) - +(\d+)\) +(\d+) allocs\tBackTrace(\w+)",
        r"([+-]) +(\d+) \( *(\d+) - +(\d+)\)\tBackTrace(\w+)\tallocations",
    )
    sizes, counts = re.findall(size, result.stdout), re.findall(count, result.stdout)
    assert [(sign, int(delta), int(new), int(old), int(blocks)) for sign, delta, new, old, blocks, _ in sizes] == [
        ("+", 70_000, 70_000, 0, 1),
        ("+", 35_000, 45_000, 10_000, 9),
        ("-", 500, 100, 600, 1),
    ]
    assert [(sign, int(delta), int(new), int(old)) for sign, delta, new, old, _ in counts] == [
        ("+", 1, 1, 0),
        ("+", 7, 9, 2),
        ("-", 2, 1, 3),
    ]
    assert [one[-1] for one in sizes] == [one[-1] for one in counts]
    assert "\tmymalloc.dll+0x3020\r\n\tvision.dll+0x2200\r\n" in result.stdout.replace("\n", "\r\n").replace(
        "\r\r", "\r"
    )
    requested, overhead, total = map(
        int, re.findall(r"Total increase == +(\d+) requested \+ +(-?\d+) overhead = +(\d+)", result.stdout)[0]
    )
    assert (requested, total) == (104_500, requested + overhead) and overhead > 0


def test_the_pprof_file_subtracts_the_first_dump(tmp_path):
    out = tmp_path / "change.pb.gz"
    assert run(*written(tmp_path, OLD, NEW), "--export", "pprof", "-o", out).exit_code == 0
    profile = fields(gzip.decompress(out.read_bytes()))
    strings = [text.decode() for text in profile[6]]
    sums = {True: [0, 0], False: [0, 0]}
    for sample in map(fields, profile[2]):
        is_base = bool(sample[3])
        if is_base:
            label = fields(sample[3][0])
            assert (strings[label[1][0]], strings[label[2][0]]) == ("pprof::base", "true")
        for i, value in enumerate(packed(sample[2][0])):
            sums[is_base][i] += value - (1 << 64) * (value >> 63)
    assert sums == {False: [sum(count for count, _ in NEW.amounts().values()), NEW.bytes], True: [-7, -OLD.bytes]}


def test_the_flame_graph_has_changes_with_their_sign(tmp_path):
    out = tmp_path / "change.html"
    assert run(*written(tmp_path, OLD, NEW), "--export", "flame", "-o", out).exit_code == 0
    page = out.read_text(encoding="utf-8")
    rows = json.loads(re.findall(r'id="data">(.*?)</script>', page)[0])
    assert rows[0] == [0, "all", 105_500, 10, 104_500, 6]
    assert [-500, -2] in [row[4:] for row in rows] and "red grew, blue shrank" in page


def test_exports_need_stacks_and_take_no_other_key(tmp_path):
    paths = written(tmp_path, OLD, replace(NEW, records_stacks=False))
    result = run(*paths, "--export", "flame")
    assert result.exit_code == 2 and "1.dmp: no allocation stacks are recorded" in result.stderr
    assert run(*written(tmp_path, OLD, NEW), "--export", "flame", "--group-by", "size").exit_code == 2


@pytest.mark.real
@pytest.mark.parametrize("build", builds("grow-t1"))
def test_recorded_growth_is_found_by_size_and_adds_up(build: str, recorded: Recorded) -> None:
    old, new = (recorded(f"oracle/{build}/grow-{t}.dmp.xz") for t in ("t0", "t1"))
    for by in ("size", "heap", "type"):
        data = run(old, new, "--group-by", by, "--all", "--json").data
        assert data["same_process"] and data["reconciliation"]["omitted_delta"] == 0
        if by != "size":
            continue
        sides: list[dict[int, tuple[int, int]]] = []
        for t in ("t0", "t1"):
            sizes: dict[int, int] = {}
            for block in truth_of(recorded, build, f"grow-{t}")["blocks"]:
                if block["by"] == "program":
                    sizes[int(block["size"])] = sizes.get(int(block["size"]), 0) + 1
            sides.append({size: (count, size * count) for size, count in sizes.items()})
        got = {int(g["key"].split()[0].replace(",", "")): found(g) for g in data["groups"]}
        want = expected(*sides)
        for size, numbers in want.items():
            theirs = got[size]
            assert theirs[1] - theirs[0] == numbers[1] - numbers[0], size
            assert theirs[0] >= numbers[0], size


def test_small_dumps_say_who_holds_what_grew_most(tmp_path):
    paths = written(tmp_path, OLD)
    process = NEW.process()
    largest = process.build()  # the block is found by its size below
    later = tmp_path / "later.dmp"
    later.write_bytes(largest.data)
    sample = next(g for g in run(paths[0], later, "--json").data["groups"] if g["new_bytes"] == 70_000)["sample"][0]
    at = process.plan.exe + 0xC000 - 0x1000
    later.write_bytes(poke(largest, (at, int(sample, 16).to_bytes(8, "little"))).data)
    findings = run(paths[0], later, "--json").data["findings"]
    assert findings[1].endswith("allocated by vision.dll+0x2f00 ← vision.dll+0x2900; held by app.exe!.data+0x1000")


def with_large_blocks(*sizes: int) -> bytes:
    heap = NtHeapBuilder(arch="x64", build=19041, base=0x20000000000, reserve=0x100000)
    heap.busy(0x100)
    for i, size in enumerate(sizes):
        heap.virtual(0x30000000000 + i * 0x1000000, size)
    return ProcessBuilder(arch="x64", build=19041).heap(heap.build()).build().data


def test_large_blocks_are_compared_by_size(tmp_path):
    for name, sizes in (("old", (0x200000, 0x100000)), ("new", (0x200000, 0x200000, 0x300000))):
        (tmp_path / f"{name}.dmp").write_bytes(with_large_blocks(*sizes))
    found = run(tmp_path / "old.dmp", tmp_path / "new.dmp", "--json").data["large_blocks"]
    changes = {tuple(row["values"]): row["delta_bytes"] for row in found}
    assert set(changes) == {(0, 1), (1, 2), (1, 0)}
    assert 0x300000 <= changes[0, 1] < 0x302000 and -0x102000 < changes[1, 0] <= -0x100000
    shown = run(tmp_path / "old.dmp", tmp_path / "new.dmp").stdout
    assert re.search(r"Large blocks of +Old +New +Delta +Heap\n +3\.\d+ MB +0 +1 +\+3", shown)


def test_a_proposed_command_stands_whole_on_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SAMPLES["growth"](tmp_path / "growth.dmp")
    later = tmp_path / "growth-later.dmp"
    for width in range(60, 200, 7):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = run(tmp_path / "growth.dmp", later).stdout.splitlines()
        assert any(f"→ heapdump refs {later} 0x" in line for line in lines), width
