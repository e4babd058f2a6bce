"""Generations and segments of the managed heap.

A segment (a region from 7 on): allocated, committed, reserved, used, first object, flags (1 frozen, 8 large objects,
0x200 pinned), next. Up to 6 the generations 0 to 2 share the ephemeral segment, from 7 on each has regions of its
own; which of the two it is, the generation table shows. Source: gcpriv.h, gcinterface.dac.h;
docs/reference/managed-code.md §5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from heapdump.memory.space import AddressSpace
from heapdump.runtimes.dotnet.gc_variables import GcVariables
from heapdump.spans import Span

_FROZEN = 1
_MOST_SEGMENTS = 1 << 20
_GC_HEAP_BYTES = 0x4000
_TABLE_INDEX, _ALLOCATED_INDEX, _EPHEMERAL_INDEX = 18, 0, 1
_PAGE = 0x1000


class Generation(StrEnum):
    """A generation of the managed heap: 0, 1, 2, objects of 85,000 bytes and more, pinned objects, frozen segments."""

    GEN0 = "gen0"
    GEN1 = "gen1"
    GEN2 = "gen2"
    LARGE = "large"
    PINNED = "pinned"
    FROZEN = "frozen"


_BY_NUMBER = (Generation.GEN0, Generation.GEN1, Generation.GEN2, Generation.LARGE, Generation.PINNED)


@dataclass(frozen=True, slots=True)
class GcSegment:
    """A segment or region of the managed heap, or the piece of a segment that one generation has.

    Attributes:
        generation: of its objects.
        objects: the span that holds objects.
        start: address of its memory.
        committed: address behind its committed memory.
        reserved: address behind its reserved memory.
        heap: number of the heap; 0 without server GC.
    """

    generation: Generation
    objects: Span
    start: int
    committed: int
    reserved: int
    heap: int = 0


@dataclass(frozen=True, slots=True)
class _Raw:
    """The members of a segment as the collector keeps them: addresses, except for the flags (`heap_segment`, gcpriv.h).

    `address`: of the structure; `first`: of the first object; `next`: of the next segment, 0 for none.
    """

    address: int
    allocated: int
    committed: int
    reserved: int
    used: int
    first: int
    flags: int
    next: int


@dataclass(frozen=True, slots=True)
class _CollectorHeap:
    """One heap of the collector.

    Attributes:
        number: 0 without server GC.
        table: address of its generation table.
        ephemeral: address of its ephemeral segment; 0 for none.
        allocated: address behind the last object of the ephemeral segment; 0 where it is not known.
    """

    number: int
    table: int
    ephemeral: int
    allocated: int


def segments(space: AddressSpace, variables: GcVariables) -> list[GcSegment]:
    """Every segment of every heap, by address."""
    reader = _SegmentReader(space, variables)
    found = [segment for heap in reader.heaps() for segment in reader.of_heap(heap)]
    return sorted(found, key=lambda segment: segment.objects)


class _SegmentReader:
    def __init__(self, space: AddressSpace, variables: GcVariables) -> None:
        self._space, self._variables, self._p = space, variables, space.pointer_bytes
        self._seen: set[int] = set()

    def raw(self, address: int) -> _Raw | None:
        """The segment at an address; None where the numbers contradict each other."""
        p = self._p
        data = self._space.try_read(address, 7 * p) if address and address % p == 0 else None
        if data is None:
            return None
        words = [int.from_bytes(data[i : i + p], "little") for i in range(0, 7 * p, p)]
        allocated, committed, reserved, _, first, flags, _ = words
        fits = first <= allocated <= reserved and first <= committed <= reserved
        return _Raw(address, *words) if fits and first and first % p == 0 and flags < 1 << 16 else None

    def heaps(self) -> Iterator[_CollectorHeap]:
        """The heaps: one, or those of server GC."""
        variables = self._variables
        if not variables.heaps:
            ephemeral = self._space.try_pointer(variables.ephemeral) or 0 if variables.ephemeral else 0
            allocated = self._space.try_pointer(variables.allocated) or 0 if variables.allocated else 0
            yield _CollectorHeap(0, variables.generations, ephemeral, allocated)
            return
        for number, address in enumerate(variables.heaps):
            table = self._table_in(address)
            if table is not None:
                ephemeral, allocated = self._field(address, _EPHEMERAL_INDEX), self._field(address, _ALLOCATED_INDEX)
                yield _CollectorHeap(number, table, ephemeral, allocated)

    def _offset(self, array: int, index: int) -> int | None:
        value = self._space.try_integer(array + 4 * index, 4) if array else None
        return None if value is None or value > _GC_HEAP_BYTES else value

    def _field(self, heap: int, index: int) -> int:
        """The value of a member of gc_heap; 0 where its offset is not known."""
        offset = self._offset(self._variables.heap_offsets, index)
        return self._space.try_pointer(heap + offset) or 0 if offset is not None else 0

    def _table_in(self, heap: int) -> int | None:
        """The generation table in a gc_heap of server GC: by its offset, else the first that looks like one."""
        known = self._offset(self._variables.heap_offsets, _TABLE_INDEX)
        places = [*([known] if known is not None else []), *range(0, _GC_HEAP_BYTES, self._p)]
        return next((heap + place for place in places if self._is_table(heap + place)), None)

    def _is_table(self, table: int) -> bool:
        """True when the generations 0 to 3 have start segments."""
        return all(self.first(table, i) is not None for i in range(4))

    def first(self, table: int, generation: int) -> tuple[_Raw, int] | None:
        """(the start segment of a generation, offset of its member): by the offsets, else the first that fits."""
        at = table + generation * self._variables.generation_bytes
        known = self._offset(self._variables.generation_offsets, 1)
        places = [known] if known is not None else range(0, self._variables.generation_bytes, self._p)
        for place in places:
            found = self.raw(self._space.try_pointer(at + place) or 0)
            if found is not None:
                return found, place
        return None

    def of_heap(self, heap: _CollectorHeap) -> Iterator[GcSegment]:
        """The segments of one heap, each once: the pieces of the ephemeral one by generation."""
        firsts = [self.first(heap.table, i) for i in range(self._variables.generation_count)]
        shared = firsts[0] is not None and firsts[1] is not None and firsts[0][0] == firsts[1][0]
        for i in (*range(2, len(firsts)), 1, 0) if shared else range(len(firsts)):
            found = firsts[i]
            for raw in self._chain(found[0] if found else None):
                generation = Generation.FROZEN if raw.flags & _FROZEN else _BY_NUMBER[min(i, 4)]
                if shared and firsts[0] is not None and raw == firsts[0][0]:
                    yield from self._ephemeral(heap, raw, firsts[0][1])
                else:
                    yield self._segment(heap, raw, generation)

    def _chain(self, raw: _Raw | None) -> Iterator[_Raw]:
        while raw is not None and raw.address not in self._seen and len(self._seen) < _MOST_SEGMENTS:
            self._seen.add(raw.address)
            yield raw
            raw = self.raw(raw.next)

    def _segment(
        self, heap: _CollectorHeap, raw: _Raw, generation: Generation, *, is_shared: bool = False
    ) -> GcSegment:
        end = raw.allocated
        if raw.address == heap.ephemeral and raw.first <= heap.allocated <= raw.committed:
            end = heap.allocated
        elif is_shared and not heap.ephemeral:  # server GC up to 3.1, whose members have no known offsets
            end = min(max(raw.used, end), raw.committed)
        return GcSegment(
            generation, Span(raw.first, end), raw.first & -_PAGE, max(raw.committed, end), raw.reserved, heap.number
        )

    def _ephemeral(self, heap: _CollectorHeap, raw: _Raw, offset: int) -> Iterator[GcSegment]:
        """The ephemeral segment, cut where generations begin: the word behind the start segment says where."""
        segment = self._segment(heap, raw, Generation.GEN0, is_shared=True)
        size, p = self._variables.generation_bytes, self._p
        cuts = [self._space.try_pointer(heap.table + i * size + offset + p) or 0 for i in (1, 0)]
        if not segment.objects.start <= cuts[0] <= cuts[1] <= segment.objects.end:
            yield segment
            return
        edges = [segment.objects.start, *cuts, segment.objects.end]
        starts = [segment.start, *cuts]
        ends = [cuts[0], cuts[1], segment.committed]
        tops = [cuts[0], cuts[1], segment.reserved]
        for i, generation in enumerate((Generation.GEN2, Generation.GEN1, Generation.GEN0)):
            yield GcSegment(generation, Span(edges[i], edges[i + 1]), starts[i], ends[i], tops[i], heap.number)
