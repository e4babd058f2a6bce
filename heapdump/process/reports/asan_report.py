"""The reports of AddressSanitizer that the runtime keeps as text in private memory; `asan_text` takes them apart.

The text begins behind `==PID==ERROR: AddressSanitizer: `. Nothing of the runtime's own structures is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np

from heapdump.memory.regions import Kind, State
from heapdump.process.model import Process
from heapdump.process.reports.asan_text import AsanReport, parse_report
from heapdump.spans import Span, merged

_TITLES = (b"ERROR: AddressSanitizer: ", b"ERROR: LeakSanitizer: ")
_START = re.compile(rb"==(\d+)==\Z")
_END = re.compile(rb"^==\d+==ABORTING\r?$", re.MULTILINE)
_NEXT = re.compile(rb"^==\d+==ERROR: (?:Address|Leak)Sanitizer: ", re.MULTILINE)
_PREFIX = 16
"""Bytes before the mark that hold `==PID==`, and perhaps the end of the line before."""

_PIECE = 4 << 20
_LONGEST = 1 << 18
"""Bytes of a report; one with all stacks of 256 frames has less."""

_MOST_HITS = 64


def asan_reports(process: Process) -> tuple[AsanReport, ...]:
    """The reports that the process holds, each once, in the order of their addresses.

    Reads all committed private memory once. Texts in images are patterns of the runtime and do not count. A text with
    the number of another process counts only where none has this one's: it may be the log of a test.
    """
    found: dict[str, AsanReport] = {}
    own: list[str] = []
    for address in islice(_hits(process), _MOST_HITS):
        pid, text = _text(process, address)
        report = parse_report(address, text) if text else None
        if report is None:
            continue
        known = found.get(report.text)
        found[report.text] = report if known is None else replace(known, copies=known.copies + 1)
        own += [report.text] * (pid == process.pid)
    texts = tuple(dict.fromkeys(own or found))
    complete = (text for text in texts if not any(other != text and other.startswith(text) for other in texts))
    return tuple(sorted((found[text] for text in complete), key=lambda one: one.address))


def _hits(process: Process) -> Iterator[int]:
    """Addresses of the marks in committed private memory, ascending in each region, behind `==PID==`."""
    space, overlap = process.space, max(len(title) for title in _TITLES)
    for part in _searched(process):
        for piece in range(part.start, part.end, _PIECE):
            data = space.try_read(piece, min(_PIECE + overlap, part.end - piece)) or b""
            for at in _titles(data):
                before = data[max(0, at - _PREFIX) : at] if at else space.try_read(piece - _PREFIX, _PREFIX) or b""
                if at < _PIECE and _START.search(before):
                    yield piece + at


def _searched(process: Process) -> Iterator[Span]:
    """Committed memory of no image, as much of it as the dump holds."""
    regions = process.regions
    for i in np.flatnonzero((regions.state == State.MEM_COMMIT) & (regions.type != Kind.MEM_IMAGE)).tolist():
        yield from merged(process.space.mapped.present(Span(int(regions.start[i]), int(regions.end[i]))))


def _titles(data: bytes) -> Iterator[int]:
    """Where a mark begins, the marks one after the other."""
    for title in _TITLES:
        at = data.find(title)
        while at >= 0:
            yield at
            at = data.find(title, at + 1)


def _text(process: Process, address: int) -> tuple[int | None, str]:
    """(process, text of the report at a mark): from its line to `==PID==ABORTING`, the next report, a NUL or a hole."""
    regions, space = process.regions, process.space
    i = regions.index_at(address)
    if i is None:
        return None, ""
    first = max(int(regions.start[i]), address - _PREFIX)
    present = merged(space.mapped.present(Span(first, min(first + _LONGEST, int(regions.end[i])))))
    first, end = next(((part.start, part.end) for part in present if address in part), (address, address))
    data = space.try_read(first, end - first) or b""
    begin = _START.search(data[: address - first])
    text = data[begin.start() if begin else address - first :].partition(b"\0")[0]
    following = _NEXT.search(text, 1)
    text = text[: following.start()].rstrip(b"=\r\n") + b"\n" if following else text
    last = _END.search(text)
    return int(begin[1]) if begin else None, text[: last.end() if last else None].decode("utf-8", "replace")
