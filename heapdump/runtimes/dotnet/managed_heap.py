"""The objects of the managed heap: counted by type, and the one at an address."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heapdump.kernels import run
from heapdump.kernels.hash_table import place_of
from heapdump.kernels.managed_objects import END, FULL, REACHED, TypeTable, find_objects, walk_objects
from heapdump.memory.mapped import SpanWords
from heapdump.memory.space import AddressSpace
from heapdump.runtimes.dotnet.fields import Fields
from heapdump.runtimes.dotnet.gc_segments import GcSegment, Generation
from heapdump.runtimes.dotnet.names import Names
from heapdump.runtimes.dotnet.structures import MethodTable
from heapdump.runtimes.runtime import FREE, GenerationRow, ManagedObject, TypeCount, type_counts
from heapdump.spans import Span, SpanMap

_FREE_HEAD = b"\x01\x00\x00\x80"
_NOWHERE = 1 << 62
_MOST_FOREIGN = 1 << 18
"""Words that are no type and that the walk asks about before it gives up."""

_MOST_CHARACTERS = 1 << 20
_FIRST_PLACES = 4096
"""Places of the table of types at first."""

_ROOM = 1 << 16
_OBJECT_BYTES = 48
"""Bytes of a usual object, to decide whether compiling pays."""


class _Types:
    """The types that a walk has met, as the kernel wants them; grows with them."""

    def __init__(self, names: Names, free: int) -> None:
        self._names, self._free = names, free
        self.tables: list[int] = []
        self._entries: dict[int, int] = {}
        self.foreign = 0
        self._base = self._component = np.empty(0, np.int64)
        self._grow(_FIRST_PLACES)

    def _grow(self, length: int) -> None:
        """A hash table of `length` places, twice as many as types at least, with the entries so far."""
        self._slots, self._numbers = np.zeros(length, np.int64), np.full(length, -1, np.int64)
        more = np.zeros(length - len(self._base), np.int64)
        self._base, self._component = (np.concatenate([one, more]) for one in (self._base, self._component))
        for pointer, number in self._entries.items():
            self._insert(pointer, number)
        self.table = TypeTable(self._slots, self._numbers, self._base, self._component)

    def _insert(self, pointer: int, number: int) -> None:
        place = place_of(pointer, self._slots, 0)
        self._slots[place], self._numbers[place] = pointer, number

    def add(self, pointer: int) -> None:
        """Decides whether a pointer is a type, and adds it."""
        width = self._names.structures.pointer
        table = self._names.structures.method_table(pointer)
        is_free = pointer == self._free or (table is None and self._looks_free(pointer))
        number = -1
        if is_free or (table is not None and table.base_size >= 2 * width):
            number = len(self.tables)
            self.tables.append(pointer)
            if is_free or table is None:
                self._base[number], self._component[number], self._free = 3 * width, 1, pointer
            else:
                self._base[number], self._component[number] = table.base_size, table.component_bytes
        else:
            self.foreign += 1
        self._entries[pointer] = number
        if 2 * len(self._entries) > len(self._slots):
            self._grow(2 * len(self._slots))
        else:
            self._insert(pointer, number)

    def _looks_free(self, pointer: int) -> bool:
        """The MethodTable of free space has neither EEClass nor module: flags, base size, zeros."""
        width = self._names.structures.pointer
        data = self._names.structures.space.try_read(pointer, 0x10 + 4 * width)
        return data is not None and data[:8] == _FREE_HEAD + (3 * width).to_bytes(4, "little") and not any(data[16:])

    @property
    def free_number(self) -> int:
        """The number of the type of free space; -1 where no free space was met."""
        return self._entries.get(self._free, -1)

    def is_free(self, pointer: int) -> bool:
        """True for the MethodTable of free space."""
        return pointer == self._free


class ManagedHeap:
    """The objects in the segments of one runtime."""

    def __init__(self, space: AddressSpace, names: Names, segments: Sequence[GcSegment], free: int) -> None:
        """Reads nothing yet. `free`: the MethodTable of free space, 0 where nothing names it."""
        self._space, self._names = space, names
        self.segments = tuple(segments)
        self._map = SpanMap((segment.objects, segment) for segment in segments)
        self._types = _Types(names, free)
        self._fields = Fields(names)
        self._last: dict[int, int] = {}
        """Start of a segment's objects → the object that was found there last: a walk may begin with it."""

    @property
    def pointer_bytes(self) -> int:
        """4 or 8."""
        return self._names.structures.pointer

    @property
    def has_narrow_pointers(self) -> bool:
        """False: .NET has none."""
        return False

    def spans(self) -> Sequence[Span]:
        """The spans that hold objects, ascending."""
        return [segment.objects for segment in self.segments if segment.objects.size]

    def live_spans(self) -> Sequence[Span]:
        """The spans of objects without the free space between them, whose words are stale. Walks the heap."""
        free = self._types.free_number if self._walked else -1
        out = []
        for span in self.spans():
            edges = self._free_in(span, free) if free >= 0 else np.empty(0, np.int64)
            bounds = np.concatenate([[span.start], edges, [span.end]]).reshape(-1, 2)
            out += [Span(low, high) for low, high in bounds[bounds[:, 0] < bounds[:, 1]].tolist()]
        return out

    def _free_in(self, span: Span, number: int) -> NDArray[np.int64]:
        """Start and end of each free object in a span, one after the other."""
        words, at, found = self._words(span), span.start, list[NDArray[np.int64]]()
        out, reason = np.zeros(_ROOM, np.int64), FULL
        while reason == FULL:
            at, reason, count = run(
                find_objects, span.size // _OBJECT_BYTES, words.words, words.base, at, span.end,
                self.pointer_bytes, number, self._types.table, out,
            )  # fmt: skip
            found.append(out[:count].copy())
        return np.concatenate(found)

    @cached_property
    def _rows(self) -> tuple[GenerationRow, ...]:
        out = []
        for generation in Generation:
            of_generation = [segment for segment in self.segments if segment.generation is generation]
            if of_generation:
                counts = self._walked[generation]
                free = sum(size for pointer, _, size in counts if self._types.is_free(pointer))
                objects = sum(count for pointer, count, _ in counts if not self._types.is_free(pointer))
                committed = sum(segment.committed - segment.start for segment in of_generation)
                reserved = sum(segment.reserved - segment.start for segment in of_generation)
                size = sum(size for _, _, size in counts) - free
                out.append(GenerationRow(generation, len(of_generation), committed, reserved, objects, size, free))
        return tuple(out)

    def rows(self) -> Sequence[GenerationRow]:
        """A row for each generation that has segments."""
        return self._rows

    @cached_property
    def _type_rows(self) -> tuple[TypeCount, ...]:
        rows = (row for rows in self._walked.values() for row in rows)
        return type_counts((self.type_name(pointer), count, size) for pointer, count, size in rows)

    def types(self) -> Sequence[TypeCount]:
        """The types with their objects, most bytes first; free space is the type `Free`."""
        return self._type_rows

    def gaps(self) -> Sequence[str]:
        """What of the heap the dump does not hold, and words that ended a walk."""
        starts = np.array([span.start for span in self.spans()], np.uint64)
        ends = np.array([span.end for span in self.spans()], np.uint64)
        total = int((ends - starts).sum())
        present = int(self._space.mapped.bytes_present(starts, ends).sum())
        out = []
        if present < total:
            out.append(f"{total - present:,} of {total:,} bytes of the managed heap are not in the dump")
        if self._walked and self._types.foreign > _MOST_FOREIGN:
            out.append("the managed heap holds too many words that are no object: its walk was given up")
        return out

    def type_name(self, pointer: int) -> str:
        """The name of a MethodTable that the walk met."""
        if self._types.is_free(pointer):
            return FREE
        return self._names.type_of(pointer) or f"MethodTable {pointer:#x}"

    @cached_property
    def _walked(self) -> dict[Generation, list[tuple[int, int, int]]]:
        """Generation → (MethodTable, count, bytes) of each type."""
        totals: dict[Generation, dict[int, list[int]]] = {}
        for segment in self.segments:
            by_type = totals.setdefault(segment.generation, {})
            counts, sizes = self._walk(segment.objects, _NOWHERE)[1]
            for number in np.flatnonzero(counts).tolist():
                entry = by_type.setdefault(self._types.tables[number], [0, 0])
                entry[0] += int(counts[number])
                entry[1] += int(sizes[number])
        return {
            generation: [(pointer, count, size) for pointer, (count, size) in by_type.items()]
            for generation, by_type in totals.items()
        }

    def _walk(self, span: Span, target: int) -> tuple[int, tuple[NDArray[np.int64], NDArray[np.int64]], int]:
        """(where it stopped, (counts, bytes) by number of the type, reason)."""
        width = self._names.structures.pointer
        words = self._words(span)
        counts, sizes = (np.zeros(len(self._types.table.base), np.int64) for _ in range(2))
        at, reason = span.start, END
        while at < span.end:
            at, reason, _ = run(
                walk_objects, span.size // _OBJECT_BYTES, words.words, words.base, at, span.end, width, target,
                self._types.table, counts, sizes,
            )  # fmt: skip
            if reason in (END, REACHED) or self._types.foreign > _MOST_FOREIGN:
                break
            self._types.add(self._pointer_at(at))
            if len(self._types.table.base) > len(counts):
                more = np.zeros(len(self._types.table.base) - len(counts), np.int64)
                counts, sizes = (np.concatenate([one, more]) for one in (counts, sizes))
        return at, (counts, sizes), reason

    def _pointer_at(self, address: int) -> int:
        width = self._names.structures.pointer
        return (self._space.try_pointer(address) or 0) & -(8 if width == 8 else 4)

    def _words(self, span: Span) -> SpanWords:
        return self._space.mapped.span_words(Span(span.start & -8, -(-span.end // 8) * 8))

    def object_at(self, address: int) -> ManagedObject | None:
        """The object that holds an address; None in free space, in a gap and outside of the heap. Walks its segment."""
        segment = self._map.at(address)
        if segment is None:
            return None
        first = segment.objects.start
        last = self._last.get(first, first)
        at, _, reason = self._walk(Span(last if last <= address else first, segment.objects.end), address)
        if reason == REACHED:
            self._last[first] = at
        found = self.object_from(at, segment) if reason == REACHED else None
        return found if found is not None and at <= address < at + found.bytes else None

    def object_from(self, address: int, segment: GcSegment) -> ManagedObject | None:
        """The object that begins at an address; None for free space and where no type is."""
        pointer = self._pointer_at(address)
        table = self._names.structures.method_table(pointer) if not self._types.is_free(pointer) else None
        if table is None:
            return None
        size, length = self._size(address, table)
        return ManagedObject(
            address, self.type_name(pointer), size, segment.generation, length, pointer, table.has_finalizer
        )

    def _size(self, address: int, table: MethodTable) -> tuple[int, int | None]:
        width, length = self._names.structures.pointer, None
        size = table.base_size
        if table.component_bytes:
            length = self._space.try_integer(address + width, 4) or 0
            size += length * table.component_bytes
        return -(-max(size, 3 * width) // width) * width, length

    def text_of(self, found: ManagedObject) -> str | None:
        """The contents of a string, at most 1 Mi characters, then "…" for the others; None for other objects."""
        if found.type != "System.String" or found.length is None:
            return None
        width = self._names.structures.pointer
        data = self._space.try_read(found.address + width + 4, 2 * min(found.length, _MOST_CHARACTERS))
        more = "…" if found.length > _MOST_CHARACTERS else ""
        return None if data is None else data.decode("utf-16-le", "replace") + more

    def field_at(self, found: ManagedObject, address: int) -> str | None:
        """The field of an object, or the element of an array, that holds an address."""
        table = self._names.structures.method_table(found.type_address)
        return self._fields.at(table, address - found.address) if table is not None else None

    def pointers_to(self, address: int) -> Iterator[int]:
        """Addresses of the words in the heap that hold an address, ascending. Reads the whole heap."""
        width = self._names.structures.pointer
        for span in self.spans():
            for start, words in self._space.mapped.words(span, width):
                yield from (start + width * i for i in np.flatnonzero(words == np.uint64(address)).tolist())
