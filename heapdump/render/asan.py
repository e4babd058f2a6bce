"""Reports of findings in the manner of AddressSanitizer: plain data in, styled lines out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from heapdump.render.text import plural, preview
from heapdump.render.view import StyledLine

_HEX_LINE, _MOST_FRAMES, _MOST_OTHERS = 16, 12, 8
_DAMAGED = re.compile("(X(?: X)*)")
_BYTES = re.compile(r"[0-9a-f?]{2}( |$)|.*[0-9]", re.DOTALL)
"""Begins `found` where it is bytes or a number; a word such as `two` looks like nothing."""

_BESIDE_BYTES = 0x2000
"""Bytes around a block in which an address counts as beside it; a stop is raised in code, far from any block."""


@dataclass(frozen=True, slots=True)
class MemoryRegion:
    """The block that a report is about.

    Attributes:
        address: of its user data.
        size: requested bytes.
        entry: address of its entry.
        end: address behind its entry.
        words: its state and kind.
        stack: the line before its frames; "" without frames.
        frames: of its stack, innermost first.
    """

    address: int
    size: int
    entry: int
    end: int
    words: str
    stack: str
    frames: Sequence[str]


@dataclass(frozen=True, slots=True)
class MemoryView:
    """The memory around a damaged place.

    `start`: address of the first byte of `data`. `data`: None where the dump has none. `rows`: (address, cells, True
    where the damage begins here). `legend`: letter of a cell → its meaning.
    """

    start: int
    data: bytes | None
    rows: Sequence[tuple[int, str, bool]]
    legend: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Report:
    """One report of an incident. The damaged bytes are [address, address + length).

    Attributes:
        pid: process id; None where it is not known.
        name: the bug, or the kind of finding.
        severity: error or warning.
        address: of the first bad byte.
        length: number of bad bytes.
        message: the first finding in a sentence.
        seen_by: the witnesses in a few words, that of `message` first.
        others: messages of the other findings.
        expected: bytes that should be there, as text; "" where they are not known.
        found: bytes that are there, as text.
        meaning: of the damaged bytes; "" where it is not known.
        reach: [low, high) addresses around them that hold the same byte.
        raised_by: (frame, how it was found) of the exception, innermost first.
        noted: frames that ntdll recorded, innermost first.
        region: the block; None where none is known.
        candidates: a line for each, the likeliest first.
        is_decided: True where the bytes prove the first candidate.
        alike: number of findings of this kind beside blocks of the same size.
        alike_stack: number of findings of this kind beside blocks of the same stack; None where it is not known.
        memory: None for a report of Windows.
        place: end of the summary line.
        text: lines that a runtime wrote.
        is_code: True where the address is that of an instruction, not of data.
    """

    pid: int | None
    name: str
    severity: str
    address: int
    length: int
    message: str
    seen_by: Sequence[str]
    others: Sequence[str]
    expected: str
    found: str
    meaning: str
    reach: tuple[int, int]
    raised_by: Sequence[tuple[str, str]]
    noted: Sequence[str]
    region: MemoryRegion | None
    candidates: Sequence[str]
    is_decided: bool
    alike: int
    alike_stack: int | None
    memory: MemoryView | None
    place: str
    text: Sequence[str] = ()
    is_code: bool = False


def report_lines(report: Report) -> Iterator[StyledLine]:
    """The report, top to bottom."""
    pid = "?" if report.pid is None else report.pid
    style = "red bold" if report.severity == "error" else "yellow bold"
    title = f"=={pid}=={report.severity.upper()}: heapdump: {report.name}"
    yield [(title, style), (f" {report.place}" if report.is_code else f" on address {report.address:#x}", "")]
    yield [(report.message, "")]
    if report.text:
        yield [("the runtime's own report:", "bold")]
        yield from ([(f"    {line}", "")] for line in report.text)
        yield [(f"SUMMARY: heapdump: {report.name} {report.place}", "bold")]
        return
    yield from _bytes(report)
    yield from _witnesses(report)
    yield from _raised_by(report)
    if report.region is not None:
        yield from _region(report.address, report.region)
    yield from _candidates(report)
    if report.memory is not None:
        yield from _hex_lines(report, report.memory)
        yield from _memory_rows(report.memory)
    yield [(f"SUMMARY: heapdump: {report.name} {report.place}", "bold")]


def _bytes(report: Report) -> Iterator[StyledLine]:
    if not report.expected and not report.meaning:
        return
    if report.expected:
        yield [("  expected  ", "dim"), (report.expected, "green")]
    if report.found:
        yield [("  found     ", "dim"), (report.found, "red")]
    has_data = report.memory is not None and report.memory.data is not None
    if report.meaning and has_data and (_BYTES.match(report.found) or not report.found):
        low, high = report.reach
        reach = f", from {low:#x} to {high:#x}" if high - low > report.length else ""
        yield [("  which is  ", "dim"), (report.meaning + reach, "")]


def _witnesses(report: Report) -> Iterator[StyledLine]:
    """Everything that concerns the incident: its witnesses, and what each of them says."""
    if report.others:
        yield [("seen by: ", "bold"), (", ".join(dict.fromkeys(report.seen_by)), "")]
        for message in report.others[:_MOST_OTHERS]:
            yield [(f"    {message}", "dim")]
        if len(report.others) > _MOST_OTHERS:
            yield [(f"    … {len(report.others) - _MOST_OTHERS:,} more", "dim")]


def _raised_by(report: Report) -> Iterator[StyledLine]:
    if report.raised_by:
        yield [("raised by:", "bold")]
    for i, (frame, how) in enumerate(report.raised_by[:_MOST_FRAMES]):
        yield [(f"    #{i} {frame}", ""), (f"  ({how})", "dim")]
    if report.noted:
        yield [("stack when ntdll reported it:", "bold")]
    for i, frame in enumerate(report.noted[:_MOST_FRAMES]):
        yield [(f"    #{i} {frame}", "")]


def _region(address: int, region: MemoryRegion) -> Iterator[StyledLine]:
    """`0x… is located 3 bytes after 24-byte region [a,b), busy lfh`, and the stack of the block."""
    end = region.address + region.size
    if address >= end:
        place = f"{plural(address - end, 'byte')} after"
    elif address < region.address:
        place = f"{plural(region.address - address, 'byte')} before"
    else:
        place = f"{plural(address - region.address, 'byte')} inside"
    words = f"{region.size:,}-byte region [{region.address:#x},{end:#x})"
    is_beside = region.entry - _BESIDE_BYTES <= address < region.end + _BESIDE_BYTES
    where = f"{address:#x} is located {place} {words}" if is_beside else f"the block at fault is the {words}"
    yield [(where, ""), (f", {region.words}", "dim")]
    if region.frames:
        yield [(region.stack, "bold")]
    for i, frame in enumerate(region.frames):
        yield [(f"    #{i} {frame}", "")]


def _candidates(report: Report) -> Iterator[StyledLine]:
    if not report.candidates:
        return
    title = "candidates, likeliest first" + (
        "" if report.is_decided else "; the bytes do not tell which of them it was"
    )
    yield [(f"{title}:", "bold")]
    for number, candidate in enumerate(report.candidates, 1):
        yield [(f"    {number}. {candidate}", "")]
    for count, block in ((report.alike, "of that size"), (report.alike_stack, "allocated by the same stack")):
        if count:
            yield [(f"    {plural(count, 'other place')} with the same damage beside a block {block}", "")]


def _hex_lines(report: Report, memory: MemoryView) -> Iterator[StyledLine]:
    """Lines of 16 bytes in at most 80 columns; damaged bytes stand between brackets, to show without colours too."""
    if memory.data is None:
        yield [("the memory around it is not in the dump", "dim")]
        return
    yield [("memory around it:", "bold")]
    low, high = report.address, report.address + report.length
    for at in range(0, len(memory.data), _HEX_LINE):
        row, start = memory.data[at : at + _HEX_LINE], memory.start + at
        pieces = [(f"{'=>' if start <= low < start + _HEX_LINE else '  '}{start:x}", "dim")]
        for i, byte in enumerate(row, start):
            before = "[" if i == low else "]" if i == high else " "
            pieces.append((f"{before}{byte:02x}", "red bold" if low <= i < high else ""))
        last = "]" if start + len(row) == high else " "
        yield [*pieces, ("   " * (_HEX_LINE - len(row)) + last, ""), (" " + preview(row), "dim")]


def _memory_rows(memory: MemoryView) -> Iterator[StyledLine]:
    legend = ", ".join(f"{letter} {meaning}" for letter, meaning in memory.legend.items())
    yield [("heap map, 8 bytes a cell:", "bold"), (f" {legend}", "dim")]
    for address, cells, is_hit in memory.rows:
        pieces = _DAMAGED.split(" ".join(cells))  # whole and damaged ones in turn
        colored = [(part, "bold red" if i % 2 else "") for i, part in enumerate(pieces)]
        yield [(f"{'=>' if is_hit else '  '}{address:x}  ", "bold" if is_hit else "dim"), *colored]
