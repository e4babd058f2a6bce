"""`gaps`: free runs, who keeps them apart and why; the story of a hook that moves a runtime, told by `diff`, too."""

from __future__ import annotations

import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump import cli
from heapdump.analyses.memory.allocations import Allocations
from heapdump.analyses.memory.free_runs import free_runs
from heapdump.analyses.memory.gaps import Gaps
from heapdump.analyses.memory.pointers_into import pointers_into
from heapdump.spans import Span
from tests.address_spaces import (
    HOOK_BYTES,
    MOVED,
    RUNTIME,
    RUNTIME_BYTES,
    TRAMPOLINE,
    VICTIM,
    jump,
    process,
    write_pair,
)
from tests.builders import ProcessBuilder
from tests.dump.test_counters import system
from tests.patching import poke

KiB64 = 0x10000


def run(*arguments: object) -> tuple[int, str, str]:
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = cli.run([str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


def data(*arguments: object) -> Any:
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)["data"]


@pytest.fixture
def story(tmp_path: Path) -> tuple[str, str]:
    return write_pair(tmp_path)


def test_the_second_dump_alone_names_who_broke_up_the_largest_free_run(story):
    found = data("gaps", story[1])
    culprit = found["culprits"][0]
    assert (culprit["address"], culprit["bytes"], culprit["owner"]) == (hex(MOVED), RUNTIME_BYTES, "Image runtime.dll")
    left, right = MOVED - RUNTIME - HOOK_BYTES, found["largest_free_bytes"]
    assert culprit["gain_bytes"] == left + RUNTIME_BYTES
    assert culprit["joined_bytes"] == left + RUNTIME_BYTES + right
    (member,) = culprit["members"]
    assert (member["kind"], member["preferred_base"]) == ("moved_image", hex(RUNTIME))
    assert culprit["reason"].startswith(
        f"loaded away from its preferred base {RUNTIME:#x}, where Image hook.dll (256.0 kB) lies"
    )


def test_the_two_dumps_together_tell_the_same(story):
    found = data("diff", *story)
    assert found["same_process"] is False
    changes = {change["name"]: change for change in found["modules"]}
    assert {name: change["change"] for name, change in changes.items()} == {"hook.dll": "new", "runtime.dll": "moved"}
    assert changes["hook.dll"]["memory_imports"] == ["VirtualAlloc", "VirtualProtect", "LoadLibraryW"]
    moved = changes["runtime.dll"]
    assert (moved["old"]["address"], moved["new"]["address"]) == (hex(RUNTIME), hex(MOVED))
    assert [(one["usage"], one["detail"]) for one in moved["at_old_base"]] == [("Image", "hook.dll")]
    gap = found["gaps"][0]
    assert (gap["address"], [one["detail"] for one in gap["occupants"]]) == (
        hex(RUNTIME + RUNTIME_BYTES),
        ["runtime.dll"],
    )
    page = " ".join(run("diff", *story)[1].split())
    assert (
        "the largest free run shrank from 1.4 GB to 766.0 MB; where it was, from 0x10200000 on, now lie Image runtime.dll (2.0 MB)"
        in page
    )
    assert (
        "1 new module: hook.dll (imports VirtualAlloc, VirtualProtect, LoadLibraryW); 1 moved module: runtime.dll (from 0x10000000, where Image hook.dll lies now, to 0x38000000)"
        in page
    )


def test_before_the_hook_nothing_is_in_the_way(story):
    found = data("gaps", story[0])
    assert all(one["gain_bytes"] < 300 << 20 for one in found["culprits"])
    assert not any("keeps" in sentence for sentence in found["findings"])


def test_requests_are_answered_with_what_would_make_them_fit(story):
    fits, broken, used_up = (data("gaps", story[1], "--request", size) for size in ("500M", "1G", "2046M"))
    assert fits["request"] == {"bytes": 500 << 20, "fitting_runs": 2}
    assert "fits in 2 free runs" in fits["findings"][0]
    assert broken["request"]["fitting_runs"] == 0
    assert "does not fit" in broken["findings"][0] and "broken up" in broken["findings"][0]
    assert any("runtime.dll" in sentence and "it would fit" in sentence for sentence in broken["findings"])
    assert "used up" in used_up["findings"][0]


@pytest.mark.parametrize("limit", ["1", "1000"])
def test_what_would_make_a_request_fit_is_found_behind_what_is_listed(tmp_path, limit):
    made, at, megabyte = ProcessBuilder(arch="x86", build=7601), 0x4000000, 1 << 20
    for free in (350, 350, *[0] * 9, 650, 150, *[0] * 9):  # the first divider keeps more apart, the second joins more
        made.region(at, KiB64)
        at += KiB64 + free * megabyte
    made.write(tmp_path / "a.dmp")
    code, out, err = run("gaps", tmp_path / "a.dmp", "--request", "750M", "--limit", limit)
    page = " ".join(out.split())
    assert code == 0, err
    assert "a request of 750.0 MB does not fit" in page
    assert page.count("it would fit") == 1 and "it would fit: the free run would be 800.1 MB" in page


def test_of_allocations_that_make_room_together_the_one_that_is_enough_is_named(tmp_path):
    made, at, megabyte = ProcessBuilder(arch="x86", build=7601), 0x4000000, 1 << 20
    for free in (500, 25, 740, *[0] * 9):
        made.region(at, KiB64)
        at += KiB64 + free * megabyte
    made.write(tmp_path / "a.dmp")
    page = " ".join(run("gaps", tmp_path / "a.dmp", "--request", "760M")[1].split())
    assert page.count("it would fit") == 1 and "it would fit: the free run would be 765.1 MB" in page


@pytest.mark.parametrize(("aware", "gain"), [(False, 2 << 30), (True, 0)])
def test_the_header_of_the_program_tells_what_large_addresses_would_gain(tmp_path, aware, gain):
    path = tmp_path / "a.dmp"
    process(hooked=False, large_address_aware=aware).write(path)
    found = data("gaps", path)
    assert (found["limit_bytes"], found["large_address_aware"]) == (2 << 30, aware)
    assert found["large_address_gain_bytes"] == gain
    assert any("/LARGEADDRESSAWARE" in sentence for sentence in found["findings"]) is (not aware)


@pytest.mark.parametrize(("aware", "limit"), [(False, 2 << 30), (True, 4 << 30)])
def test_a_wow64_process_has_the_limit_of_its_program(tmp_path, aware, limit):
    from tests.builders.image_header import ImageFacts

    made = ProcessBuilder(arch="wow64", build=19041, exe_facts=ImageFacts(0x400000, large_address_aware=aware))
    path = tmp_path / "a.dmp"
    made.write(path)
    found = data("gaps", path)
    assert (found["limit_bytes"], found["large_address_aware"]) == (limit, aware)
    assert all(int(run["address"], 16) + run["bytes"] <= limit for run in found["runs"])


@pytest.mark.parametrize(("committed", "request_size", "words"), [
    (100, "1M", "4.0 GB of 4.0 GB of the system's commit limit are left: commit is not the limit"),
    (1_048_500, "1M", "304.0 kB of 4.0 GB of the system's commit limit are left: committing the request would be refused"),
    (1_048_500, None, "304.0 kB of 4.0 GB of the system's commit limit are left: commit is scarce in the whole system"),
])  # fmt: skip
def test_the_commit_limit_of_the_system_is_told_apart(tmp_path, committed, request_size, words):
    made = process(hooked=False)
    made.dump.stream(21, system(counts=(100, committed, 1 << 20, 400)))
    made.write(tmp_path / "a.dmp")
    asked = ("--request", request_size) if request_size else ()
    assert words in data("gaps", tmp_path / "a.dmp", *asked)["findings"]


def test_hook_trampolines_are_named_with_the_function_and_the_hook(story):
    members = [member for one in data("gaps", story[1])["culprits"] for member in one["members"]]
    (hook,) = [member for member in members if member["address"] == hex(TRAMPOLINE)]
    assert (hook["kind"], hook["reason"]) == ("hook", "hook trampolines: user32.dll+0x1000 jumps here")


@pytest.fixture
def broken_up(tmp_path: Path) -> Path:
    """A dump with 1,500 free runs and more, and an allocation between each two of them."""
    made = ProcessBuilder(arch="x86", build=7601)
    for i in range(1500):
        made.region(0x20000000 + i * 2 * KiB64, KiB64)
    path = tmp_path / "a.dmp"
    made.write(path)
    return path


def test_more_runs_and_dividers_than_are_examined_are_gaps(broken_up):
    code, out, _ = run("gaps", broken_up, "--json")
    document = json.loads(out)
    found = document["data"]
    assert code == 4 and not document["complete"]
    assert (len(found["runs"]), len(found["culprits"])) == (1000, 1000)
    notes = document["notes"]
    assert f"only the largest 1,000 of {found['free_runs']:,} free runs are listed" in notes
    assert any(note.startswith("only the first 1,000 of what lies between free runs are examined") for note in notes)


@pytest.mark.parametrize(("options", "count", "gaps"), [
    (("--all",), "1,000", 2), (("--limit", "5"), "5", 0), (("--limit", "100000"), None, 0),
])  # fmt: skip
def test_the_page_says_how_many_dividers_it_shows_of_more(broken_up, options, count, gaps):
    _, out, err = run("gaps", broken_up, *options)
    line = f"the {count} that keep most free memory apart; more with --limit N"
    assert (line in out) if count else ("more with --limit N" not in out)
    assert (err.count("only the largest"), err.count("only the first")) == (gaps // 2, gaps // 2)


def test_of_many_hooked_functions_three_are_named_and_the_others_counted(tmp_path):
    patches = []
    for i in range(40):
        start, place = VICTIM + 0x1000 + 0x20 * i, TRAMPOLINE + 0x20 * i
        patches += [(start, jump(start, RUNTIME + 0x2000)), (place, b"\x90" * 5 + jump(place + 5, start + 5))]
    path = tmp_path / "a.dmp"
    path.write_bytes(poke(process(hooked=True).build(), *patches).data)
    members = {m["address"]: m for one in data("gaps", path)["culprits"] for m in one["members"]}
    named = "user32.dll+0x1000, user32.dll+0x1020, user32.dll+0x1040 and 37 more"
    assert members[hex(TRAMPOLINE)]["reason"] == f"hook trampolines: {named} jump here"


def test_a_stack_and_private_memory_say_whose_they_are(tmp_path):
    made = process(hooked=False)
    made.region(0x40000000, KiB64).memory(0x40000000, b"GARBAGE!".ljust(KiB64, b"\0"))
    made.thread(99, stack=(0x20010000, 0x20020000), stack_reserve=0x20000)
    made.dump.thread_info(99, start_address=0x401234)
    path = tmp_path / "a.dmp"
    data_at = made.plan.exe + 0xC000 - 0x1000
    path.write_bytes(poke(made.build(), (data_at, (0x40000010).to_bytes(4, "little"))).data)
    members = {m["address"]: m for one in data("gaps", path)["culprits"] for m in one["members"]}
    private, stack = members["0x40000000"], members["0x20000000"]
    assert (private["kind"], private["referrers"]) == ("private", [hex(data_at)])
    assert private["reason"] == "private memory, first bytes GARBAGE!........; pointers to it: app.exe+0xb000"
    assert (stack["kind"], stack["reason"]) == ("stack", "stack of thread ~1 tid 0x63, which began at app.exe+0x1234")


@pytest.mark.parametrize(("count", "more"), [(3, ""), (5, " and more")])
def test_more_pointers_to_private_memory_than_are_named_are_mentioned(tmp_path, count, more):
    made = process(hooked=False)
    made.region(0x40000000, KiB64)
    path = tmp_path / "a.dmp"
    data_at = made.plan.exe + 0xC000 - 0x1000
    path.write_bytes(poke(made.build(), (data_at, (0x40000010).to_bytes(4, "little") * count)).data)
    (member,) = [m for one in data("gaps", path)["culprits"] for m in one["members"] if m["address"] == "0x40000000"]
    assert member["reason"] == f"private memory; pointers to it: app.exe+0xb000, app.exe+0xb004, app.exe+0xb008{more}"
    assert member["referrers"] == [hex(data_at + 4 * i) for i in range(3)]
    assert member["has_more_referrers"] is bool(more)


def test_pointers_that_were_not_searched_for_are_a_gap(tmp_path, monkeypatch):
    monkeypatch.setattr("heapdump.analyses.memory.pointers_into._MOST_BYTES", 0x1000)
    made = process(hooked=False)
    made.region(0x40000000, KiB64)
    made.write(tmp_path / "a.dmp")
    code, out, _ = run("gaps", tmp_path / "a.dmp", "--json")
    document = json.loads(out)
    members = {m["address"]: m for one in document["data"]["culprits"] for m in one["members"]}
    private = members["0x40000000"]
    said = "not searched for (more than 4 GiB of writable memory)"
    assert (private["referrers"], private["has_more_referrers"]) == ([], None)
    assert private["reason"] == f"private memory; pointers to it were {said}"
    assert code == 4
    assert f"pointers to private memory between free runs were {said}" in document["notes"]
    page = " ".join(run("gaps", tmp_path / "a.dmp")[1].split())
    assert "were not searched for" in page


def test_a_dump_without_a_memory_map_says_that_nothing_is_known(tmp_path):
    made = process(hooked=True)
    made.dump.drop(16)
    made.write(tmp_path / "a.dmp")
    code, out, _ = run("gaps", tmp_path / "a.dmp", "--json")
    document = json.loads(out)
    assert code == 4 and document["data"]["largest_free_bytes"] is None and document["data"]["runs"] == []
    assert any("no complete memory map" in note for note in document["notes"])


PIECES = st.lists(st.tuples(st.booleans(), st.integers(1, 400)), min_size=1, max_size=40)


@given(pieces=PIECES)
def test_free_runs_and_dividers_are_those_of_a_page_by_page_count(pieces, open_built):
    """Random free and private pieces in pages, counted by hand."""
    made = ProcessBuilder(arch="x86", build=7601)
    at, start = 0x20000000, 0x20000000
    pages = set()
    for is_free, count in pieces:
        if not is_free:
            made.region(at, count * 0x1000)
            pages |= set(range(at >> 12, (at >> 12) + count))
        at += count * 0x1000
    with open_built(made) as snapshot:
        regions = snapshot.process.regions
        runs = [run for run in free_runs(regions) if start <= run.start and run.end <= at]
        page, expected = start >> 12, []
        while page < at >> 12:
            first = page
            while page < at >> 12 and page not in pages:
                page += 1
            aligned = -(-first // 16) * 16
            if aligned < page < at >> 12 and first > start >> 12:
                expected.append(Span(aligned << 12, page << 12))
            page += 1
        inner = [run for run in runs if run.start > start + KiB64 or (start >> 12) in pages]
        assert set(expected) <= set(runs) and len(inner) <= len(runs)
        everything = free_runs(regions)
        gaps = Gaps(everything, Allocations(snapshot.usage))
        for divider in gaps.dividers(1000):
            touching = [run for run in everything if run.start in divider.joined]
            assert divider.joined.size - max(run.size for run in (touching[0], touching[-1])) == divider.gain_bytes
            assert divider.apart_bytes <= divider.gain_bytes and touching[0].end <= divider.span.start
            assert divider.span.end <= touching[-1].start


def test_pointers_into_a_span_are_found_outside_of_it_only(open_built):
    made = process(hooked=False)
    made.region(0x40000000, KiB64).memory(0x40000000, (0x40000020).to_bytes(4, "little").ljust(KiB64, b"\0"))
    made.region(0x41000000, KiB64).memory(
        0x41000000, b"".join((0x40000000 + i).to_bytes(4, "little") for i in range(5)).ljust(KiB64, b"\0")
    )
    with open_built(made) as snapshot:
        spans = [Span(0x40000000, 0x40010000), Span(0x50000000, 0x50010000)]
        assert pointers_into(snapshot.process, spans, 3) == [(0x41000000, 0x41000004, 0x41000008), ()]
