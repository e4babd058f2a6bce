"""The objects of a Java heap: counted by class, and the one at an address."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heapdump.kernels import run
from heapdump.kernels.hash_table import place_of
from heapdump.kernels.java_objects import END, REACHED, ClassTable, HeaderFormat, walk_java_objects
from heapdump.memory.regions import RegionTable
from heapdump.runtimes.java.spaces import HeapLayout, Space, unused_buffers
from heapdump.runtimes.java.vm_structs import VmStructs
from heapdump.runtimes.runtime import GenerationRow, ManagedObject, TypeCount, type_counts
from heapdump.spans import Span, SpanMap

_NOWHERE = 1 << 62
_MOST_FOREIGN = 1 << 20
"""Words that are no class and that the walk asks about before it gives up."""

_OBJECT_BYTES = 32
_PLACES = (4, 8)
"""Where the class of an object may be: behind its first word."""

_FIRST_PLACES = 1024
"""Places of the table of classes at first."""

_MIRROR = "java.lang.Class"
_ELEMENTS = {
    "B": "byte",
    "C": "char",
    "D": "double",
    "F": "float",
    "I": "int",
    "J": "long",
    "S": "short",
    "Z": "boolean",
}
_COMPACT = "UseCompactObjectHeaders"
_WIDE = "UseCompressedClassPointers"
NARROW_POINTERS = "UseCompressedOops"
"""The switch of pointers that have 32 bits, scaled, between objects."""


def class_name(symbol: str) -> str:
    """`java/util/Map$Entry` → `java.util.Map$Entry`; `[Ljava/lang/String;` → `java.lang.String[]`; `[I` → `int[]`."""
    depth = len(symbol) - len(symbol.lstrip("["))
    name = symbol[depth:]
    if depth:
        name = name[1:-1] if name.startswith("L") and name.endswith(";") else _ELEMENTS.get(name, name)
    return name.replace("/", ".") + "[]" * depth


class _Classes:
    """The classes that a walk has met, as the kernel wants them; grows with them."""

    table: ClassTable

    def __init__(self, structs: VmStructs, *, narrow: bool) -> None:
        self._structs, self._narrow = structs, narrow
        self._base = structs.static("CompressedKlassPointers", "_base") or 0 if narrow else 0
        self._shift = structs.static("CompressedKlassPointers", "_shift", 4) or 0 if narrow else 0
        self._own_size_at = structs.static("java_lang_Class", "_oop_size_offset", 4) or 0
        self.names: list[str] = []
        self.addresses: list[int] = []
        self._layout = np.empty(0, np.int64)
        self._mirror = -1
        self._entries: dict[int, int] = {}
        self.foreign = 0
        self._grow(_FIRST_PLACES)

    def address(self, word: int) -> int:
        """The Klass that the class word of an object stands for."""
        return self._base + (word << self._shift)

    def add(self, word: int) -> None:
        """Decides whether a word is a class, and adds it."""
        klass = self.address(word)
        helper = self._structs.member(klass, "Klass", "_layout_helper", 4)
        symbol = self._structs.symbol(self._structs.member(klass, "Klass", "_name")) if helper else None
        number = -1
        if helper and symbol and symbol.isprintable():
            number = len(self.names)
            self.names.append(class_name(symbol))
            self.addresses.append(klass)
            self._layout[number] = helper - (1 << 32) if helper >= 1 << 31 else helper
            if self.names[number] == _MIRROR and self._own_size_at:
                self._mirror = number
        else:
            self.foreign += 1
        self._entries[word] = number
        if 2 * len(self._entries) > len(self._slots):
            self._grow(2 * len(self._slots))
        else:
            self._insert(word, number)
        self.table = self.table._replace(own_size=self._mirror)

    def _insert(self, word: int, number: int) -> None:
        place = place_of(word, self._slots, -1)
        self._slots[place], self._numbers[place] = word, number

    def _grow(self, length: int) -> None:
        """A hash table of `length` places, twice as many as classes at least, with the entries so far."""
        self._slots, self._numbers = np.full(length, -1, np.int64), np.full(length, -1, np.int64)
        self._layout = np.concatenate([self._layout, np.zeros(length - len(self._layout), np.int64)])
        for word, number in self._entries.items():
            self._insert(word, number)
        self.table = ClassTable(self._slots, self._numbers, self._layout, self._mirror, self._own_size_at)


class JavaHeap:
    """The objects in the spaces of one VM."""

    def __init__(self, structs: VmStructs, regions: RegionTable, layout: HeapLayout, flags: dict[str, bool]) -> None:
        """Reads nothing yet. `flags`: switches of the VM by name."""
        self._structs, self._regions, self.layout = structs, regions, layout
        self._has_narrow_pointers = flags.get(NARROW_POINTERS, True)
        self._header = header_format(structs, flags)
        self._classes = _Classes(structs, narrow=self._header.klass_bytes == 4 or self._header.shift > 0)
        self._map = SpanMap((space.objects, space) for space in layout.spaces if space.objects.size)

    @property
    def pointer_bytes(self) -> int:
        """4 or 8."""
        return self._structs.space.pointer_bytes

    @property
    def has_narrow_pointers(self) -> bool:
        """True with compressed oops, and where the VM does not say that it has none: they are its default."""
        return self.pointer_bytes == 8 and self._has_narrow_pointers

    def spans(self) -> Sequence[Span]:
        """The spans that hold objects, ascending."""
        return [space.objects for space in self.layout.spaces if space.objects.size]

    def live_spans(self) -> Sequence[Span]:
        """The same without the unused parts of allocation buffers."""
        return [piece for span in self.spans() for piece in self._pieces(span)]

    @cached_property
    def _walked(self) -> list[tuple[Space, NDArray[np.int64], NDArray[np.int64]]]:
        return [(space, *self._count(space.objects)) for space in self.layout.spaces]

    def _count(self, span: Span) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(objects, bytes) by number of the class, without the unused parts of allocation buffers."""
        counts, sizes = np.zeros(1024, np.int64), np.zeros(1024, np.int64)
        for piece in self._pieces(span):
            _, _, counts, sizes = self._walk(piece, _NOWHERE, counts, sizes)
        return counts, sizes

    @cached_property
    def _unused(self) -> list[Span]:
        return unused_buffers(self._structs)

    def _pieces(self, span: Span) -> list[Span]:
        out, start = [], span.start
        for hole in self._unused:
            if start <= hole.start < span.end:
                out.append(Span(start, hole.start))
                start = min(hole.end, span.end)
        return [piece for piece in (*out, Span(start, span.end)) if piece.size]

    def _walk(
        self, span: Span, target: int, counts: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> tuple[int, int, NDArray[np.int64], NDArray[np.int64]]:
        words = self._structs.space.mapped.span_words(Span(span.start & -8, -(-span.end // 8) * 8))
        at, reason = span.start, END
        counts, sizes = self._with_room(counts), self._with_room(sizes)
        while at < span.end:
            at, reason, _ = run(
                walk_java_objects, span.size // _OBJECT_BYTES, words.words, words.base, at, span.end, target,
                self._header, self._classes.table, counts, sizes,
            )  # fmt: skip
            if reason in (END, REACHED) or self._classes.foreign > _MOST_FOREIGN:
                break
            self._classes.add(self._class_word(at))
            counts, sizes = self._with_room(counts), self._with_room(sizes)
        return at, reason, counts, sizes

    def _with_room(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """The counts with a place for every class that is known: the kernel writes there unchecked."""
        names = len(self._classes.names)
        return counts if names <= len(counts) else np.append(counts, np.zeros(2 * names - len(counts), np.int64))

    def _class_word(self, address: int) -> int:
        header = self._header
        word = self._structs.space.try_integer(address + header.klass_at, header.klass_bytes) or 0
        return word >> header.shift & (0x3FFFFF if header.shift else 0x7FFFFFFFFFFFFFFF)

    def rows(self) -> Sequence[GenerationRow]:
        """A row for each kind of space."""
        names = dict.fromkeys(space.generation for space in self.layout.spaces)
        return [self._row(name) for name in names]

    def _row(self, name: str) -> GenerationRow:
        of_kind = [row for row in self._walked if row[0].generation == name]
        committed = sum(self._regions.committed_bytes(space.span) for space, _, _ in of_kind)
        size = sum(int(sizes.sum()) for _, _, sizes in of_kind)
        used = sum(space.objects.size for space, _, _ in of_kind)
        return GenerationRow(
            name, len(of_kind), committed, sum(space.span.size for space, _, _ in of_kind),
            sum(int(counts.sum()) for _, counts, _ in of_kind), size, max(0, used - size),
        )  # fmt: skip

    def types(self) -> Sequence[TypeCount]:
        """The classes with their objects, most bytes first."""
        return type_counts(
            (self._classes.names[number], int(counts[number]), int(sizes[number]))
            for _, counts, sizes in self._walked
            for number in np.flatnonzero(counts).tolist()
        )

    def object_at(self, address: int) -> ManagedObject | None:
        """The object that holds an address. Walks its space."""
        space = self._map.at(address)
        piece = next((p for p in self._pieces(space.objects) if p.start <= address < p.end), None) if space else None
        if space is None or piece is None:
            return None
        at, reason, _, _ = self._walk(piece, address, np.zeros(1024, np.int64), np.zeros(1024, np.int64))
        if reason != REACHED or at > address:
            return None
        table = self._classes.table
        number = int(table.numbers[place_of(self._class_word(at), table.slots, -1)])
        if number < 0:
            return None
        name, size = self._classes.names[number], self._size(at, number)
        length = self._structs.space.try_integer(at + self._header.length_at, 4) if name.endswith("[]") else None
        return ManagedObject(at, name, size, space.generation, length, self._classes.addresses[number])

    def _size(self, at: int, number: int) -> int:
        """Bytes of the object at an address, by its class; as the kernel counts them."""
        table, space = self._classes.table, self._structs.space
        helper = int(table.layout[number])
        if number == table.own_size:
            return 8 * (space.try_integer(at + table.own_size_at, 4) or 0)
        if helper > 0:
            return helper & -8
        length = space.try_integer(at + self._header.length_at, 4) or 0
        return ((helper >> 16 & 0xFF) + (length << (helper & 0xFF)) + 7) & -8

    def text_of(self, found: ManagedObject) -> str | None:
        """None: the VM does not name the fields of java.lang.String."""
        return None

    def field_at(self, found: ManagedObject, address: int) -> str | None:
        """None: fields are not read."""
        return None

    def pointers_to(self, address: int) -> Iterator[int]:
        """Addresses of the words in the heap that hold an address outside of it, ascending. Reads the whole heap."""
        width = self.pointer_bytes
        for span in self.spans():
            for start, words in self._structs.space.mapped.words(span, width):
                yield from (start + width * i for i in np.flatnonzero(words == np.uint64(address)).tolist())

    def gaps(self) -> Sequence[str]:
        """What of the heap could not be walked, and why."""
        if self.layout.collector is None:
            return ["the objects of this Java heap are not listed: only the heaps of G1, Serial and Parallel are read"]
        if self._walked and self._classes.foreign > _MOST_FOREIGN:
            return ["the Java heap holds too many words that are no class: its walk was given up"]
        starts = np.array([span.start for span in self.spans()], np.uint64)
        ends = np.array([span.end for span in self.spans()], np.uint64)
        total = int((ends - starts).sum())
        present = int(self._structs.space.mapped.bytes_present(starts, ends).sum())
        return (
            [f"{total - present:,} of {total:,} bytes of the Java heap are not in the dump"] if present < total else []
        )


def header_format(structs: VmStructs, flags: dict[str, bool]) -> HeaderFormat:
    """Where objects have their class and arrays their length, by the switches of the VM.

    Compact headers (JDK 24 and later) keep the class in bits 42-63 of the first word (HotSpot: markWord.hpp).
    """
    if flags.get(_COMPACT, False):
        return HeaderFormat(0, 8, 42, 8)
    narrow = structs.fields.get(("oopDesc", "_metadata._compressed_klass"))
    if structs.space.pointer_bytes == 8 and flags.get(_WIDE, True) and narrow is not None and narrow.offset in _PLACES:
        return HeaderFormat(narrow.offset, 4, 0, narrow.offset + 4)
    wide = structs.fields.get(("oopDesc", "_metadata._klass"))
    pointer = structs.space.pointer_bytes
    at = wide.offset if wide is not None and wide.offset in _PLACES else pointer
    return HeaderFormat(at, pointer, 0, at + pointer)
