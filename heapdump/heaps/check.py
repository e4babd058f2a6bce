"""Examines every walked heap for damage: what discovery and walk found, and what its allocator checks besides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache, partial

from heapdump.blocks.damage import Damage
from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Heap
from heapdump.blocks.walk import Walk
from heapdump.heaps import allocator_of
from heapdump.heaps.jobs import CheckJob
from heapdump.memory import limits
from heapdump.process.model import Process, View


def check_heaps(process: Process, heaps: Sequence[Heap], walk: Walk) -> Damage:
    """Everything that is damaged, and what could not be examined."""
    findings, gaps, guarded, unchecked = list[Finding](), list[str](), list[int](), list[int]()
    of_walk = defaultdict[int, list[Finding]](list)
    for finding in walk.findings:
        of_walk[finding.heap].append(finding)
    inside = {view.arch: cache(partial(_inside_words, process, view)) for view in process.views}
    for heap in heaps:
        known = [*heap.findings, *of_walk[heap.address]]
        findings += known
        job = _checked(process, heaps, walk, heap, inside[heap.view], bool(known))
        if job is None:
            unchecked.append(heap.index)
            guarded.append(heap.index)
            continue
        findings += job.findings[: limits.MAX_FINDINGS]
        if len(job.findings) > limits.MAX_FINDINGS:
            gaps.append(
                f"heap {heap.address:#x}: only the first {limits.MAX_FINDINGS:,} of {len(job.findings):,} damaged places are kept"
            )
        gaps += job.gaps
        if job.guards is None or job.guards:
            guarded.append(heap.index)
    return Damage(tuple(findings), tuple(gaps), tuple(guarded), tuple(unchecked))


def _checked(
    process: Process, heaps: Sequence[Heap], walk: Walk, heap: Heap, changing: Callable[[], str], has_damage: bool
) -> CheckJob | None:
    """The job after the check; None for a heap that was not walked, or whose kind brings no check."""
    if heap.index not in walk.counts:
        return None
    view = next(view for view in process.views if view.arch == heap.view)
    job = CheckJob(
        process,
        view,
        heap,
        heaps,
        walk.table,
        walk.counts[heap.index],
        changing,
        has_damage,
        walk.facts.get(heap.index, {}),
    )
    return job if allocator_of(heap).check(job) else None


def _inside_words(process: Process, view: View) -> str:
    from heapdump.process.stacks.heap_calls import inside_heap_functions

    found = [f"thread {thread.id:#x} is inside {name}" for thread, name in inside_heap_functions(process, view)]
    more = f" ({len(found) - 1:,} more are in such functions)" if len(found) > 1 else ""
    return f"{found[0]}{more}, which may be changing it" if found else ""
