"""TEBs and PEBs of x64, x86 and WOW64 processes are found and say what was built."""

from __future__ import annotations

import pytest

from heapdump.process.model import Teb
from heapdump.spans import Span
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.builders.process_plan import ProcessArch

NATIVE = [("x64", b) for b in (3790, 6002, 7601, 9200, 9600, 14393, 17763, 19041, 22000, 26100)]
NATIVE += [("x86", b) for b in (2600, 3790, 6002, 7601, 9200, 9600, 14393, 17763, 19041)]
WOW64 = [6002, 7601, 9200, 9600, 10240, 14393, 19041]


def process_of(arch: ProcessArch, build: int, heaps: int = 3) -> ProcessBuilder:
    process = ProcessBuilder(arch=arch, build=build, pid=77, nt_global_flag=0x1070, command_line="app.exe --x ä")
    own: HeapArch = "x64" if arch == "x64" else "x86"
    for i in range(heaps):
        process.heap(NtHeapBuilder(arch=own, build=build, base=0x8000000 + i * 0x1000000, index=i).build())
    for i in range(3):
        process.thread(100 + i, ip=0x1111 * (i + 1), sp=0, name=f"worker {i}" if i else None)
    return process


@pytest.mark.parametrize(("arch", "build"), NATIVE)
def test_a_native_process_has_one_view_with_its_peb_and_heaps(open_built, arch, build):
    process = process_of(arch, build)
    built = process.build()
    with open_built(built) as snapshot:
        found = snapshot.process
        assert (found.arch, found.is_wow64, found.pid) == (arch, False, 77)
        (view,) = found.views
        assert (view.arch, view.pointer_bytes, view.peb) == (arch, 8 if arch == "x64" else 4, process.plan.peb)
        assert view.heap_addresses == (0x8000000, 0x9000000, 0xA000000)
        assert view.process_heap == 0x8000000
        assert view.global_flag == 0x1070
        assert view.granularity == (16 if arch == "x64" else 8)
        assert view.peb_fields["ImageBaseAddress"] == process.plan.exe


@pytest.mark.parametrize(("arch", "build"), NATIVE)
def test_threads_of_a_native_process_have_their_teb_stack_and_registers(open_built, arch, build):
    process = process_of(arch, build)
    built = process.build()
    size = 0x2000 if arch == "x64" else 0x1000
    with open_built(built) as snapshot:
        for i, (thread, truth) in enumerate(zip(snapshot.process.threads, built.truth.threads, strict=True)):
            assert (thread.index, thread.id, thread.name) == (i, truth.tid, f"worker {i}" if i else None)
            assert thread.tebs == (Teb(arch, truth.teb, size),)
            assert (thread.ip, thread.sp, thread.ip32, thread.sp32) == (truth.ip, truth.sp, None, None)
            (stack,) = thread.stacks
            base = process.plan.stacks + i * 0x110000 + 0x100000
            assert (stack.view, stack.limit, stack.base, stack.reserved) == (arch, base - 0x4000, base, base - 0x100000)


@pytest.mark.parametrize("build", WOW64)
def test_a_wow64_process_has_two_views_the_64_bit_one_first(open_built, build):
    process = process_of("wow64", build)
    process.heap(NtHeapBuilder(arch="x64", build=build, base=0x20000000).build(), view="x64")
    with open_built(process.build()) as snapshot:
        found = snapshot.process
        assert (found.arch, found.is_wow64) == ("wow64", True)
        wide, narrow = found.views
        assert (wide.arch, narrow.arch) == ("x64", "x86")
        assert (wide.peb, narrow.peb) == (process.plan.peb, process.plan.peb32)
        assert wide.heap_addresses == (0x20000000,)
        assert narrow.heap_addresses == (0x8000000, 0x9000000, 0xA000000)
        assert (wide.pointer_bytes, narrow.pointer_bytes) == (8, 4)


@pytest.mark.parametrize("build", WOW64)
def test_threads_of_a_wow64_process_have_both_tebs_stacks_and_registers(open_built, build):
    process = process_of("wow64", build)
    built = process.build()
    with open_built(built) as snapshot:
        for i, (thread, truth) in enumerate(zip(snapshot.process.threads, built.truth.threads, strict=True)):
            assert thread.tebs == (Teb("x64", truth.teb, 0x2000), Teb("x86", truth.teb + 0x2000, 0x1000))
            base32 = process.plan.stacks32 + i * 0x110000 + 0x100000
            base64 = process.plan.stacks + i * 0x50000 + 0x40000
            assert [(s.view, s.base, s.reserved) for s in thread.stacks] == [
                ("x64", base64, base64 - 0x40000), ("x86", base32, base32 - 0x100000),
            ]  # fmt: skip
            assert (thread.ip, thread.sp) == (truth.ip, truth.sp)
            assert (thread.ip32, thread.sp32) == (0x1111 * (i + 1), base32 - 0x400)


@pytest.mark.parametrize(
    ("arch", "build"), [("x64", 19041), ("x86", 2600), ("x86", 19041), ("wow64", 7601), ("wow64", 19041)]
)
def test_image_and_command_line_come_from_the_process_parameters(open_built, arch, build):
    with open_built(process_of(arch, build).build()) as snapshot:
        assert snapshot.process.image == "C:\\Program Files\\App\\app.exe"
        assert snapshot.process.command_line == "app.exe --x ä"


@pytest.mark.parametrize(
    ("arch", "build"), [("x64", 19041), ("x86", 2600), ("x86", 7601), ("wow64", 7601), ("wow64", 19041)]
)
def test_a_whole_dump_leaves_no_note(open_built, arch, build):
    process = process_of(arch, build)
    if arch == "wow64":
        process.heap(NtHeapBuilder(arch="x64", build=build, base=0x20000000).build(), view="x64")
    with open_built(process.build()) as snapshot:
        assert snapshot.gaps == ()
        assert all(view.heap_list_complete for view in snapshot.process.views)
        assert all(view.is_layout_exact for view in snapshot.process.views)
        assert snapshot.dump.remarks == []


def test_modules_come_once_each_with_their_names(open_built):
    process = process_of("wow64", 7601)
    process.module(0x10000000, 0x8000, "C:/Users/me/plug.in.dll", version=(1, 2, 3, 4))
    built = process.build()
    with open_built(built) as snapshot:
        modules = snapshot.process.modules
        assert [(m.path, m.span.start) for m in modules] == [(m.path, m.base) for m in built.truth.modules]
        assert modules[-1].name == "plug.in.dll"
        assert snapshot.process.where(0x10001234) == "plug.in.dll+0x1234"
        assert snapshot.process.where(0x10008000) == "0x10008000"


def test_a_module_that_both_loaders_list_comes_once(open_built):
    process = ProcessBuilder(arch="wow64", build=7601)
    process.dump.module(0x400000, 0xC000, "C:\\Program Files\\App\\app.exe")
    with open_built(process.build()) as snapshot:
        assert [m.name for m in snapshot.process.modules if m.span == Span(0x400000, 0x40C000)] == ["app.exe"]


def test_a_64_bit_process_without_a_32_bit_ntdll_is_no_wow64(open_built):
    """Wine fills the WOW64 fields of every 64-bit TEB, and a 32-bit TEB lies behind it."""
    data = process_of("wow64", 19041).build().data
    for name, other in (("wow64.dll", "wow65.dll"), ("SysWOW64\\ntdll.dll", "SysWOW64\\ntdlx.dll")):
        assert name.encode("utf-16-le") in data
        data = data.replace(name.encode("utf-16-le"), other.encode("utf-16-le"))
    with open_built(data) as snapshot:
        assert (snapshot.process.arch, [view.arch for view in snapshot.process.views]) == ("x64", ["x64"])
        assert all(teb.view == "x64" for thread in snapshot.process.threads for teb in thread.tebs)
