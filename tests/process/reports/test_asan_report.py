"""Reports of AddressSanitizer as text in a process' memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.process.reports import asan_report
from heapdump.process.reports.asan_report import _searched, asan_reports
from heapdump.process.reports.asan_text import parse_report
from heapdump.spans import Span
from tests.builders import BuiltDump, ProcessBuilder

AT = 0x28A70000000
OVERFLOW = """==4120==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x12d7f4e20037 at pc 0x7ff6a1b31b96 bp 0x00 sp 0x08
WRITE of size 4 at 0x12d7f4e20037 thread T2
    #0 0x7ff6a1b31b95  (C:\\acme\\service.exe+0x140001b95)
    #1 0x7ff6a1b313ad  (C:\\acme\\service.exe+0x1400013ad)

0x12d7f4e20037 is located 0 bytes after 7-byte region [0x12d7f4e20030,0x12d7f4e20037)
allocated by thread T0 here:
    #0 0x7ff80004a6fd  (C:\\acme\\clang_rt.asan_dynamic-x86_64.dll+0x18004a6fd)
    #1 0x7ff6a1b31557  (C:\\acme\\service.exe+0x140001557)

SUMMARY: AddressSanitizer: heap-buffer-overflow (C:\\acme\\service.exe+0x140001b95)
"""
AFTER_FREE = """==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x602000000010 at pc 0x1 bp 0x2 sp 0x3
READ of size 8 at 0x602000000010 thread T0
    #0 0x401000 in Use use.cpp:3

0x602000000010 is located 0 bytes inside of 24-byte region [0x602000000010,0x602000000028)
freed by thread T1 here:
    #0 0x401100 in free
    #1 0x401200 in Drop

previously allocated by thread T0 here:
    #0 0x401300 in malloc

SUMMARY: AddressSanitizer: heap-use-after-free use.cpp:3 in Use
"""
DOUBLE_FREE = """==7==ERROR: AddressSanitizer: attempting double-free on 0x602000000010 in thread T0:
    #0 0x401100 in free

0x602000000010 is located 0 bytes inside of 24-byte region [0x602000000010,0x602000000028)
freed by thread T0 here:
    #0 0x401100 in free

"""


def holding(*texts: bytes) -> BuiltDump:
    content = b"\0".join((b"noise", *texts, b"")).ljust(0x4000, b"\0")
    process = ProcessBuilder(build=19041)
    process.thread(4)
    return process.region(AT, len(content)).memory(AT, content).build()


def test_an_overflow_is_read_back(open_built):
    with open_built(holding(OVERFLOW.encode())) as snapshot:
        (report,) = asan_reports(snapshot.process).reports
    assert (report.bug, report.bad_address, report.region) == (
        "heap-buffer-overflow", 0x12D7F4E20037, (0x12D7F4E20030, 0x12D7F4E20037),
    )  # fmt: skip
    assert report.access is not None
    assert (report.access.kind, report.access.bytes, report.access.thread) == ("write", 4, "T2")
    assert report.frames == (0x7FF6A1B31B95, 0x7FF6A1B313AD)
    assert report.allocated_by == (0x7FF80004A6FD, 0x7FF6A1B31557)
    assert report.text == OVERFLOW


def test_a_report_is_found_in_a_region_of_which_the_dump_holds_little(open_built):
    """A damaged map can give a region terabytes: what is not in the dump costs nothing, and hides no report."""
    process = ProcessBuilder(build=19041)
    at = AT + (1 << 39)
    process.region(AT, 1 << 44).memory(at, OVERFLOW.encode().ljust(0x1000, b"\0"))
    with open_built(process) as snapshot:
        (report,) = asan_reports(snapshot.process).reports
        assert [*_searched(snapshot.process)].count(Span(at, at + 0x1000)) == 1
    assert (report.bug, report.text) == ("heap-buffer-overflow", OVERFLOW)


def test_a_use_after_free_has_three_stacks():
    report = parse_report(AT, AFTER_FREE)
    assert report is not None
    assert (report.bug, report.frames, report.freed_by, report.allocated_by) == (
        "heap-use-after-free", (0x401000,), (0x401100, 0x401200), (0x401300,),
    )  # fmt: skip


def test_a_double_free_has_no_access():
    report = parse_report(AT, DOUBLE_FREE)
    assert report is not None
    assert (report.bug, report.bad_address, report.access) == ("double-free", 0x602000000010, None)


def test_copies_of_one_report_are_one(open_built):
    with open_built(holding(OVERFLOW.encode(), AFTER_FREE.encode(), OVERFLOW.encode())) as snapshot:
        found = asan_reports(snapshot.process).reports
    assert [(report.bug, report.copies) for report in found] == [
        ("heap-buffer-overflow", 2),
        ("heap-use-after-free", 1),
    ]


@pytest.mark.parametrize(
    "text", [b"==%d==ERROR: AddressSanitizer: %s", b"see ERROR: AddressSanitizer: heap-buffer-overflow"]
)
def test_patterns_and_quotations_are_no_reports(open_built, text):
    with open_built(holding(text)) as snapshot:
        assert asan_reports(snapshot.process).reports == ()


STACK = """    #0 0x7ff6a1b31b95 in Use C:\\acme\\use.cpp:9
    #1 0x7ff6a1b31bad in main C:\\acme\\use.cpp:20

"""
REGION = "0x11f000000010 is located 0 bytes inside of 24-byte region [0x11f000000010,0x11f000000028)\n"
KINDS: dict[str, tuple[str, str, int | None, tuple[str, int | None] | None, str]] = {
    "access-violation": (
        "access-violation on unknown address 0x0000000000ff (pc 0x7ff6a1b31b95 bp 0x0 sp 0x08 T3)\n"
        "==9==The signal is caused by a WRITE memory access.\n==9==Hint: address points to the zero page.\n" + STACK,
        "access-violation", 0xFF, ("write", None), "T3",
    ),
    "SEGV": (
        "SEGV on unknown address 0x0000000000ff (pc 0x7ff6a1b31b95 bp 0x0 sp 0x08 T0)\n"
        "==9==The signal is caused by a READ memory access.\n" + STACK + "SUMMARY: AddressSanitizer: SEGV use.cpp:9 in Use\n",
        "SEGV", 0xFF, ("read", None), "T0",
    ),
    "stack-overflow": (
        "stack-overflow on address 0x00f3b1203ff8 (pc 0x7ff6a1b31b95 bp 0x0 sp 0x08 T0)\n" + STACK,
        "stack-overflow", 0xF3B1203FF8, None, "T0",
    ),
    "stack-buffer-overflow": (
        "stack-buffer-overflow on address 0x00f3b12ff834 at pc 0x7ff6a1b31b95 bp 0x0 sp 0x08\n"
        "WRITE of size 4 at 0x00f3b12ff834 thread T0\n" + STACK +
        "Address 0x00f3b12ff834 is located in stack of thread T0 at offset 52 in frame\n"
        "    #0 0x7ff6a1b3100f in Use C:\\acme\\use.cpp:3\n\n  This frame has 1 object(s):\n"
        "    [32, 52) 'buffer' (line 4) <== Memory access at offset 52 overflows this variable\n",
        "stack-buffer-overflow", 0xF3B12FF834, ("write", 4), "T0",
    ),
    "global-buffer-overflow": (
        "global-buffer-overflow on address 0x7ff6a1b92ee8 at pc 0x7ff6a1b31b95 bp 0x0 sp 0x08\n"
        "READ of size 4 at 0x7ff6a1b92ee8 thread T0\n" + STACK +
        "0x7ff6a1b92ee8 is located 0 bytes to the right of global variable 'table' defined in 'C:\\acme\\use.cpp:2:5'"
        " (0x7ff6a1b92ec0) of size 40\n",
        "global-buffer-overflow", 0x7FF6A1B92EE8, ("read", 4), "T0",
    ),
    "container-overflow": (
        "container-overflow on address 0x11f000000014 at pc 0x7ff6a1b31b95 bp 0x0 sp 0x08\n"
        "READ of size 4 at 0x11f000000014 thread T0\n" + STACK + REGION + "HINT: if you don't care about these errors\n",
        "container-overflow", 0x11F000000014, ("read", 4), "T0",
    ),
    "use-after-poison": (
        "use-after-poison on address 0x11f000000014 at pc 0x7ff6a1b31b95 bp 0x0 sp 0x08\n"
        "WRITE of size 1 at 0x11f000000014 thread T12 (worker)\n" + STACK + REGION,
        "use-after-poison", 0x11F000000014, ("write", 1), "T12",
    ),
    "double-free": (
        "attempting double-free on 0x11f000000010 in thread T2:\n" + STACK + REGION + "freed by thread T1 here:\n" + STACK,
        "double-free", 0x11F000000010, None, "T2",
    ),
    "bad-free": (
        "attempting free on address which was not malloc()-ed: 0x00f3b12ff834 in thread T0\n" + STACK,
        "bad-free", 0xF3B12FF834, None, "T0",
    ),
    "alloc-dealloc-mismatch": (
        "alloc-dealloc-mismatch (operator new [] vs operator delete) on 0x11f000000010\n" + STACK + REGION,
        "alloc-dealloc-mismatch", 0x11F000000010, None, "",
    ),
    "new-delete-type-mismatch": (
        "new-delete-type-mismatch on 0x11f000000010 in thread T0:\n  object passed to delete has wrong type:\n"
        "  size of the allocated type:   16 bytes;\n  size of the deallocated type: 8 bytes.\n" + STACK + REGION,
        "new-delete-type-mismatch", 0x11F000000010, None, "T0",
    ),
    "negative-size-param": ("negative-size-param: (size=-1)\n" + STACK, "negative-size-param", None, None, ""),
    "memcpy-param-overlap": (
        "memcpy-param-overlap: memory ranges [0x11f000000010,0x11f000000018) and [0x11f000000014, 0x11f00000001c) overlap\n"
        + STACK, "memcpy-param-overlap", 0x11F000000010, None, "",
    ),
    "calloc-overflow": (
        "calloc parameters overflow: count * size (-1 * 1000) cannot be represented in type size_t (thread T0)\n" + STACK,
        "calloc-overflow", None, None, "T0",
    ),
    "allocation-size-too-big": (
        "requested allocation size 0xffffffff0000 (0xffffffff1000 after adjustments for alignment, red zones etc.) exceeds "
        "maximum supported size of 0x10000000000 (thread T0)\n" + STACK,
        "allocation-size-too-big", None, None, "T0",
    ),
    "out-of-memory": (
        "allocator is out of memory trying to allocate 0x3e800000000 bytes\n" + STACK, "out-of-memory", None, None, "",
    ),
    "bad-malloc_usable_size": (
        "attempting to call malloc_usable_size() for pointer which is not owned: 0x00f3b12ff834\n" + STACK,
        "bad-malloc_usable_size", 0xF3B12FF834, None, "",
    ),
    "odr-violation": (
        "odr-violation (0x7ff6a1b92ec0):\n  [1] size=40 'table' a.cpp:2\n" , "odr-violation", None, None, "",
    ),
    "stack-use-after-scope": (
        "stack-use-after-scope on address 0x00f3b12ff834 at pc 0x7ff6a1b31b95 bp 0x0 sp 0x08\n"
        "ACCESS of size 8 at 0x00f3b12ff834 thread T0\n" + STACK, "stack-use-after-scope", 0xF3B12FF834, ("read", 8), "T0",
    ),
    "unknown-crash": (
        "unknown-crash on address 0x00f3b12ff834 at pc 0x7ff6a1b31b95 bp 0x0 sp 0x08\n"
        "READ of size 16 at 0x00f3b12ff834 thread T0\n" + STACK, "unknown-crash", 0xF3B12FF834, ("read", 16), "T0",
    ),
}  # fmt: skip
"""Report → (text, bug, address, access, thread), in the words of LLVM's asan_errors.cpp."""


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_every_kind_of_report_is_read(kind, line_end):
    text, bug, address, access, thread = KINDS[kind]
    report = parse_report(AT, f"==9==ERROR: AddressSanitizer: {text}".replace("\n", line_end))
    assert report is not None
    assert (report.bug, report.bad_address, report.thread) == (bug, address, thread)
    assert (None if report.access is None else (report.access.kind, report.access.bytes)) == access
    assert report.frames == ((0x7FF6A1B31B95, 0x7FF6A1B31BAD) if STACK in text else ())


def test_variables_are_named():
    found = {kind: parse_report(AT, f"==9==ERROR: AddressSanitizer: {row[0]}") for kind, row in KINDS.items()}
    on_stack, in_module = found["stack-buffer-overflow"], found["global-buffer-overflow"]
    assert on_stack is not None and in_module is not None
    assert (on_stack.variable, on_stack.region) == ("buffer", None)
    assert (in_module.variable, in_module.region) == ("table", (0x7FF6A1B92EC0, 0x7FF6A1B92EE8))


def test_leaks_are_listed_with_their_stacks(open_built):
    text = f"""==7==ERROR: LeakSanitizer: detected memory leaks

Direct leak of 4,096 byte(s) in 2 object(s) allocated from:
{STACK}Direct leak of 64 byte(s) in 2 object(s) allocated from:
{STACK}Indirect leak of 7 byte(s) in 1 object(s) allocated from:
    #0 0x401000 in malloc

SUMMARY: AddressSanitizer: 71 byte(s) leaked in 3 allocation(s).
""".replace("4,096", "4096")
    with open_built(holding(text.encode())) as snapshot:
        (report,) = asan_reports(snapshot.process).reports
    assert (report.bug, report.bad_address) == ("memory-leak", None)
    assert [(leak.direct, leak.bytes, leak.objects, len(leak.frames)) for leak in report.leaks] == [
        (True, 4096, 2, 2), (True, 64, 2, 2), (False, 7, 1, 1),
    ]  # fmt: skip


def test_the_report_of_this_process_counts_before_a_log_of_another_one(open_built):
    log, own = AFTER_FREE.encode(), OVERFLOW.replace("==4120==", "==4242==").encode()
    with open_built(holding(log, own)) as snapshot:
        assert [report.bug for report in asan_reports(snapshot.process).reports] == ["heap-buffer-overflow"]


def test_a_cut_copy_is_no_second_report(open_built):
    with open_built(holding(OVERFLOW.encode()[:200], OVERFLOW.encode())) as snapshot:
        assert [report.text for report in asan_reports(snapshot.process).reports] == [OVERFLOW]


def test_reports_behind_each_other_in_one_log_are_two(open_built):
    line = "=" * 65 + "\n"
    with open_built(holding((line + OVERFLOW + line + AFTER_FREE).encode())) as snapshot:
        found = asan_reports(snapshot.process).reports
    assert [report.bug for report in found] == ["heap-buffer-overflow", "heap-use-after-free"]
    assert found[0].frames == (0x7FF6A1B31B95, 0x7FF6A1B313AD)
    assert found[1].text == AFTER_FREE


@pytest.mark.parametrize("text", ["", " ", "\n", "%s", "\x00"])
def test_a_mark_without_a_bug_is_no_report(text):
    report = parse_report(AT, f"==9==ERROR: AddressSanitizer: {text}")
    assert report is None or report.bug


@given(noise=st.binary(max_size=300), cut=st.integers(0, len(OVERFLOW)))
def test_cut_and_noisy_text_is_survived(noise, cut):
    text = (OVERFLOW.encode()[:cut] + noise).decode("utf-8", "replace")
    report = parse_report(AT, text)
    assert report is None or report.bug


def leaks_of(count: int, bytes_each: int) -> str:
    """LeakSanitizer's report of so many leaks, each with a stack of so many bytes."""
    frame = "    #0 0x401000 in Make"
    leak = f"Direct leak of 64 byte(s) in 2 object(s) allocated from:\n{frame.ljust(bytes_each, 'x')}\n\n"
    return f"==7==ERROR: LeakSanitizer: detected memory leaks\n\n{leak * count}"


def of_any_size(text: str) -> BuiltDump:
    content = b"noise\0" + text.encode() + b"\0"
    process = ProcessBuilder(build=19041)
    process.thread(4)
    size = -(-len(content) // 0x1000) * 0x1000
    return process.region(AT, size).memory(AT, content.ljust(size, b"\0")).build()


def test_a_long_report_has_all_its_leaks(open_built):
    text = leaks_of(5_000, 200)
    with open_built(of_any_size(text)) as snapshot:
        (report,) = asan_reports(snapshot.process).reports
    assert (len(report.leaks), report.text, report.is_cut) == (5_000, text, False)
    assert {leak.frames for leak in report.leaks} == {(0x401000,)}


def test_a_report_that_is_longer_than_what_is_read_is_cut(open_built):
    text = leaks_of(5_000, 1_000)
    with open_built(of_any_size(text)) as snapshot:
        (report,) = asan_reports(snapshot.process).reports
    assert report.is_cut and text.startswith(report.text) and len(report.text) > 4_000_000


def test_reports_behind_the_most_that_are_read_are_said(open_built):
    texts = [OVERFLOW.replace("WRITE of size 4", f"WRITE of size {number}") for number in range(1_100)]
    with open_built(of_any_size("\0".join(texts))) as snapshot:
        found = asan_reports(snapshot.process)
    assert [report.text for report in found.reports] == texts[:1_024]
    assert found.unread == AT + len("noise\0") + len("\0".join(texts[:1_024])) + 1 + len("==4120==")


def test_a_text_that_another_one_begins_with_is_no_report_of_its_own(open_built):
    texts = [OVERFLOW, OVERFLOW[:200], OVERFLOW[:150], AFTER_FREE]
    with open_built(holding(*(text.encode() for text in texts))) as snapshot:
        assert [report.text for report in asan_reports(snapshot.process).reports] == [OVERFLOW, AFTER_FREE]


def test_the_order_of_texts_is_that_of_their_addresses(open_built, monkeypatch):
    """Where texts are left out, those behind are."""
    leak, error = "LeakSanitizer: detected memory leaks", "AddressSanitizer: heap-use-after-free on address 0x10"
    monkeypatch.setattr(asan_report, "_MOST_HITS", 1)
    texts = f"==7==ERROR: {leak}\n\nSUMMARY: a\n\0==7==ERROR: {error}\n\nSUMMARY: b\n\0".encode()
    process = ProcessBuilder(build=19041, pid=7)
    process.region(0x5000000, 0x1000).memory(0x5000000, texts.ljust(0x1000, b"\0"))
    with open_built(process.build()) as snapshot:
        found = asan_report.asan_reports(snapshot.process)
        assert [leak in one.text for one in found.reports] == [True]
        assert found.unread == 0x5000000 + texts.index(b"ERROR: AddressSanitizer")
