"""Examines every heap for damage: the findings of discovery and walk, and those of its allocator's check."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

from heapdump.blocks.damage import Damage, UncheckedHeap, WhyUnchecked, may_lack_some, why_not_walked
from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Heap
from heapdump.blocks.walk import Walk
from heapdump.heaps import allocator_of
from heapdump.heaps.in_operation import as_warnings, changing_words
from heapdump.heaps.jobs import CheckJob
from heapdump.memory import limits
from heapdump.process.model import Process, View

if TYPE_CHECKING:
    from heapdump.process.stacks.heap_calls import HeapCall


def check_heaps(process: Process, heaps: Sequence[Heap], walk: Walk) -> Damage:
    """All findings in the heaps, and the gaps of the checks."""
    findings, gaps, guarded, unchecked = list[Finding](), list[str](), list[int](), list[UncheckedHeap]()
    remarks, cut = dict[str, None](), may_lack_some(walk.findings, limits.MAX_FINDINGS)
    of_walk = defaultdict[int, list[Finding]](list)
    for finding in walk.findings:
        of_walk[finding.heap].append(finding)
    inside = {view.arch: cache(partial(_heap_calls, process, view)) for view in process.views}
    for heap in heaps:
        known = [*heap.findings, *of_walk[heap.address]]
        changing = partial(_changing_words, heap, inside[heap.view])
        job = _job(process, heaps, walk, heap, changing, bool(known))
        why = why_not_walked(heap, walk.counts.get(heap.index))
        if job is None or not allocator_of(heap).check(job):
            findings += known
            unchecked.append(UncheckedHeap(heap.index, why or WhyUnchecked.NO_CHECK))
            guarded.append(heap.index)
            continue
        if why is not None:
            unchecked.append(UncheckedHeap(heap.index, why))
        findings += as_warnings([*known, *job.findings[: limits.MAX_FINDINGS]], job.in_operation)
        found = len(job.findings) + job.omitted
        if job.is_cut or found > limits.MAX_FINDINGS:
            cut.add(heap.address)
        if found > limits.MAX_FINDINGS:
            gaps.append(
                f"heap {heap.address:#x}: only the first {limits.MAX_FINDINGS:,} of at least {found:,} damaged places "
                "are kept"
            )
        gaps += job.gaps
        remarks |= dict.fromkeys(job.remarks)
        if job.guards is None or job.guards:
            guarded.append(heap.index)
    return Damage(tuple(findings), tuple(gaps), tuple(guarded), tuple(unchecked), tuple(remarks), tuple(sorted(cut)))


def _job(
    process: Process, heaps: Sequence[Heap], walk: Walk, heap: Heap, changing: Callable[[], str], has_damage: bool
) -> CheckJob | None:
    """The check of one heap; None for a heap that no allocator walks."""
    if heap.index not in walk.counts:
        return None
    view = next(view for view in process.views if view.arch == heap.view)
    count, facts = walk.counts[heap.index], walk.facts.get(heap.index, {})
    return CheckJob(process, view, heap, heaps, walk.table, count, changing, has_damage, facts)


def _heap_calls(process: Process, view: View) -> list[HeapCall]:
    from heapdump.process.stacks.heap_calls import inside_heap_functions

    return list(inside_heap_functions(process, view))


def _changing_words(heap: Heap, calls: Callable[[], list[HeapCall]]) -> str:
    return changing_words(heap.address, calls())
