"""The report of a finding: exact lines of plain data."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heapdump.render.asan import MemoryRegion, MemoryView, Report, report_lines

MEMORY = MemoryView(
    0x1010, b"AAAAAAAAZZZ\0\0\0\0\0", [(0x1000, "aaXf", True), (0x1080, "....", False)], {"a": "used", "X": "damaged"}
)
REGION = MemoryRegion(0x1000, 24, 0xFF0, 0x1020, "busy lfh", "allocated by:", ["app!main+0x10"])
REPORT = Report(
    pid=42, name="heap-buffer-overflow", severity="error", address=0x1018, length=3, message="the header is damaged",
    seen_by=["entry header"], others=[], noted=[], is_decided=True,
    expected="00 00 00", found="5a 5a 5a", meaning="0x5a repeated, 'Z'", reach=(0x1018, 0x101B), raised_by=[],
    region=REGION, candidates=["busy block at 0x1000: 24 bytes", "another"], alike=2, alike_stack=None, memory=MEMORY,
    place="in app!main+0x10",
)  # fmt: skip


def lines(report: Report) -> list[str]:
    return ["".join(text for text, _ in line) for line in report_lines(report)]


def test_all_parts_of_a_report() -> None:
    assert lines(REPORT) == [
        "==42==ERROR: heapdump: heap-buffer-overflow on address 0x1018",
        "the header is damaged",
        "  expected  00 00 00",
        "  found     5a 5a 5a",
        "  which is  0x5a repeated, 'Z'",
        "0x1018 is located 0 bytes after 24-byte region [0x1000,0x1018), busy lfh",
        "allocated by:",
        "    #0 app!main+0x10",
        "candidates, likeliest first:",
        "    1. busy block at 0x1000: 24 bytes",
        "    2. another",
        "    2 other places with the same damage beside a block of that size",
        "memory around it:",
        "=>1010 41 41 41 41 41 41 41 41[5a 5a 5a]00 00 00 00 00  AAAAAAAAZZZ.....",
        "heap map, 8 bytes a cell: a used, X damaged",
        "=>1000  a a X f",
        "  1080  . . . .",
        "SUMMARY: heapdump: heap-buffer-overflow in app!main+0x10",
    ]


def test_the_same_byte_around_the_damage_is_named() -> None:
    assert "  which is  0x5a repeated, 'Z', from 0x1010 to 0x101b" in lines(replace(REPORT, reach=(0x1010, 0x101B)))


@pytest.mark.parametrize(
    ("address", "place"),
    [
        (0xFFF, "0xfff is located 1 byte before 24-byte region [0x1000,0x1018)"),
        (0x1004, "0x1004 is located 4 bytes inside 24-byte region [0x1000,0x1018)"),
        (0x7FFE0000, "the block at fault is the 24-byte region [0x1000,0x1018)"),
    ],
)
def test_the_place_of_the_damage_beside_its_block(address: int, place: str) -> None:
    assert f"{place}, busy lfh" in lines(replace(REPORT, address=address))


def test_a_report_of_windows_shows_the_stack_that_raised_it_and_no_memory() -> None:
    report = replace(
        REPORT, pid=None, name="exception", severity="warning", expected="", found="", meaning="", raised_by=[("ntdll!f", "context")],
        region=None, candidates=[], memory=None, place="at 0x1018",
    )  # fmt: skip
    assert lines(report) == [
        "==?==WARNING: heapdump: exception on address 0x1018",
        "the header is damaged",
        "raised by:",
        "    #0 ntdll!f  (context)",
        "SUMMARY: heapdump: exception at 0x1018",
    ]


def test_all_witnesses_of_an_incident_are_lines_of_its_one_report() -> None:
    report = replace(
        REPORT, seen_by=["page suffix", "verifier stop 0xf"], others=["stop 0xf: 121 bytes"], is_decided=False
    )
    found = lines(report)
    assert found[5:7] == ["seen by: page suffix, verifier stop 0xf", "    stop 0xf: 121 bytes"]
    assert "candidates, likeliest first; the bytes do not tell which of them it was:" in found


def test_the_stack_that_ntdll_noted_is_shown() -> None:
    assert lines(replace(REPORT, noted=["ntdll!f"]))[5:7] == ["stack when ntdll reported it:", "    #0 ntdll!f"]


def test_memory_that_is_not_in_the_dump() -> None:
    found = lines(replace(REPORT, memory=replace(MEMORY, data=None)))
    assert "the memory around it is not in the dump" in found
    assert not any(line.startswith("  which is") for line in found)


def test_damaged_cells_of_the_heap_map_are_red() -> None:
    memory = replace(MEMORY, rows=[(0x1000, "aXXfX", True)])
    (row,) = (line for line in report_lines(replace(REPORT, memory=memory)) if line[0][0] == "=>1000  ")
    assert "".join(text for text, _ in row) == "=>1000  a X X f X"
    assert [text for text, style in row if "red" in style] == ["X X", "X"]


def test_a_report_on_an_instruction_names_the_function_not_an_address_of_data() -> None:
    report = replace(REPORT, name="fail-fast", is_code=True, place="in app!Stop+0x1")
    assert lines(report)[0] == "==42==ERROR: heapdump: fail-fast in app!Stop+0x1"
