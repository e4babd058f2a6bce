"""Findings in a heap that a thread was changing when the dump was taken.

During one operation a few places contradict each other: a header that is not written yet, the size that the next header
names, links, counters. Such findings become warnings. A heap with more such places is damaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from heapdump.blocks.findings import Finding

if TYPE_CHECKING:
    from heapdump.process.stacks.heap_calls import HeapCall

_KINDS = frozenset({
    "entry_header", "size_chain", "segment", "ucr", "free_list", "virtual_list", "lfh_subsegment", "vs_chunk",
    "large_metadata", "front_padding",
})  # fmt: skip
"""Kinds of findings that a healthy heap can have during an operation; not fills, which are written before it."""

_MOST = 4
"""The most places of one operation: the entry, its neighbours, a list, a counter."""


def as_warnings(findings: Sequence[Finding], why: str) -> list[Finding]:
    """The findings of one heap, with those that an operation explains as warnings.

    `why`: words that say who was changing the heap; where it is "", or where there are too many places for one
    operation, the findings are returned as they are.
    """
    places = {(f.kind, f.address) for f in findings if f.is_error and f.kind in _KINDS}
    if not why or len(places) > _MOST:
        return list(findings)
    return [_as_warning(f, why) if (f.kind, f.address) in places else f for f in findings]


def _as_warning(finding: Finding, why: str) -> Finding:
    message = finding.message if why in finding.message else f"{finding.message}; {why}"
    return replace(finding, severity="warning", message=message)


def changing_words(heap: int, calls: Iterable[HeapCall]) -> str:
    """Words that name a thread inside a heap function which has the heap's address among its words; "" for none."""
    found = [f"thread {c.thread.id:#x} is inside {c.function}" for c in calls if heap in c.words]
    more = f" ({len(found) - 1:,} more are in such functions)" if len(found) > 1 else ""
    return f"{found[0]}{more}, which may be changing it" if found else ""
