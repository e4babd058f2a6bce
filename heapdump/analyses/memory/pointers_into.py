"""Words of memory that point into given spans: who uses memory that no structure of the process names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from heapdump.memory.regions import State
from heapdump.process.model import Process
from heapdump.spans import Span

_WINDOW = 16 << 20
"""Bytes that are read at once."""

_MOST_BYTES = 4 << 30
"""Bytes of a process that are searched; in more nothing is."""

_WRITABLE = 0x04 | 0x08 | 0x40 | 0x80
"""PAGE_READWRITE, PAGE_WRITECOPY, and their executable forms."""


def pointers_into(process: Process, spans: Sequence[Span], most: int) -> list[tuple[int, ...]]:
    """For each span the addresses of the first `most` aligned words outside of it that point into it.

    Reads writable committed memory, 1 GB in a second or two; nothing where a process has more than 4 GiB of it.
    """
    found: list[list[int]] = [[] for _ in spans]
    places = list(_writable(process))
    if not spans or sum(place.size for place in places) > _MOST_BYTES:
        return [() for _ in spans]
    view = process.views[-1]
    low, high = min(span.start for span in spans), max(span.end for span in spans)
    for place in places:
        for start, words in view.space.mapped.words(place, view.pointer_bytes):
            candidates = np.flatnonzero((words >= np.uint64(low)) & (words < np.uint64(high)))
            for i, value in zip(candidates.tolist(), words[candidates].tolist(), strict=True):
                _add(found, spans, start + i * view.pointer_bytes, value, most)
        if all(len(one) == most for one in found):
            break
    return [tuple(one) for one in found]


def _add(found: list[list[int]], spans: Sequence[Span], at: int, value: int, most: int) -> None:
    """Notes the word `value` at an address for the spans that it points into."""
    for addresses, span in zip(found, spans, strict=True):
        if value in span and at not in span and len(addresses) < most:
            addresses.append(at)


def _writable(process: Process) -> Iterator[Span]:
    """Writable committed memory, in windows."""
    table = process.regions
    is_writable = (table.state == State.MEM_COMMIT) & (table.protect & _WRITABLE != 0)
    for i in np.flatnonzero(is_writable).tolist():
        start, end = int(table.start[i]), int(table.end[i])
        for first in range(start, end, _WINDOW):
            yield Span(first, min(end, first + _WINDOW))
