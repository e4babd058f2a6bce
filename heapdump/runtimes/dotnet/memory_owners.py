"""The memory of a CLR: its heap, its code, its stubs, and where its structures lie.

Heap and code are exact: the runtime's own lists name them. "CLR, other" is an inference: allocations in which
MethodDescs, MethodTables, Modules or nibble maps lie, which are the loader's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from heapdump.memory.regions import Kind
from heapdump.process.model import Process
from heapdump.runtimes.dotnet.code_ranges import CodeKind, CodeRange
from heapdump.runtimes.dotnet.gc_segments import GcSegment
from heapdump.runtimes.runtime import MemoryOwner, OwnerKind
from heapdump.spans import Span
from heapdump.trust import Trust

_WORDS = {"large": "large objects", "pinned": "pinned objects", "frozen": "frozen objects"}


def memory_owners(
    process: Process,
    segments: Sequence[GcSegment],
    ranges: Sequence[CodeRange],
    bookkeeping: int,
    structures: Sequence[int],
) -> list[MemoryOwner]:
    """The owners, the surest last. `bookkeeping`: an address in the collector's tables, 0 where it is not known."""
    return [
        *_loader(process, structures),
        *_bookkeeping(process, bookkeeping),
        *_reservations(process, segments),
        *_heap(segments),
        *_code(ranges),
    ]


def _allocations(process: Process, addresses: Sequence[int]) -> Iterator[Span]:
    """The allocations that hold the addresses, each once; images and free memory left out."""
    regions, seen = process.regions, set[Span]()
    for address in addresses:
        i = regions.index_at(address)
        if i is None or regions.type[i] == Kind.MEM_IMAGE:
            continue
        span = regions.allocation(address) or Span(int(regions.start[i]), int(regions.end[i]))
        if span not in seen:
            seen.add(span)
            yield span


def _loader(process: Process, structures: Sequence[int]) -> Iterator[MemoryOwner]:
    for span in _allocations(process, structures):
        yield MemoryOwner(span, OwnerKind.OTHER, "CLR, other", Trust.DERIVED)


def _bookkeeping(process: Process, address: int) -> Iterator[MemoryOwner]:
    for span in _allocations(process, [address] if address else []):
        yield MemoryOwner(span, OwnerKind.BOOKKEEPING, "GC bookkeeping", Trust.DERIVED)


def _reservations(process: Process, segments: Sequence[GcSegment]) -> Iterator[MemoryOwner]:
    """Whole reservations of the collector: 256 GiB from 7 on, of which regions are made."""
    for span in _allocations(process, [segment.start for segment in segments]):
        yield MemoryOwner(span, OwnerKind.HEAP, "GC heap, reserved")


def _heap(segments: Sequence[GcSegment]) -> Iterator[MemoryOwner]:
    for segment in segments:
        number = f" of heap {segment.heap}" if segment.heap else ""
        words = f"GC heap {_WORDS.get(segment.generation, segment.generation)}{number}"
        yield MemoryOwner(Span(segment.start, segment.reserved), OwnerKind.HEAP, words)


def _code(ranges: Sequence[CodeRange]) -> Iterator[MemoryOwner]:
    for one in ranges:
        if one.kind is CodeKind.JIT:
            yield MemoryOwner(one.span, OwnerKind.JIT_CODE, "JIT code")
        elif one.kind is CodeKind.STUBS:
            yield MemoryOwner(one.span, OwnerKind.STUBS, "CLR stubs")
