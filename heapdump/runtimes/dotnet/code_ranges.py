"""The code ranges of the runtime's execution manager: which addresses are jitted, precompiled or stubs.

Up to 7 a list of `RangeSection`s, from 8 on a map of them (5 levels of 256 pointers over address bits 56 to 17; with
32-bit addresses 2 levels). Both begin at the first variable of the runtime's table. Which of the two it is, the
structures decide (docs/reference/managed-code.md §2).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from heapdump.memory.space import AddressSpace
from heapdump.spans import Span, SpanMap

_MOST_RANGES = 1 << 16
_MOST_LEAVES = 1 << 18
_FRAGMENTS = 4096
_MOST_USELESS = 20_000
"""Leaves one after the other that lead to nothing new: a long range has a leaf for each 128 KiB."""
_JIT, _READY_TO_RUN, _STUBS = 2, 4, 4
_HEAP_START = 0x1000
"""Bytes below the start of a range in which its nibble map may begin."""


class CodeKind(StrEnum):
    """The content of a code range: jitted methods, precompiled code of an image, or stubs."""

    JIT = "jit"
    IMAGE = "image"
    STUBS = "stubs"


@dataclass(frozen=True, slots=True)
class CodeHeap:
    """The code heap of a jitted range. Source: `HeapList` (`CodeHeapListNode` from 9 on).

    Attributes:
        start: address of its first byte.
        end: address behind its last byte in use.
        map_base: address that the nibble map counts from; at most 4096 bytes below the range.
        nibble_map: address of the map, u32 each (see `jit_code`).
    """

    start: int
    end: int
    map_base: int
    nibble_map: int


@dataclass(frozen=True)
class FoundCode:
    """Methods of one allocation that no table of the runtime names.

    Attributes:
        span: the allocation.
        starts: address of each method, ascending.
        bases: for each method the address that the RVAs in its code header count from.
    """

    span: Span
    starts: tuple[int, ...]
    bases: tuple[int, ...]

    def before(self, address: int) -> tuple[int, int] | None:
        """(start, base) of the last method at or below an address."""
        i = bisect_right(self.starts, address) - 1
        return (self.starts[i], self.bases[i]) if i >= 0 else None

    def without(self, starts: set[int]) -> FoundCode | None:
        """The same without the methods that have these starts; None where none remains."""
        others = [(a, b) for a, b in zip(self.starts, self.bases, strict=True) if a not in starts]
        return FoundCode(self.span, *map(tuple, zip(*others, strict=True))) if others else None


@dataclass(frozen=True, slots=True)
class CodeRange:
    """A range of addresses with code of the runtime.

    Attributes:
        span: the addresses.
        kind: the content.
        module: address of the runtime's Module of precompiled code; 0 for other code.
        heap: the code heap of jitted code; None where it is not possible.
        found: methods that no table of the runtime names; None for a range of the runtime's tables.
    """

    span: Span
    kind: CodeKind
    module: int = 0
    heap: CodeHeap | None = None
    found: FoundCode | None = None


def code_ranges(space: AddressSpace, root: int) -> SpanMap[CodeRange]:
    """The ranges of the execution manager. `root`: address of the pointer to the list (up to 7), or of the map."""
    listed = list(_from_list(space, root))
    if not any(one.heap for one in listed):  # what begins like a list may be a map
        listed = list(_from_map(space, root)) or listed
    return SpanMap((one.span, one) for one in listed)


def _from_list(space: AddressSpace, root: int) -> Iterator[CodeRange]:
    """The list of releases up to 7: Low, High, JIT manager, next, last used, u32 flags, heap list or module."""
    node, seen = space.try_pointer(root), set[int]()
    while node and node not in seen and len(seen) < _MOST_RANGES:
        seen.add(node)
        words = _words(space, node, 7)
        if words is None or not _is_range(space, words[0], words[1]):
            return
        flags, owner = words[5] & 0xFFFFFFFF, words[6]
        if flags > 7:
            return
        span = Span(words[0], words[1])
        if flags & _JIT:
            yield CodeRange(span, CodeKind.JIT, heap=_heap(space, owner, span))
        elif flags & _READY_TO_RUN:
            yield CodeRange(span, CodeKind.IMAGE, module=owner)
        else:
            yield CodeRange(span, CodeKind.IMAGE, module=0)
        node = words[3]


def _is_range(space: AddressSpace, low: int, high: int) -> bool:
    return 0x1000 <= low < high <= 1 << (48 if space.pointer_bytes == 8 else 32)


def _words(space: AddressSpace, address: int, count: int) -> list[int] | None:
    pointer = space.pointer_bytes
    data = space.try_read(address, count * pointer)
    if data is None:
        return None
    return [int.from_bytes(data[i : i + pointer], "little") for i in range(0, len(data), pointer)]


def _from_map(space: AddressSpace, top: int) -> Iterator[CodeRange]:
    """The map of 8 and later: leaves lead to fragments, fragments to sections; each section once."""
    levels = 5 if space.pointer_bytes == 8 else 2
    seen: set[int] = set()
    vain = 0
    for leaf in _leaves(space, top, levels, [_MOST_LEAVES]):
        before = len(seen)
        yield from _sections(space, leaf, seen)
        vain = vain + 1 if len(seen) == before else 0
        if vain > _MOST_USELESS:
            return


def _sections(space: AddressSpace, fragment: int, seen: set[int]) -> Iterator[CodeRange]:
    """The sections that the fragments of a leaf lead to, without those `seen`; each begins where its fragment says."""
    met: set[int] = set()
    while fragment and fragment not in met and len(met) < _FRAGMENTS and len(seen) < _MOST_RANGES:
        met.add(fragment)
        words = _words(space, fragment, 4)
        section = words[3] & ~1 if words else 0
        found = _section(space, section) if section and section not in seen else None
        if words is None or (section not in seen and (found is None or words[1] != found.span.start)):
            return
        if found is not None:
            seen.add(section)
            yield found
        fragment = words[0] & ~1


def _leaves(space: AddressSpace, table: int, levels: int, budget: list[int]) -> Iterator[int]:
    """The pointers of the last level, their marks taken off."""
    data = space.try_read(table, 256 * space.pointer_bytes)
    for i in range(0, len(data or b""), space.pointer_bytes):
        entry = int.from_bytes((data or b"")[i : i + space.pointer_bytes], "little") & ~1
        if not entry:
            continue
        budget[0] -= 1
        if budget[0] < 0:
            return
        if levels == 1:
            yield entry
        else:
            yield from _leaves(space, entry, levels - 1, budget)


def _section(space: AddressSpace, address: int) -> CodeRange | None:
    """begin, end, u32 flags, JIT manager, module, heap list."""
    words = _words(space, address, 6)
    if words is None or not _is_range(space, words[0], words[1]):
        return None
    span, flags = Span(words[0], words[1]), words[2] & 0xFFFFFFFF
    if flags > 7:
        return None
    if flags & _JIT:
        return CodeRange(span, CodeKind.JIT, heap=_heap(space, words[5], span))
    if flags & _STUBS:
        return CodeRange(span, CodeKind.STUBS)
    return CodeRange(span, CodeKind.IMAGE, module=words[4])


def _heap(space: AddressSpace, address: int, span: Span) -> CodeHeap | None:
    """The code heap of a range: next, CodeHeap, start, end, map base, nibble map; None where it does not fit."""
    words = _words(space, address, 6)
    if words is None:
        return None
    _, _, start, end, base, nibbles = words
    # the map base is the page of the range's start, which in small heaps is no page (10.0.9, 3.1.23, 2.1.8)
    is_inside = span.start - _HEAP_START <= base <= start <= end <= span.end
    return CodeHeap(start, end, base, nibbles) if is_inside and space.try_integer(nibbles, 4) is not None else None
