"""Examines every walked heap for damage: what discovery and walk found, and what each kind looks at besides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache, partial

from heapdump.blocks.damage import Damage
from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Heap, HeapKind
from heapdump.blocks.walk import Walk
from heapdump.heaps import check_of
from heapdump.heaps.jobs import CheckJob
from heapdump.memory import limits
from heapdump.process.model import Process, View


def check_heaps(process: Process, heaps: Sequence[Heap], walk: Walk) -> Damage:
    """Everything that is damaged, and what could not be examined."""
    findings, gaps, guarded = list[Finding](), list[str](), list[int]()
    of_walk = defaultdict[int, list[Finding]](list)
    for finding in walk.findings:
        of_walk[finding.heap].append(finding)
    inside = {view.arch: cache(partial(_inside_words, process, view)) for view in process.views}
    for heap in heaps:
        view = next(view for view in process.views if view.arch == heap.view)
        known = [*heap.findings, *of_walk[heap.address]]
        findings += known
        examine = check_of(heap.kind)
        if examine is not None and heap.index in walk.counts:
            changing = partial(_changing, view, heap, inside[view.arch])
            job = CheckJob(process, view, heap, heaps, walk.table, walk.counts[heap.index], changing, bool(known))
            examine(job)
            findings += job.findings[: limits.MAX_FINDINGS]
            if len(job.findings) > limits.MAX_FINDINGS:
                gaps.append(
                    f"heap {heap.address:#x}: only the first {limits.MAX_FINDINGS:,} of {len(job.findings):,} damaged places are kept"
                )
            gaps += job.gaps
        if heap.kind is not HeapKind.NT or (heap.index in walk.counts and job.guards):
            guarded.append(heap.index)
    return Damage(tuple(findings), tuple(gaps), tuple(guarded))


def _changing(view: View, heap: Heap, inside: Callable[[], str]) -> str:
    return lock_words(view, heap) or inside()


def _inside_words(process: Process, view: View) -> str:
    from heapdump.process.stacks.heap_calls import inside_heap_functions

    found = [f"thread {thread.id:#x} is inside {name}" for thread, name in inside_heap_functions(process, view)]
    more = f" ({len(found) - 1:,} more are in such functions)" if len(found) > 1 else ""
    return f"{found[0]}{more}, which may be changing it" if found else ""


def lock_words(view: View, heap: Heap) -> str:
    """Who holds the heap's lock, in words; "" when nobody does, or it cannot be read.

    _HEAP.LockVariable points at an RTL_CRITICAL_SECTION {DebugInfo, LockCount i32, RecursionCount i32, OwningThread …}.
    """
    layout = next((layout for layout in view.layouts if layout.name == heap.layout), None)
    if layout is None or "_HEAP" not in layout or "LockVariable" not in layout["_HEAP"]:
        return ""
    lock = view.space.try_pointer(heap.address + layout["_HEAP"].offset("LockVariable"))
    owner = view.space.try_pointer(lock + view.pointer_bytes + 8) if lock else None
    return f"its lock is held by thread {owner:#x}, which may be changing it" if owner else ""
