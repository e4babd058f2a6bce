"""The spaces of a Java heap: where objects lie, by the collector's own structures (G1, Serial, Parallel).

Each way proves itself: its spaces must lie in the reservation that the heap names. ZGC and Shenandoah keep their
objects under structures of their own, which are not read; their reservation is all that is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from heapdump.runtimes.java.vm_structs import VmStructs
from heapdump.spans import Span

_MOST_REGIONS = 1 << 20
_TAG = re.compile(r"(?:G1)?HeapRegionType::(\w+)Tag")
_MOST_THREADS = 1 << 16


@dataclass(frozen=True, slots=True)
class Space:
    """A space of the heap.

    Attributes:
        generation: its name: `eden`, `survivor`, `old` ….
        span: the memory of the space.
        objects: the part that holds objects, one behind the other.
    """

    generation: str
    span: Span
    objects: Span


@dataclass(frozen=True, slots=True)
class HeapLayout:
    """The layout of a Java heap.

    Attributes:
        reserved: the reservation.
        collector: `G1`, `Serial` or `Parallel`; None for another one, whose spaces are not read.
        spaces: the spaces, ascending.
    """

    reserved: Span
    collector: str | None
    spaces: tuple[Space, ...]


def heap_layout(structs: VmStructs) -> HeapLayout | None:
    """The layout; None where the heap is not in the dump."""
    heap = structs.static("Universe", "_collectedHeap")
    region = structs.inside(heap, "CollectedHeap", "_reserved")
    start = structs.member(region, "MemRegion", "_start")
    words = structs.member(region, "MemRegion", "_word_size")
    if heap is None or not start or not words:
        return None
    reserved = Span(start, start + words * structs.space.pointer_bytes)
    for collector, found in (
        ("G1", _g1(structs, heap)),
        ("Serial", _serial(structs, heap)),
        ("Parallel", _parallel(structs)),
    ):
        spaces = tuple(sorted(found, key=lambda space: space.span.start))
        if spaces and all(reserved.start <= s.span.start <= s.span.end <= reserved.end for s in spaces):
            return HeapLayout(reserved, collector, spaces)
    return HeapLayout(reserved, None, ())


def unused_buffers(structs: VmStructs) -> list[Span]:
    """The parts of the threads' allocation buffers that hold no objects yet, ascending."""
    threads = structs.static("ThreadsSMRSupport", "_java_thread_list")
    array, count = (
        structs.member(threads, "ThreadsList", "_threads"),
        structs.member(threads, "ThreadsList", "_length", 4),
    )
    out = []
    for i in range(min(count or 0, _MOST_THREADS) if array else 0):
        thread = structs.space.try_pointer((array or 0) + i * structs.space.pointer_bytes)
        buffer = structs.inside(thread, "Thread", "_tlab")
        top = structs.member(buffer, "ThreadLocalAllocBuffer", "_top")
        end = structs.member(buffer, "ThreadLocalAllocBuffer", "_end")
        if top and end and top < end:
            reserve = structs.static("CollectedHeap", "_lab_alignment_reserve") or 0
            out.append(Span(top, end + reserve * structs.space.pointer_bytes))
    return sorted(out, key=lambda span: span.start)


def _g1(structs: VmStructs, heap: int) -> list[Space]:
    """The regions that hold objects; a humongous object lies in its first region and the ones that continue it."""
    hrm = structs.fields.get(("G1CollectedHeap", "_hrm"))
    region = next(
        (name for name in ("G1HeapRegion", "HeapRegion") if structs.has((name, "_bottom"), (name, "_top"))), None
    )
    if hrm is None or region is None:
        return []
    table = structs.fields.get((hrm.type, "_regions"))
    if table is None:
        return []
    at = structs.inside(structs.inside(heap, "G1CollectedHeap", "_hrm"), hrm.type, "_regions")
    base, length = structs.member(at, table.type, "_base"), structs.member(at, table.type, "_length")
    if not base or not length or length > _MOST_REGIONS:
        return []
    tags = {value: match[1] for name, value in structs.constants.items() if (match := _TAG.fullmatch(name))}
    tags |= {value: "Old" for name, value in structs.constants.items() if name.endswith("HeapRegionType::OldMask")}
    out: list[Space] = []
    for i in range(length):
        address = structs.space.try_pointer(base + i * structs.space.pointer_bytes)
        found = _region(structs, address, region, tags) if address else None
        if found is None:
            continue
        before = out[-1] if out else None
        if found.generation == "humongous continued":
            if before is not None and before.generation == "humongous" and before.span.end == found.span.start:
                span = Span(before.span.start, found.span.end)
                out[-1] = Space("humongous", span, Span(before.objects.start, found.objects.end))
        else:
            out.append(found)
    return out


def _region(structs: VmStructs, address: int, owner: str, tags: dict[int, str]) -> Space | None:
    bottom, top, end = (structs.member(address, owner, name) for name in ("_bottom", "_top", "_end"))
    kind = structs.fields.get((owner, "_type"))
    tag = structs.member(structs.inside(address, owner, "_type"), kind.type, "_tag", 4) if kind else None
    if bottom is None or top is None or end is None or not bottom <= top <= end:
        return None
    return Space(_generation(tags.get(tag if tag is not None else -1, "")), Span(bottom, end), Span(bottom, top))


def _generation(tag: str) -> str:
    """`StartsHumongous` → humongous, `Eden` → eden, and so on; "" → other."""
    names = {"StartsHumongous": "humongous", "ContinuesHumongous": "humongous continued", "Surv": "survivor"}
    return names.get(tag, tag.lower() or "other")


def _serial(structs: VmStructs, heap: int) -> list[Space]:
    owner = "SerialHeap" if structs.has(("SerialHeap", "_young_gen")) else "GenCollectedHeap"
    young, old = structs.member(heap, owner, "_young_gen"), structs.member(heap, owner, "_old_gen")
    rows = [("DefNewGeneration", young, f"_{name}_space", name) for name in ("eden", "from", "to")]
    return list(_contiguous(structs, [*rows, ("TenuredGeneration", old, "_the_space", "old")], "ContiguousSpace"))


def _parallel(structs: VmStructs) -> list[Space]:
    young = structs.static("ParallelScavengeHeap", "_young_gen")
    old = structs.static("ParallelScavengeHeap", "_old_gen")
    rows = [("PSYoungGen", young, f"_{name}_space", name) for name in ("eden", "from", "to")]
    return list(_contiguous(structs, [*rows, ("PSOldGen", old, "_object_space", "old")], "MutableSpace"))


def _contiguous(structs: VmStructs, rows: list[tuple[str, int | None, str, str]], space: str) -> Iterator[Space]:
    for owner, generation, name, words in rows:
        address = structs.member(generation, owner, name)
        bottom, top, end = (structs.member(address, space, part) for part in ("_bottom", "_top", "_end"))
        if bottom and top is not None and end is not None and bottom <= top <= end:
            yield Space(words, Span(bottom, end), Span(bottom, top))
