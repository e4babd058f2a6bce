"""What each range is used for, in WinDbg's words."""

from __future__ import annotations

from itertools import pairwise

import pytest

from heapdump.analyses.memory.items import ITEM_OF_EXTENT, Item
from heapdump.analyses.memory.regions import select
from heapdump.blocks.heap import ExtentKind
from heapdump.errors import WrongUsage
from heapdump.memory.regions import Kind, Region, State
from heapdump.snapshot import Snapshot
from heapdump.spans import Span
from heapdump.wording import preview
from tests.builders import ProcessBuilder
from tests.builders.process_plan import ProcessArch
from tests.heaps.nt.plans import FIXED, Generation, heap_of

AREA = 0x28A70000000
TEN = Generation("x64", 19041)


def rich(arch: ProcessArch = "x64", build: int = 19041) -> ProcessBuilder:
    """A process with two heaps, two threads, private and mapped memory, and an image that no list names."""
    process = ProcessBuilder(arch=arch, build=build)
    own = Generation("x64" if arch == "x64" else "x86", build)
    base = own.base
    for i, actions in enumerate((FIXED[4], FIXED[2])):
        process.heap(heap_of(own, actions, base=base + i * 0x4000000).build())
    if arch == "wow64":
        process.heap(heap_of(Generation("x64", build), FIXED[2], base=0x40000000).build(), view="x64")
    process.thread(100).thread(101)
    area = AREA if own.arch == "x64" else 0x60000000
    process.region(area, 0x10000).memory(area, b"hello world\0\1\2\3more".ljust(0x10000, b"\xcc"))
    process.region(area + 0x10000, 0x10000, state="MEM_RESERVE", allocation_base=area)
    process.region(area + 0x100000, 0x3000, type="MEM_MAPPED", protect=2).memory(area + 0x100000, bytes(0x3000))
    process.region(area + 0x200000, 0x2000, type="MEM_IMAGE", protect=2)
    process.region(area + 0x300000, 0x2000, type="MEM_IMAGE", protect=2)
    process.dump.unloaded(area + 0x300000, 0x2000, "gone.dll")
    return process


def at(snapshot: Snapshot, address: int) -> Region:
    (region,) = select(snapshot.usage, at=Span(address, address + 1))
    return region


@pytest.fixture
def snapshot(open_built):
    with open_built(rich()) as opened:
        yield opened


def test_heap_memory_is_called_heap_with_the_heap_and_its_part(snapshot):
    base = TEN.base
    segment = at(snapshot, base)
    assert (segment.usage, segment.detail) == ("Heap", f"#0 {base:#x} segment 0")
    large = at(snapshot, base + 0x1000000)
    assert (large.usage, large.detail) == ("Heap", f"#0 {base:#x} large block")
    assert at(snapshot, base + 0x4000000).detail == f"#1 {base + 0x4000000:#x} segment 0"


def test_uncommitted_memory_and_the_guard_page_of_a_heap_are_heap_too(snapshot):
    base = TEN.base + 0x4000000
    end = at(snapshot, base + 0xFF000)
    assert (end.usage, end.state) == ("Heap", State.MEM_RESERVE)


def test_a_stack_is_called_stack_with_its_thread_from_its_reservation_on(snapshot):
    process = rich()
    base = process.plan.stacks + 0x100000
    for address, state in (
        (base - 0x100000, State.MEM_RESERVE),
        (base - 0x5000, State.MEM_COMMIT),
        (base - 1, State.MEM_COMMIT),
    ):
        region = at(snapshot, address)
        assert (region.usage, region.detail, region.state) == ("Stack", "~0 tid 0x64", state)
    assert at(snapshot, base + 0x10000 + 0xFF000).detail == "~1 tid 0x65"


def test_tebs_and_the_peb_are_called_so(snapshot):
    process = rich()
    process.build()
    assert [at(snapshot, process.teb(tid)).usage for tid in (100, 101)] == ["TEB", "TEB"]
    assert at(snapshot, process.teb(101)).detail == "~1 tid 0x65"
    peb = at(snapshot, process.plan.peb)
    assert (peb.usage, peb.span.size) == ("PEB", 0x1000)


def test_images_are_called_by_their_module(snapshot):
    plan = rich().plan
    assert [(at(snapshot, base).usage, at(snapshot, base).detail) for base in (plan.exe, plan.ntdll + 0x5000)] == [
        ("Image", "app.exe"), ("Image", "ntdll.dll"),
    ]  # fmt: skip


def test_image_mappings_that_no_list_names_are_images_too(snapshot):
    assert (at(snapshot, AREA + 0x200000).usage, at(snapshot, AREA + 0x200000).detail) == ("Image", "")
    assert at(snapshot, AREA + 0x300000).detail == "was gone.dll"


def test_the_shared_user_page_is_other(snapshot):
    assert (at(snapshot, 0x7FFE0000).usage, at(snapshot, 0x7FFE0000).detail) == ("Other", "Shared User Data")


def test_free_memory_is_free_and_the_rest_unknown_with_a_preview(snapshot):
    assert at(snapshot, 0x5000).usage == "Free"
    private = at(snapshot, AREA)
    assert (private.usage, private.span) == ("<unknown>", Span(AREA, AREA + 0x10000))
    assert "hello world" in private.detail
    assert private.bytes_in_dump == 0x10000
    reserved = at(snapshot, AREA + 0x10000)
    assert (reserved.usage, reserved.detail, reserved.bytes_in_dump) == ("<unknown>", "", 0)


def test_a_preview_shows_printable_ascii_and_dots():
    assert preview(b"") == ""
    assert preview(b"AB\0\xff \x7f~\n") == "AB.. .~."


@pytest.mark.parametrize("build", [7601, 19041])
def test_the_halves_of_a_wow64_process_are_told_apart(open_built, build):
    process = rich("wow64", build)
    with open_built(process) as snapshot:
        plan = process.plan
        assert at(snapshot, 0x8000000).usage == "Heap32"
        assert at(snapshot, 0x40000000).usage == "Heap64"
        assert at(snapshot, process.teb(100)).usage == "TEB64"
        assert at(snapshot, process.teb(100) + 0x2000).usage == "TEB32"
        assert (at(snapshot, plan.peb).usage, at(snapshot, plan.peb32).usage) == ("PEB64", "PEB32")
        assert at(snapshot, plan.stacks32 + 0x100000 - 1).usage == "Stack32"
        assert at(snapshot, plan.stacks + 0x40000 - 1).usage == "Stack64"
        assert at(snapshot, plan.ntdll32).usage == "Image"
        names = {snapshot.usage.names[code] for code in snapshot.usage.codes.tolist()}
        assert names == {
            "Free", "<unknown>", "Image", "Other", "Heap32", "Heap64", "Stack32", "Stack64", "TEB32", "TEB64", "PEB32", "PEB64",
        }  # fmt: skip


# --- selecting regions


def test_no_filter_selects_every_region_in_order(snapshot):
    regions = select(snapshot.usage)
    assert len(regions) == len(snapshot.usage.table)
    assert all(a.span.end <= b.span.start for a, b in pairwise(regions))


def test_each_filter_holds_for_all_it_selects_and_for_nothing_else(snapshot):
    everything = select(snapshot.usage)
    for filters, holds in (
        ({"usage": "heap"}, lambda r: r.usage == "Heap"),
        ({"usage": "unknown"}, lambda r: r.usage == "<unknown>"),
        ({"state": "COMMIT"}, lambda r: r.state == State.MEM_COMMIT),
        ({"state": "free"}, lambda r: r.usage == "Free"),
        ({"type_": "mapped"}, lambda r: r.type == Kind.MEM_MAPPED),
        ({"protect": "guard"}, lambda r: r.protect & 0x100),
        ({"at": Span(AREA + 5, AREA + 6)}, lambda r: AREA + 5 in r.span),
        ({"usage": "stack", "state": "reserve"}, lambda r: r.usage == "Stack" and r.state == State.MEM_RESERVE),
    ):
        found = select(snapshot.usage, **filters)
        assert found, filters
        assert [r.span for r in found] == [r.span for r in everything if holds(r)], filters


def test_heap_means_both_halves_of_a_wow64_process(open_built):
    with open_built(rich("wow64")) as snapshot:
        assert {r.usage for r in select(snapshot.usage, usage="Heap")} == {"Heap32", "Heap64"}
        assert {r.usage for r in select(snapshot.usage, usage="heap64")} == {"Heap64"}


def test_an_address_outside_of_the_map_selects_nothing(snapshot):
    assert select(snapshot.usage, at=Span((1 << 64) - 2, (1 << 64) - 1)) == []


def test_a_usage_that_the_process_does_not_have_is_wrong_usage_with_what_there_is(snapshot):
    with pytest.raises(WrongUsage, match=r"no usage 'pageheap' in this process; there are: .*Heap.*TEB"):
        select(snapshot.usage, usage="PageHeap")


def test_every_part_of_a_heap_has_an_item_and_every_item_words():
    assert ITEM_OF_EXTENT.keys() == set(ExtentKind)
    assert len({item.words for item in Item}) == len(Item)
