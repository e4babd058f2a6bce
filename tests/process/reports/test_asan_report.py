"""Reports of AddressSanitizer as text in a process' memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.process.reports.asan_report import asan_reports, parse_report
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
        (report,) = asan_reports(snapshot.process)
    assert (report.bug, report.bad_address, report.region) == (
        "heap-buffer-overflow", 0x12D7F4E20037, (0x12D7F4E20030, 0x12D7F4E20037),
    )  # fmt: skip
    assert report.access is not None
    assert (report.access.kind, report.access.bytes, report.access.thread) == ("write", 4, "T2")
    assert report.frames == (0x7FF6A1B31B95, 0x7FF6A1B313AD)
    assert report.allocated_by == (0x7FF80004A6FD, 0x7FF6A1B31557)
    assert report.text == OVERFLOW


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
        found = asan_reports(snapshot.process)
    assert [(report.bug, report.copies) for report in found] == [
        ("heap-buffer-overflow", 2),
        ("heap-use-after-free", 1),
    ]


@pytest.mark.parametrize(
    "text", [b"==%d==ERROR: AddressSanitizer: %s", b"see ERROR: AddressSanitizer: heap-buffer-overflow"]
)
def test_patterns_and_quotations_are_no_reports(open_built, text):
    with open_built(holding(text)) as snapshot:
        assert asan_reports(snapshot.process) == ()


@given(noise=st.binary(max_size=300), cut=st.integers(0, len(OVERFLOW)))
def test_cut_and_noisy_text_is_survived(noise, cut):
    text = (OVERFLOW.encode()[:cut] + noise).decode("utf-8", "replace")
    report = parse_report(AT, text)
    assert report is None or report.bug
