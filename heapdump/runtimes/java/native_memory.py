"""Memory of a Java VM beside its heap and its code: class metadata, card table, performance counters.

HotSpot keeps class metadata in reservations of its own, the *metaspace*: classes in the class space, their constants in
others. Each class of the class loaders' lists names one of both. Recorded: HotSpot 25.
"""

from __future__ import annotations

from collections.abc import Iterator

from heapdump.memory.regions import Kind, RegionTable
from heapdump.runtimes.java.vm_structs import VmStructs
from heapdump.runtimes.runtime import MemoryOwner, OwnerKind
from heapdump.spans import Span
from heapdump.trust import Trust

_MOST_LOADERS, _MOST_CLASSES = 1 << 12, 1 << 15
"""Class loaders, and classes of all of them, that are looked at."""


def native_memory(structs: VmStructs, regions: RegionTable) -> list[MemoryOwner]:
    """The owners, as far as the VM names the structures. Whole reservations are inferred from what lies in them."""
    return [*_metaspace(structs, regions), *_card_table(structs, regions), *_counters(structs)]


def _metaspace(structs: VmStructs, regions: RegionTable) -> Iterator[MemoryOwner]:
    """Private reservations in which classes or their constants lie, each once."""
    seen: dict[Span, str] = {}
    for klass in _classes(structs):
        constants = structs.member(klass, "InstanceKlass", "_constants")
        for address, words in ((klass, "Java metaspace, class space"), (constants, "Java metaspace")):
            if address and not any(address in span for span in seen):
                span = _reservation(regions, address)
                if span is not None:
                    seen[span] = words
    yield from (MemoryOwner(span, OwnerKind.CLASSES, words, Trust.DERIVED) for span, words in sorted(seen.items()))


def _reservation(regions: RegionTable, address: int) -> Span | None:
    i = regions.index_at(address)
    if i is None or regions.type[i] == Kind.MEM_IMAGE:
        return None
    return regions.allocation(address)


def _classes(structs: VmStructs) -> Iterator[int]:
    """The classes of all class loaders, array classes among them; lists that close in themselves end."""
    loader, left = structs.static("ClassLoaderDataGraph", "_head"), _MOST_CLASSES
    for _ in range(_MOST_LOADERS):
        klass = structs.member(loader, "ClassLoaderData", "_klasses")
        while klass and left:
            yield klass
            left -= 1
            klass = structs.member(klass, "Klass", "_next_link")
        loader = structs.member(loader, "ClassLoaderData", "_next")
        if not loader or not left:
            return


def _card_table(structs: VmStructs, regions: RegionTable) -> Iterator[MemoryOwner]:
    """One byte for each card of the heap, by which the collector finds old objects that point to young ones."""
    barrier = structs.static("BarrierSet", "_barrier_set")
    table = structs.member(barrier, "CardTableBarrierSet", "_card_table")
    start, size = (structs.member(table, "CardTable", name) for name in ("_byte_map", "_byte_map_size"))
    span = Span(start, start + size) if start and size else None
    reserved = _reservation(regions, start) if start else None
    if span is not None and reserved is not None and reserved.covers(span):
        yield MemoryOwner(span, OwnerKind.BOOKKEEPING, "Java card table")


def _counters(structs: VmStructs) -> Iterator[MemoryOwner]:
    """The counters that jstat reads."""
    start, end = (structs.static("PerfMemory", name) for name in ("_start", "_end"))
    if start and end and 0 < end - start < 1 << 24:
        yield MemoryOwner(Span(start, end), OwnerKind.BOOKKEEPING, "Java performance counters")
