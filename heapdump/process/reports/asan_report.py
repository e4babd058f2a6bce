"""The report of AddressSanitizer, which the runtime keeps as text in private memory, read back into its parts.

The text begins behind `==PID==ERROR: AddressSanitizer: `. Its words are those of LLVM's asan_errors.cpp and
asan_descriptions.cpp; MSVC's runtime prints the same. Nothing of the runtime's own structures is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from heapdump.memory.regions import Kind, State
from heapdump.process.model import Process

_MARK = b"ERROR: AddressSanitizer: "
_START = re.compile(rb"==\d+==\Z")
_HEAD = re.compile(r"ERROR: AddressSanitizer: (?:attempting )?(?P<bug>[\w-]+)(?P<rest>[^\n]*)")
_ADDRESS = re.compile(r"on (?:unknown )?(?:address )?(?:which was not malloc\(\)-ed: )?(0x[0-9a-f]+)", re.IGNORECASE)
_ACCESS = re.compile(r"^(READ|WRITE) of size (\d+) at (0x[0-9a-f]+) thread (\S+)", re.MULTILINE | re.IGNORECASE)
_REGION = re.compile(
    r"(?P<address>0x[0-9a-f]+) is located (?P<distance>\d+) bytes (?P<where>[\w ]+?) (?P<size>\d+)-byte region "
    r"\[(?P<start>0x[0-9a-f]+),(?P<end>0x[0-9a-f]+)\)",
    re.IGNORECASE,
)
_FRAME = re.compile(r"^\s+#\d+ (0x[0-9a-f]+)", re.MULTILINE | re.IGNORECASE)
_FREED, _ALLOCATED = (
    re.compile(r"^freed by thread", re.MULTILINE),
    re.compile(r"^(?:previously )?allocated by thread", re.MULTILINE),
)
_END = re.compile(rb"^==\d+==ABORTING$", re.MULTILINE)
_PREFIX = 16
"""Bytes before the mark that hold `==PID==`, and perhaps the end of the line before."""

_PIECE = 4 << 20
_LONGEST = 1 << 18
"""Bytes of a report; one with all stacks of 256 frames has less."""

_MOST_HITS = 64


@dataclass(frozen=True, slots=True)
class AsanAccess:
    """The access that the runtime stopped: kind, first address, bytes, and the thread as it names it (`T0`)."""

    kind: Literal["read", "write"]
    address: int
    bytes: int
    thread: str


@dataclass(frozen=True, slots=True)
class AsanReport:
    """A report. `address`: where its text lies; `copies`: how often the process holds the same text.

    `bug`: AddressSanitizer's own word; `bad_address`: None where the report names none. `region`: [start, end) of the
    block it speaks of. `frames`, `freed_by`, `allocated_by`: code addresses, innermost first; empty where not printed.
    """

    address: int
    copies: int
    text: str
    bug: str
    bad_address: int | None
    access: AsanAccess | None
    region: tuple[int, int] | None
    located: str
    frames: tuple[int, ...]
    freed_by: tuple[int, ...]
    allocated_by: tuple[int, ...]


def asan_reports(process: Process) -> tuple[AsanReport, ...]:
    """The reports that the process holds, each once, in the order of their addresses.

    Reads all committed private memory once. Texts in images are patterns of the runtime and do not count.
    """
    found: dict[str, AsanReport] = {}
    for address in _hits(process):
        text = _text(process, address)
        report = parse_report(address, text) if text else None
        if report is None:
            continue
        known = found.get(report.text)
        found[report.text] = report if known is None else replace(known, copies=known.copies + 1)
    return tuple(found.values())


def parse_report(address: int, text: str) -> AsanReport | None:
    """The parts of a report's text; None where it does not begin like one."""
    head = _HEAD.search(text)
    if head is None:
        return None
    access = _ACCESS.search(text)
    region = _REGION.search(text)
    named = _ADDRESS.search(head["rest"])
    bad = int(access[3], 16) if access else int(named[1], 16) if named else None
    at_freed, at_allocated = _FREED.search(text), _ALLOCATED.search(text)
    return AsanReport(
        address=address, copies=1, text=text, bug=head["bug"], bad_address=bad,
        access=None if access is None else _access(access),
        region=None if region is None else (int(region["start"], 16), int(region["end"], 16)),
        located="" if region is None else region[0], frames=_frames(text, head.end()),
        freed_by=() if at_freed is None else _frames(text, at_freed.end()),
        allocated_by=() if at_allocated is None else _frames(text, at_allocated.end()),
    )  # fmt: skip


def _access(match: re.Match[str]) -> AsanAccess:
    kind: Literal["read", "write"] = "read" if match[1].upper() == "READ" else "write"
    return AsanAccess(kind, int(match[3], 16), int(match[2]), match[4])


def _frames(text: str, start: int) -> tuple[int, ...]:
    """The addresses of the first stack behind a place: its lines follow each other."""
    first = _FRAME.search(text, start)
    if first is None:
        return ()
    stack = text[first.start() :].split("\n\n", 1)[0]
    return tuple(int(found[1], 16) for found in _FRAME.finditer(stack))


def _hits(process: Process) -> Iterator[int]:
    """Addresses of the mark in committed private memory, ascending, behind `==PID==`."""
    regions, space = process.regions, process.space
    count = 0
    for i in range(len(regions)):
        if regions.state[i] != State.MEM_COMMIT or regions.type[i] == Kind.MEM_IMAGE:
            continue
        start, end = int(regions.start[i]), int(regions.end[i])
        for piece in range(start, end, _PIECE):
            data = space.try_read(piece, min(_PIECE + 64, end - piece)) or b""
            at = data.find(_MARK)
            while at >= 0:
                before = data[max(0, at - 16) : at] if at else space.try_read(piece - 16, 16) or b""
                if _START.search(before) and at < _PIECE:
                    yield piece + at
                    count += 1
                    if count >= _MOST_HITS:
                        return
                at = data.find(_MARK, at + 1)


def _text(process: Process, address: int) -> str:
    """The text of the report at a mark: from its line on to `==PID==ABORTING`, else to the next NUL."""
    regions, space = process.regions, process.space
    i = regions.index_at(address)
    if i is None:
        return ""
    first = max(int(regions.start[i]), address - _PREFIX)
    data = space.try_read(first, min(_LONGEST, int(regions.end[i]) - first)) or b""
    begin = _START.search(data[: address - first])
    text = data[begin.start() if begin else address - first :].partition(b"\0")[0]
    end = _END.search(text)
    return text[: end.end() if end else None].decode("utf-8", "replace")
