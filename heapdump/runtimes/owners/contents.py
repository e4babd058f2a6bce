"""Patterns that the contents of allocations decide: headers of allocators, and pointers from modules.

Each looks at the first bytes of a bounded number of allocations. Bytes that are not in the dump prove nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import islice, pairwise

import numpy as np

from heapdump.memory.regions import State
from heapdump.runtimes.owners.owner import FoundOwner, Strength
from heapdump.runtimes.owners.reservations import KIB, MIB, Pattern
from heapdump.runtimes.owners.unknown import UnknownAllocation, UnknownMemory
from heapdump.spans import Span
from heapdump.wording import plural

_MOST_PLACES = 4096
"""Headers that one pattern reads."""

_MOST_IN_ONE = 64
"""Headers that are read of one allocation."""

_WRITABLE = 0x04 | 0x08 | 0x40 | 0x80
_MOST_DATA = 64 << 20
"""Bytes of module data that are searched for pointers."""

_SMALLEST_TARGET = 64 * KIB
_SEGMENT, _SEGMENT_HEADER = 32 * MIB, 0x180
_PAGE_V8, _V8_WORDS = 256 * KIB, 16
_POOL_UNREAL, _FEWEST_POOLS = 64 * KIB, 3
_CANARIES = (0xE3, 0xEA, 0xB7, 0xCA)
"""FMallocBinned2: CANARY_VALUE of 4.x, EBlockCanary of 5.x (MallocBinned2.h)."""

_CHUNK = 1 * MIB
_JEMALLOC_MAGIC = 0x947D3D24
_ARENAS_PYTHON = (256 * KIB, 1 * MIB)
_POOLS_PYTHON = (4 * KIB, 16 * KIB)
_SIZE_CLASSES, _POOLS_LOOKED_AT = 64, 4


def mimalloc_segments(memory: UnknownMemory) -> Iterator[FoundOwner]:
    """Segments at multiples of 32 MiB whose header holds a cookie: its own address xor one key (mimalloc 1 and 2).

    The key is unknown. A word at one offset that gives the same key in two segments proves it.
    """
    if memory.pointer_bytes != 8:
        return
    owners: list[UnknownAllocation] = []
    headers: list[np.ndarray[tuple[int], np.dtype[np.uint64]]] = []
    starts: list[int] = []
    for one, start in islice(_aligned(memory, _SEGMENT), _MOST_PLACES):
        data = memory.space.try_read(start, _SEGMENT_HEADER)
        if data is not None:
            owners.append(one)
            starts.append(start)
            headers.append(np.frombuffer(data, "<u8"))
    if len(starts) < 2:
        return
    keys = np.stack(headers) ^ np.array(starts, np.uint64)[:, None]
    is_cookie = np.array([_common(keys[:, i]) for i in range(keys.shape[1])], np.uint64)
    agrees = ((keys == is_cookie[None, :]) & (is_cookie != 0)[None, :]).any(axis=1)
    number = int(agrees.sum())
    for one in {owner.span: owner for owner, good in zip(owners, agrees.tolist(), strict=True) if good}.values():
        words = f"{plural(number, 'segment')} at multiples of 32 MiB whose cookies agree"
        yield FoundOwner(one.span, words, Strength.PROOF)


def _common(keys: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> int:
    """The key that most segments share at one offset; 0 where none is shared, or it is no random number."""
    values, counts = np.unique(keys, return_counts=True)
    best = int(np.argmax(counts))
    key = int(values[best])
    is_random = 16 <= key.bit_count() <= 48
    return key if counts[best] >= 2 and is_random and 2 * counts[best] > len(keys) else 0


def _aligned(memory: UnknownMemory, unit: int) -> Iterator[tuple[UnknownAllocation, int]]:
    """(allocation, multiple of `unit` in it that is committed), at most 64 of each allocation."""
    for one in memory.private:
        if not one.committed:
            continue
        first = -(-one.span.start // unit) * unit
        for start in range(first, min(one.span.end, first + _MOST_IN_ONE * unit), unit):
            i = memory.table.index_at(start)
            if i is not None and memory.table.state[i] == State.MEM_COMMIT:
                yield one, start


def v8_pages(memory: UnknownMemory) -> Iterator[FoundOwner]:
    """Allocations at multiples of 256 KiB whose header names their own size, and two addresses in them in order.

    The header of V8 before 12 has the size of the page, and the start and end of its area (basic-memory-chunk.h).
    """
    width = memory.pointer_bytes
    for one in islice((one for one in memory.private if not one.span.start % _PAGE_V8), _MOST_PLACES):
        data = memory.space.try_read(one.span.start, _V8_WORDS * width) if one.committed else None
        if data is None:
            continue
        words = struct.unpack(f"<{_V8_WORDS}{'Q' if width == 8 else 'I'}", data)
        span = one.span
        has_area = any(span.start <= low < high <= span.end for low, high in pairwise(words))
        if words[0] and words[0] == one.span.size and has_area:
            yield FoundOwner(
                one.span, "a page at a multiple of 256 KiB that names its own size and area", Strength.FITS
            )


def unreal_pools(memory: UnknownMemory) -> Iterator[FoundOwner]:
    """Pools at multiples of 64 KiB with a header: bytes of a block, index, canary (MallocBinned2.h, FFreeBlock)."""
    found: dict[Span, int] = {}
    for one, start in islice(_aligned(memory, _POOL_UNREAL), 4 * _MOST_PLACES):
        data = memory.space.try_read(start, 8)
        if data is None:
            continue
        block, index, canary, free = struct.unpack("<HBBI", data)
        is_size = block >= 16 and not block % 16 and block <= 32 * KIB
        if is_size and index < _SIZE_CLASSES and canary in _CANARIES and free * block <= _POOL_UNREAL:
            found[one.span] = found.get(one.span, 0) + 1
    if sum(found.values()) >= _FEWEST_POOLS:
        for span, number in found.items():
            yield FoundOwner(span, f"{plural(number, 'pool')} of 64 KiB with a canary", Strength.FITS)


def mozjemalloc_chunks(memory: UnknownMemory) -> Iterator[FoundOwner]:
    """Allocations of whole MiB that begin with a pointer to the same arena (mozjemalloc: arena_chunk_t)."""
    chunks: dict[int, list[Span]] = {}
    for one in islice((one for one in memory.private if one.committed), 4 * _MOST_PLACES):
        if one.span.start % _CHUNK or one.span.size % _CHUNK:
            continue
        arena = memory.space.try_pointer(one.span.start)
        if arena and not arena % memory.pointer_bytes and arena not in one.span and memory.space.try_pointer(arena):
            chunks.setdefault(arena, []).append(one.span)
    for arena, spans in chunks.items():
        magic = memory.space.try_integer(arena, 4) == _JEMALLOC_MAGIC
        if magic or len(spans) > 1:
            words = f"a chunk of the arena at {arena:#x}{' with its magic' if magic else ''}"
            yield from (FoundOwner(span, words, Strength.PROOF if magic else Strength.FITS) for span in spans)


def python_arenas(memory: UnknownMemory) -> Iterator[FoundOwner]:
    """Allocations of 256 KiB or 1 MiB with pools whose headers are possible (CPython: obmalloc.c, pool_header)."""
    arenas = (one for one in memory.private if one.span.size in _ARENAS_PYTHON and one.committed == one.span.size)
    for one in islice(arenas, _MOST_PLACES):
        if any(_has_pools(memory, one.span, pool) for pool in _POOLS_PYTHON):
            yield FoundOwner(one.span, "an arena whose pools have headers of small objects", Strength.FITS)


def _has_pools(memory: UnknownMemory, span: Span, pool: int) -> bool:
    """True where the first pool is in use, and the next ones are too, of the same arena, or were never used."""
    first = -(-span.start // pool) * pool
    arenas = set[int]()
    for start in range(first, first + _POOLS_LOOKED_AT * pool, pool):
        data = memory.space.try_read(start, 4 * memory.pointer_bytes + 16)
        if data is None or (start == first and not any(data)):
            return False
        if any(data) and not _is_pool(data, start, pool, memory.pointer_bytes):
            return False
        if any(data):
            arenas.add(int.from_bytes(data[4 * memory.pointer_bytes :][:4], "little"))
    return len(arenas) == 1


def _is_pool(data: bytes, start: int, pool: int, width: int) -> bool:
    """True for a count, a free block in the pool or none, a size class, and offsets in the pool."""
    used, free = (int.from_bytes(data[at : at + size], "little") for at, size in ((0, 4), (width, width)))
    _, index, offset, last = struct.unpack_from("<4I", data, 4 * width)
    is_inside = free == 0 or start < free < start + pool
    return used <= pool // 8 and is_inside and index < _SIZE_CLASSES and offset > 0 and 0 < last <= pool


def pointed_from(modules: tuple[str, ...]) -> Pattern:
    """A pattern: allocations of 64 KiB and more to whose first byte a word in the data of these modules points."""

    def find(memory: UnknownMemory) -> Iterator[FoundOwner]:
        """The allocations that the modules' data point to."""
        targets = [one.span for one in memory.private if one.committed and one.span.size >= _SMALLEST_TARGET]
        if not targets:
            return
        starts = np.array([span.start for span in targets], np.uint64)
        seen: set[int] = set()
        for address, words in _data_words(memory, modules):
            i = np.maximum(np.searchsorted(starts, words, side="right"), 1) - 1
            for at in np.flatnonzero(words == starts[i]).tolist():
                target = int(i[at])
                if target not in seen:
                    seen.add(target)
                    where = memory.process.where(address + at * memory.pointer_bytes)
                    yield FoundOwner(targets[target], f"{where} points to its start", Strength.HINT)

    return find


def _data_words(
    memory: UnknownMemory, modules: tuple[str, ...]
) -> Iterator[tuple[int, np.ndarray[tuple[int], np.dtype[np.uint64]]]]:
    """(address, words) of writable memory of the modules with these names."""
    table, left = memory.process.regions, _MOST_DATA
    for module in memory.process.modules:
        if not any(fnmatchcase(module.name.lower(), pattern) for pattern in modules):
            continue
        low = int(np.searchsorted(table.end, np.uint64(module.span.start), side="right"))
        for i in range(low, len(table)):
            span = Span(int(table.start[i]), int(table.end[i])) & module.span
            if span is None or left <= 0:
                break
            if table.state[i] == State.MEM_COMMIT and table.protect[i] & _WRITABLE:
                left -= span.size
                for address, words in memory.space.mapped.words(span, memory.pointer_bytes):
                    yield address, words.astype(np.uint64)
