"""LeakSanitizer's report from plain data: exact lines."""

from __future__ import annotations

from heapdump.render.lsan import LsanFrame, LsanLeak, LsanReport, lsan

NAMED = (LsanFrame(0x7FF6_0000_1010, "make", r"c:\src\app.cpp:12"), LsanFrame(0x7FF6_0000_2020, "", "(app.exe+0x2020)"))
LEAKS = (
    LsanLeak(True, 96, 2, NAMED, "app!make", lambda: [(0x1000, 48), (0x2000, 48)]),
    LsanLeak(False, 24, 1, (), "zeros\x1b", lambda: [(0x3000, 24)]),
)
REPORT = LsanReport(7, LEAKS, 120, 3, [(4, 400, "known*")])

FIRST = r"""
=================================================================
==7==ERROR: LeakSanitizer: detected memory leaks

The 1 top leak(s):
Direct leak of 96 byte(s) in 2 object(s) allocated from:
    #0 0x7ff600001010 in make c:\src\app.cpp:12
    #1 0x7ff600002020  (app.exe+0x2020)

Objects leaked above:
0x1000 (48 bytes)
0x2000 (48 bytes)

Omitting 1 more leak(s).
SUMMARY: LeakSanitizer: 120 byte(s) leaked in 3 allocation(s).
"""


def text(report: LsanReport, most: int = 0, *, objects: bool = False, suppressions: bool = False) -> str:
    return "".join(lsan(report, most, with_objects=objects, with_suppressions=suppressions))


def test_the_first_leaks_and_their_objects():
    assert text(REPORT, 1, objects=True) == FIRST


def test_without_a_stack_the_key_is_printed_without_control_characters():
    assert "Indirect leak of 24 byte(s) in 1 object(s) allocated from:\n    <no stack recorded: zeros" in text(REPORT)
    assert "\x1b" not in text(REPORT)


def test_suppressions_are_listed_even_where_nothing_else_is_leaked():
    ruler = "-" * 53
    expected = f"{ruler}\nSuppressions used:\n  count      bytes template\n      4        400 known*\n{ruler}\n\n"
    assert text(LsanReport(7, (), 0, 0, REPORT.suppressed), suppressions=True) == expected
    assert text(LsanReport(7, (), 0, 0, ())) == ""
