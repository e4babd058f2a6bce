"""Findings of a heap that a thread was changing when the dump was taken.

One operation leaves few places that contradict each other for a while: a header that is not written yet, the size that
the next header names, links and counters. They are warnings then. A heap with more such places is damaged besides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from heapdump.blocks.findings import Finding

if TYPE_CHECKING:
    from heapdump.process.stacks.heap_calls import HeapCall

_KINDS = frozenset({
    "entry_header", "size_chain", "segment", "ucr", "free_list", "virtual_list", "lfh_subsegment", "vs_chunk", "large_metadata",
    "front_padding",
})  # fmt: skip
"""Kinds that a healthy heap shows in the middle of an operation; fills, for one, are written before a block changes hands."""

_MOST = 4
"""Places that one operation leaves at most: the entry, its neighbours, a list, a counter."""


def softened(findings: Sequence[Finding], why: str) -> list[Finding]:
    """The findings of one heap, contradictions as warnings for the reason `why`; "" for no reason: as they are."""
    places = {(f.kind, f.address) for f in findings if f.is_error and f.kind in _KINDS}
    if not why or len(places) > _MOST:
        return list(findings)
    return [_softened(f, why) if (f.kind, f.address) in places else f for f in findings]


def _softened(finding: Finding, why: str) -> Finding:
    message = finding.message if why in finding.message else f"{finding.message}; {why}"
    return replace(finding, severity="warning", message=message)


def changing_words(heap: int, calls: Iterable[HeapCall]) -> str:
    """The thread that is inside a heap function with the handle of the heap at this address, in words; "" for none."""
    found = [f"thread {c.thread.id:#x} is inside {c.function}" for c in calls if heap in c.words]
    more = f" ({len(found) - 1:,} more are in such functions)" if len(found) > 1 else ""
    return f"{found[0]}{more}, which may be changing it" if found else ""
