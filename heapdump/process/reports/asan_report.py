"""The reports of AddressSanitizer that the runtime keeps as text in private memory; `asan_text` takes them apart.

The text begins behind `==PID==ERROR: AddressSanitizer: `. Nothing of the runtime's own structures is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from heapdump.memory.regions import Kind, State
from heapdump.memory.space import AddressSpace
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
_OVERLAP = 64
"""More bytes than the first line of a report has up to its mark."""

_READ = 1 << 16
"""Bytes of a text that are read together: most texts have fewer."""

_LONGEST = 1 << 22
"""Bytes of a report; LeakSanitizer prints the stack of every leak, 1,000 of them in 1 MiB."""

_MOST_TEXT = 1 << 25
"""Bytes of all different reports."""

_MOST_HITS = 1024
"""Texts that are read, equal ones too."""


@dataclass(frozen=True, slots=True)
class AsanReports:
    """The reports that a process holds. `unread`: address of a text that was not read; None: all were."""

    reports: tuple[AsanReport, ...]
    unread: int | None


def asan_reports(process: Process) -> AsanReports:
    """The reports that the process holds, each once, in the order of their addresses.

    Reads all committed private memory once. Texts in images are patterns of the runtime and do not count. A text with
    the number of another process counts only where none has this one's: it may be the log of a test.
    """
    found: dict[str, AsanReport] = {}
    own: list[str] = []
    read, unread = 0, None
    for number, address in enumerate(_hits(process)):
        if number >= _MOST_HITS or read >= _MOST_TEXT:
            unread = address
            break
        text = _text(process, address)
        known = found.get(text.text)
        report = replace(known, copies=known.copies + 1) if known is not None else _parsed(address, text)
        read += len(text.text) * (known is None)
        if report is not None:
            found[report.text] = report
            own += [report.text] * (text.pid == process.pid)
    reports = (found[text] for text in _whole(own or found))
    return AsanReports(tuple(sorted(reports, key=lambda one: one.address)), unread)


@dataclass(frozen=True, slots=True)
class _Text:
    """A text. `pid`: the process that it names; `is_cut`: True where it goes on behind what is read, or in a hole."""

    pid: int | None
    text: str
    is_cut: bool


def _parsed(address: int, text: _Text) -> AsanReport | None:
    report = parse_report(address, text.text) if text.text else None
    return replace(report, is_cut=True) if report is not None and text.is_cut else report


def _whole(texts: Iterable[str]) -> set[str]:
    """The different texts without those that another one begins with."""
    ordered = sorted(set(texts))
    return set(ordered) - {text for text, following in pairwise(ordered) if following.startswith(text)}


def _hits(process: Process) -> Iterator[int]:
    """Addresses of the marks in committed private memory, ascending in each region, behind `==PID==`."""
    space, overlap = process.space, max(len(title) for title in _TITLES)
    for part in _searched(process):
        for piece in range(part.start, part.end, _PIECE):
            data = space.try_read(piece, min(_PIECE + overlap, part.end - piece)) or b""
            for at in sorted(_titles(data)):
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


def _text(process: Process, address: int) -> _Text:
    """The report at a mark: from its line to `==PID==ABORTING`, the next report, a NUL, a hole or the most of bytes."""
    regions, space = process.regions, process.space
    i = regions.index_at(address)
    if i is None:
        return _Text(None, "", is_cut=False)
    first = max(int(regions.start[i]), address - _PREFIX)
    present = merged(space.mapped.present(Span(first, min(first + _LONGEST, int(regions.end[i])))))
    first, end = next(((part.start, part.end) for part in present if address in part), (address, address))
    begin = _START.search(space.try_read(first, address - first) or b"")
    start = first + begin.start() if begin else address
    data = _read(space, start, end)
    text = data.partition(b"\0")[0]
    following = _NEXT.search(text, 1)
    is_cut = len(text) == end - start and following is None and _goes_on(process, end)
    text = text[: following.start()].rstrip(b"=\r\n") + b"\n" if following else text
    last = _END.search(text)
    report = text[: last.end() if last else None].decode("utf-8", "replace")
    return _Text(int(begin[1]) if begin else None, report, is_cut and last is None)


def _goes_on(process: Process, end: int) -> bool:
    """True where a text that ends at an address does so because the next byte is in a hole, or is not read."""
    byte = process.space.try_read(end, 1)
    if byte is not None:
        return byte != b"\0"
    return not process.regions.is_complete_map or process.regions.is_committed(end)


def _read(space: AddressSpace, start: int, end: int) -> bytes:
    """The bytes up to the first piece with a NUL or the next report; of the last piece all."""
    data = bytearray()
    while start + len(data) < end:
        piece = space.try_read(start + len(data), min(_READ, end - start - len(data)))
        if piece is None:
            break
        searched = max(1, len(data) - _OVERLAP)
        data += piece
        if b"\0" in piece or _NEXT.search(data, searched):
            break
    return bytes(data)
