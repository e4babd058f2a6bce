"""Words of memory that point into given spans: who uses memory that no structure of the process names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from heapdump.analyses.memory.writable import windows, writable_rows
from heapdump.process.model import Process
from heapdump.spans import Span

_MOST_BYTES = 4 << 30
"""Bytes that are searched; in more nothing is."""


def pointers_into(process: Process, spans: Sequence[Span], most: int) -> list[tuple[int, ...]] | None:
    """For each span the addresses of the first `most` aligned words outside of it that point into it.

    Reads the writable memory in the dump, 1 GB in a second or two; None where there are more than 4 GiB of it.
    """
    found: list[list[int]] = [[] for _ in spans]
    view, table = process.views[-1], process.regions
    rows, memory = writable_rows(table), process.views[-1].space.mapped
    if not spans:
        return []
    if int(memory.bytes_present(table.start[rows], table.end[rows]).sum()) > _MOST_BYTES:
        return None
    low, high = min(span.start for span in spans), max(span.end for span in spans)
    regions = (Span(int(table.start[row]), int(table.end[row])) for row in rows)
    for place in chain.from_iterable(windows(memory, region) for region in regions):
        for start, words in memory.words(place, view.pointer_bytes):
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
