"""The heap of an AddressSanitizer runtime as a record: the allocations in which chunks lie, and the shadow."""

from __future__ import annotations

import numpy as np

from heapdump.blocks.heap import Extent, ExtentKind, Heap, WindowsCounters
from heapdump.blocks.kind import HeapKind
from heapdump.heaps.allocator import DiscoveryContext, HeapClaim
from heapdump.heaps.asan.detail import DumpedShadow
from heapdump.heaps.asan.runtime import AsanRuntime, runtime_at
from heapdump.heaps.asan.shadow import Shadow
from heapdump.memory.regions import Kind, RegionTable, State
from heapdump.process.model import Process
from heapdump.spans import Span


def describe(context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
    """The record of the heap of a claimed runtime. Reads the whole shadow to find the allocations of chunks."""
    runtime = runtime_at(context.view, claim.address)
    if runtime is None:
        raise ValueError(f"no AddressSanitizer runtime at {claim.address:#x}")
    regions = context.process.regions
    spans = _chunk_allocations(regions, Shadow(runtime, context.view.space), runtime)
    missing = _missing_shadow(context.process, runtime)
    notes = [
        f"heap {claim.address:#x} (asan): {missing:,} bytes of shadow are not in the dump; chunks there are not listed"
    ]
    extents = [Extent(span, ExtentKind.ASAN_CHUNKS) for span in spans]
    extents += [Extent(span, ExtentKind.ASAN_SHADOW) for span in _shadow_regions(regions, runtime)]
    return Heap(
        address=claim.address, index=index, kind=HeapKind("asan"), role="AddressSanitizer", view=context.view.arch,
        flags=None, segments=(), large_blocks=None, extents=tuple(sorted(extents, key=lambda one: one.span.start)),
        reserved_bytes=sum(span.size for span in spans),
        committed_bytes=sum(regions.committed_bytes(span) for span in spans),
        counters=WindowsCounters(), front_end=None, lookaside_bytes=0, stack_traces=True, trust=claim.trust,
        layout=None,
        findings=(), notes=tuple(notes if missing else ()), is_fully_walked=not missing,
        stack_ids="AddressSanitizer stack", shadow=DumpedShadow(runtime, context.view.space),
    )  # fmt: skip


def _chunk_allocations(regions: RegionTable, shadow: Shadow, runtime: AsanRuntime) -> list[Span]:
    """The private allocations in which a chunk may begin, ascending."""
    rows: set[int] = set()
    for starts in shadow.chunk_starts():
        found = np.searchsorted(regions.start, starts, side="right") - 1
        rows |= set(np.unique(found[found >= 0]).tolist())
    good = (i for i in rows if regions.type[i] != Kind.MEM_IMAGE and regions.state[i] == State.MEM_COMMIT)
    spans = (regions.allocation(int(regions.start[i])) for i in good)
    inside = runtime.shadow_span
    return sorted({span for span in spans if span is not None and not inside.start <= span.start < inside.end})


def _shadow_regions(regions: RegionTable, runtime: AsanRuntime) -> list[Span]:
    """The reserved or committed parts of the shadow, ascending; touching ones are joined."""
    inside, out = runtime.shadow_span, list[Span]()
    taken = (regions.state != State.MEM_FREE) & (regions.end > np.uint64(inside.start))
    for i in np.flatnonzero(taken & (regions.start < np.uint64(inside.end))).tolist():
        start, end = max(int(regions.start[i]), inside.start), min(int(regions.end[i]), inside.end)
        if regions.type[i] == Kind.MEM_IMAGE:
            continue
        if out and out[-1].end == start:
            out[-1] = Span(out[-1].start, end)
        else:
            out.append(Span(start, end))
    return out


def _missing_shadow(process: Process, runtime: AsanRuntime) -> int:
    """Committed bytes of the shadow that the dump does not hold."""
    regions, mapped = process.regions, process.space.mapped
    inside = runtime.shadow_span
    rows = (regions.state == State.MEM_COMMIT) & (regions.start >= np.uint64(inside.start))
    rows &= (regions.end <= np.uint64(inside.end)) & (regions.type != Kind.MEM_IMAGE)
    present = mapped.bytes_present(regions.start[rows], regions.end[rows])
    return int(regions.size[rows].sum()) - int(present.sum())
