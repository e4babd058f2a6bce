"""Jitted code: from an address to the start of its method, its MethodDesc and its unwind data.

The nibble map says where methods start: buckets of 32 bytes, 4 bits each, 8 in a u32, the highest bits first; n: a
method starts at bucket * 32 + (n - 1) * 4. From 9 on a u32 whose low nibble is above 8 is a pointer to the start
instead. Before the start lies the code header; on x64 a pointer to it, and its RUNTIME_FUNCTIONs must name the start
and hold the address. Source: nibblemapmacros.h, codeman.h of the runtime; docs/reference/managed-code.md §3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from heapdump.memory.space import AddressSpace
from heapdump.runtimes.dotnet.code_ranges import CodeHeap, CodeKind, CodeRange
from heapdump.runtimes.dotnet.descriptor import Descriptor

_BUCKET, _PER_WORD = 32, 8
_LONGEST_METHOD = 4 << 20
_MOST_FUNCTIONS = 4096
_LAST_STUB_KIND = 0xF
_BACK_WORDS = 256
_SIZE_BYTES = 5


@dataclass(frozen=True, slots=True)
class JitMethod:
    """The code of one jitted method.

    Attributes:
        start: address of its first byte.
        end: address behind its last byte; on x86 by the GC information.
        method_desc: address of its MethodDesc.
        base: address that the RVAs of `functions` count from.
        functions: (begin, end, unwind information) as RVAs, the method first, then its handlers; () on x86.
    """

    start: int
    end: int
    method_desc: int
    base: int
    functions: tuple[tuple[int, int, int], ...]

    def function_at(self, address: int) -> tuple[int, int, int] | None:
        """The RUNTIME_FUNCTION that holds an address: the method's own first, then its handlers (funclets)."""
        rva = address - self.base
        return next((row for row in self.functions if row[0] <= rva < row[1]), None)

    def is_handler(self, address: int) -> bool:
        """True in a funclet: a catch, finally or filter that runs as a function of its own."""
        found = self.function_at(address)
        return found is not None and found != self.functions[0] and self.functions[0][1] <= found[0]


@dataclass(frozen=True, slots=True)
class HeaderLayout:
    """Offsets in the x64 code header (`RealCodeHeader`): the same in 3.1, 8 and 10."""

    method_desc: int = 0x18
    count: int = 0x20
    functions: int = 0x24


def header_layout(descriptor: Descriptor) -> HeaderLayout:
    """The layout that the descriptor names, else the default."""
    names = {"method_desc": "MethodDesc", "count": "NumUnwindInfos", "functions": "UnwindInfos"}
    found = {key: descriptor.offset("RealCodeHeader", member) for key, member in names.items()}
    return HeaderLayout(**{key: value for key, value in found.items() if value is not None})


def method_at(space: AddressSpace, layout: HeaderLayout, within: CodeRange, address: int) -> JitMethod | int | None:
    """The method whose code holds an address; the kind of a stub (1 to 15); None where there is neither."""
    start, base = _start_in(space, within, address)
    if start is None or address - start > _LONGEST_METHOD:
        return None
    found = method_from(space, layout, start, base)
    if isinstance(found, JitMethod):
        return found if start <= address < found.end or found.function_at(address) else None
    return found


def _start_in(space: AddressSpace, within: CodeRange, address: int) -> tuple[int | None, int]:
    """(the last start at or below an address, what its RVAs count from)."""
    if within.found is not None:
        return within.found.before(address) or (None, 0)
    if within.kind is not CodeKind.JIT or within.heap is None:
        return None, 0
    return _start_of(space, within.heap, address), within.span.start


def places_of(space: AddressSpace, within: CodeRange) -> list[tuple[int, int]]:
    """(start, what its RVAs count from) of every method and stub of a range, ascending."""
    if within.found is not None:
        return list(zip(within.found.starts, within.found.bases, strict=True))
    return [(start, within.span.start) for start in starts(space, within.heap)] if within.heap else []


def methods_of(space: AddressSpace, layout: HeaderLayout, within: CodeRange) -> Iterator[JitMethod]:
    """Every jitted method of a range, ascending."""
    for start, base in places_of(space, within):
        found = method_from(space, layout, start, base)
        if isinstance(found, JitMethod):
            yield found


def starts(space: AddressSpace, heap: CodeHeap) -> Iterator[int]:
    """The starts of all methods and stubs of a code heap, ascending."""
    count = (heap.end - heap.map_base) // (_BUCKET * _PER_WORD) + 1
    data = space.try_read(heap.nibble_map, 4 * count) or b""
    for i, (word,) in enumerate(struct.iter_unpack("<I", data)):
        if word & 0xF > _PER_WORD:
            continue  # a pointer to a start in a word before
        for k in range(_PER_WORD):
            nibble = word >> (28 - 4 * k) & 0xF
            if nibble:
                yield heap.map_base + (i * _PER_WORD + k) * _BUCKET + (nibble - 1) * 4


def _start_of(space: AddressSpace, heap: CodeHeap, address: int) -> int | None:
    """The last start at or below an address, by the nibble map."""
    delta = address - heap.map_base
    if delta < 0:
        return None
    index, place = divmod(delta // _BUCKET, _PER_WORD)
    word = space.try_integer(heap.nibble_map + 4 * index, 4)
    if word is None:
        return None
    if word & 0xF > _PER_WORD:
        return _pointed(heap, word)
    for k in range(place, -1, -1):
        nibble = word >> (28 - 4 * k) & 0xF
        offset = (index * _PER_WORD + k) * _BUCKET + (nibble - 1) * 4
        if nibble and offset <= delta:
            return heap.map_base + offset
    return _before(space, heap, index)


def _before(space: AddressSpace, heap: CodeHeap, index: int) -> int | None:
    """The last start in the words before `index`, not farther than the longest method."""
    low = max(0, index - _LONGEST_METHOD // (_BUCKET * _PER_WORD))
    while index > low:
        first = max(low, index - _BACK_WORDS)
        data = space.try_read(heap.nibble_map + 4 * first, 4 * (index - first))
        if data is None:
            return None
        for i in range(index - first - 1, -1, -1):
            word = int.from_bytes(data[4 * i : 4 * i + 4], "little")
            if word & 0xF > _PER_WORD:
                return _pointed(heap, word)
            if word:
                k = next(k for k in range(_PER_WORD - 1, -1, -1) if word >> (28 - 4 * k) & 0xF)
                nibble = word >> (28 - 4 * k) & 0xF
                return heap.map_base + ((first + i) * _PER_WORD + k) * _BUCKET + (nibble - 1) * 4
        index = first
    return None


def _pointed(heap: CodeHeap, word: int) -> int:
    """The start that a pointer of the nibble map names (9 and later)."""
    return heap.map_base + (word & ~0xF) + ((word & 0xF) - 9) * 4


def method_from(space: AddressSpace, layout: HeaderLayout, start: int, base: int) -> JitMethod | int | None:
    """The method that starts at an address, by its code header; the kind of a stub (1 to 15), or None."""
    pointer = space.pointer_bytes
    header = space.try_pointer(start - pointer)
    if header is None:
        return None
    if header <= _LAST_STUB_KIND:
        return header or None
    return _wide(space, layout, header, start, base) if pointer == 8 else _narrow(space, header, start)


def _wide(space: AddressSpace, layout: HeaderLayout, header: int, start: int, base: int) -> JitMethod | None:
    """x64: the RUNTIME_FUNCTIONs must begin with the start; those of abandoned compilations are zero."""
    desc, count = space.try_pointer(header + layout.method_desc), space.try_integer(header + layout.count, 4)
    if not desc or not count or count > _MOST_FUNCTIONS:
        return None
    data = space.try_read(header + layout.functions, 12 * count)
    # a compilation that needed fewer funclets than were reserved leaves zeros behind them (3.1.23)
    rows = list(takewhile(any, ((a, b, c) for a, b, c in struct.iter_unpack("<III", data or b""))))
    if not rows or base + rows[0][0] != start or any(not a < b <= a + _LONGEST_METHOD for a, b, _ in rows):
        return None
    return JitMethod(start, base + max(row[1] for row in rows), desc, base, tuple(rows))


def _narrow(space: AddressSpace, desc: int, start: int) -> JitMethod | None:
    """x86: debug information, EH, GC information and MethodDesc lie before the code; GC information has its size."""
    gc_info = space.try_pointer(start - 8)
    data = space.try_read(gc_info, _SIZE_BYTES) if gc_info else None
    size = 0
    for byte in data or b"":
        size = size << 7 | byte & 0x7F
        if not byte & 0x80:
            break
    return JitMethod(start, start + size, desc, start, ()) if 0 < size <= _LONGEST_METHOD else None
