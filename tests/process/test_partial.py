"""Dumps that lack TEBs, PEBs or parts of them: what is missing is a note, never a failure."""

from __future__ import annotations

import pytest

from heapdump.process.model import Stack
from tests.builders import BuiltDump, NtHeapBuilder, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.builders.process_plan import ProcessArch
from tests.patching import poke, with_ranges, without_memory, without_stream, word

TOP = 1 << 64


def process_of(arch: ProcessArch, threads: int = 1) -> tuple[ProcessBuilder, BuiltDump]:
    process = ProcessBuilder(arch=arch, build=19041)
    own: HeapArch = "x64" if arch == "x64" else "x86"
    process.heap(NtHeapBuilder(arch=own, build=19041, base=0x8000000).build())
    for i in range(threads):
        process.thread(100 + i)
    return process, process.build()


def everything(snapshot):
    """Each rung of the ladder; the heaps of the dump."""
    from heapdump.analyses.memory.summary import summarize

    assert snapshot.process.threads is not None
    summarize(snapshot.usage, snapshot.heaps, snapshot.walk)
    return snapshot.heaps


@pytest.mark.parametrize("arch", ["x64", "x86"])
def test_without_the_peb_the_heap_list_is_not_known_and_said_so(open_built, arch):
    process, built = process_of(arch)
    with open_built(without_memory(built, (process.plan.peb, process.plan.peb + 0x1000))) as snapshot:
        (view,) = snapshot.process.views
        assert (view.peb, view.peb_fields, view.heap_addresses) == (process.plan.peb, {}, ())
        assert (view.process_heap, view.global_flag, view.heap_list_complete) == (None, None, False)
        assert (
            f"the {arch} PEB at {process.plan.peb:#x} is not in the dump, so the heap list is not known"
            in snapshot.gaps
        )
        assert snapshot.process.image == "C:\\Program Files\\App\\app.exe"
        assert snapshot.process.command_line is None


@pytest.mark.parametrize("arch", ["x64", "x86"])
def test_without_tebs_the_peb_is_not_known_and_stacks_are_those_of_the_thread_list(open_built, arch):
    process, built = process_of(arch, threads=2)
    low = process.teb(100)
    with open_built(without_memory(built, (low, low + 0x8000))) as snapshot:
        (view,) = snapshot.process.views
        assert (view.peb, view.heap_addresses, view.heap_list_complete) == (None, (), False)
        assert f"no {arch} TEB is in the dump, so the PEB and its heap list are not known" in snapshot.gaps
        for thread, truth in zip(snapshot.process.threads, built.truth.threads, strict=True):
            start, size = truth.stack
            assert thread.stacks == (Stack(arch, start, start + size, None),)
            assert [(t.address, t.size) for t in thread.tebs] == [(truth.teb, 0)]


def test_heaps_are_still_found_by_scanning_where_the_list_is_missing(open_built):
    process, built = process_of("x64")
    with open_built(without_memory(built, (process.plan.peb, process.plan.peb + 0x1000))) as snapshot:
        assert [(heap.address, heap.kind) for heap in snapshot.heaps] == [(0x8000000, "nt")]


@pytest.mark.parametrize("arch", ["x64", "x86"])
def test_a_peb_cut_anywhere_is_read_as_far_as_it_goes(open_built, arch):
    process, built = process_of(arch)
    peb, pointer = process.plan.peb, 8 if arch == "x64" else 4
    heaps_at = 0xF0 if arch == "x64" else 0x90
    for size in (*range(0, 0x130, pointer), 0x131, 0x7C8, 0xFFF):
        with open_built(without_memory(built, (peb + size, peb + 0x1000))) as snapshot:
            (view,) = snapshot.process.views
            if size >= heaps_at + pointer:
                assert view.heap_addresses == (0x8000000,)
            else:
                assert not view.heap_list_complete
            assert [heap.address for heap in everything(snapshot)] == [0x8000000]


def test_a_dump_of_nothing_but_streams_has_a_process(open_built):
    _, built = process_of("x64")
    with open_built(with_ranges(built, [])) as snapshot:
        assert snapshot.process.arch == "x64"
        assert everything(snapshot) == ()
        assert snapshot.process.pid == 4242
        assert len(snapshot.process.threads) == 1


@pytest.mark.parametrize("arch", ["x64", "x86"])
@pytest.mark.parametrize("length", [0, 1, 0x1800, 0x10000, -0x3000, -1])
def test_a_file_cut_in_its_memory_is_answered_and_says_how_much_is_missing(open_built, arch, length):
    """Also one whose stated memory is many times what the file still has: a copy that stopped early is no attack."""
    _, built = process_of(arch)
    memory = sum(size for _, size in built.truth.ranges)
    cut = built.truth.size - memory + (length if length >= 0 else memory + length)
    with open_built(built.data[:cut]) as snapshot:
        assert snapshot.process.missing_bytes == built.truth.size - cut
        assert snapshot.process.space.total_bytes == memory - (built.truth.size - cut)
        assert any("the file ends before its memory does" in note for note in snapshot.gaps)
        everything(snapshot)


@pytest.mark.parametrize("number", [3, 4, 6, 7, 9, 15, 16])
@pytest.mark.parametrize("arch", ["x64", "x86", "wow64"])
def test_any_one_stream_may_be_missing(open_built, arch, number):
    process = ProcessBuilder(arch=arch, build=19041).exception(100, 0xC0000005, 0x10).thread(100)
    process.heap(NtHeapBuilder(arch="x64" if arch == "x64" else "x86", base=0x8000000).build())
    with open_built(without_stream(process.build(), number)) as snapshot:
        assert snapshot.process.views[0].arch == ("x86" if arch == "x86" else "x64")
        heaps = everything(snapshot)
        # without threads there is no TEB, without memory nothing at all
        assert [h.address for h in heaps] == ([] if number == 9 else [0x8000000])


def test_without_the_misc_stream_the_teb_tells_the_process_id(open_built):
    _, built = process_of("x64")
    with open_built(without_stream(built, 15)) as snapshot:
        assert snapshot.process.misc is None
        assert snapshot.process.pid == 4242


def test_a_teb_whose_self_pointer_names_another_address_is_not_believed(open_built):
    process, built = process_of("x64", threads=2)
    teb = process.teb(100)
    with open_built(poke(built, (teb + 0x30, word(teb + 8)))) as snapshot:
        first, second = snapshot.process.threads
        assert first.tebs[0].size == 0
        assert second.tebs[0].size == 0x2000
        assert snapshot.process.views[0].peb == process.plan.peb


def test_the_peb_is_the_one_that_most_tebs_name(open_built):
    process, built = process_of("x64", threads=3)
    with open_built(poke(built, (process.teb(100) + 0x60, word(0x123456789000)))) as snapshot:
        assert snapshot.process.views[0].peb == process.plan.peb
        assert snapshot.process.views[0].heap_addresses == (0x8000000,)


@pytest.mark.parametrize("arch", ["x64", "x86"])
@pytest.mark.parametrize("peb", [TOP - 1, TOP - 0x800, TOP - 0x1000, 1, 0xFFFFFFFF])
def test_a_wild_peb_pointer_is_a_note(open_built, arch, peb):
    process, built = process_of(arch)
    at = process.teb(100) + (0x60 if arch == "x64" else 0x30)
    with open_built(poke(built, (at, word(peb, 8 if arch == "x64" else 4)))) as snapshot:
        assert any("PEB" in note and "not in the dump" in note for note in snapshot.gaps)
        assert [heap.address for heap in everything(snapshot)] == [0x8000000]


WILD = [(0, 0), (TOP - 1, TOP - 0x1000), (TOP - 0x10, TOP - 0x5000), (0x1000, 0x2000), (TOP - 1, 1), (0x5001, 0x5000)]


@pytest.mark.parametrize("arch", ["x64", "x86"])
@pytest.mark.parametrize(("base", "limit"), WILD)
def test_wild_stack_bounds_in_a_teb_are_no_failure(open_built, arch, base, limit):
    process, built = process_of(arch)
    size = 8 if arch == "x64" else 4
    with open_built(poke(built, (process.teb(100) + size, word(base, size) + word(limit, size)))) as snapshot:
        for stack in snapshot.process.threads[0].stacks:
            assert stack.limit < stack.base <= 1 << 8 * size
        assert [heap.address for heap in everything(snapshot)] == [0x8000000]


@pytest.mark.parametrize("bottom", [0, 1, TOP - 1, TOP - 0x1000])
def test_a_wild_end_of_the_stack_is_not_believed(open_built, bottom):
    process, built = process_of("x64")
    with open_built(poke(built, (process.teb(100) + 0x1478, word(bottom)))) as snapshot:
        (stack,) = snapshot.process.threads[0].stacks
        assert stack.reserved is None or 0 < stack.reserved <= stack.limit
        everything(snapshot)


@pytest.mark.parametrize("arch", ["x64", "x86"])
def test_modules_stacks_and_regions_at_the_very_top_are_no_failure(open_built, arch):
    process = ProcessBuilder(arch=arch, build=19041)
    process.heap(NtHeapBuilder(arch=arch, build=19041, base=0x8000000).build()).thread(100)
    process.dump.module(TOP - 0x2000, 0x2000, "C:\\top.dll").unloaded(TOP - 0x1000, 0x8000, "gone.dll")
    process.dump.thread(200, TOP - 0x1000, stack=(TOP - 0x3000, 0x8000))
    with open_built(process.build()) as snapshot:
        assert [heap.address for heap in everything(snapshot)] == [0x8000000]
    with open_built(without_stream(process.build(), 16)) as snapshot:
        assert [heap.address for heap in everything(snapshot)] == [0x8000000]


@pytest.mark.parametrize("field", ["length", "buffer"])
def test_a_wild_command_line_is_no_command_line(open_built, field):
    process, built = process_of("x64")
    at = process.plan.parameters + 0x70
    change = (at, word(0xFFFF, 2)) if field == "length" else (at + 8, word(TOP - 2))
    with open_built(poke(built, change)) as snapshot:
        assert snapshot.process.command_line is None
        assert snapshot.process.image == "C:\\Program Files\\App\\app.exe"
