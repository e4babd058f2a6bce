"""Patterns of reservations: size, alignment and protection of memory, by the memory map alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from heapdump.memory.regions import Kind, State
from heapdump.runtimes.owners.owner import FoundOwner, Strength
from heapdump.runtimes.owners.unknown import UnknownAllocation, UnknownMemory
from heapdump.spans import Span, merged
from heapdump.wording import plural, size

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_GUARD, _NO_ACCESS, _WRITE_COMBINE = 0x100, 0x01, 0x400
_READ_ONLY, _READ_WRITE = 0x02, 0x04
_SMALLEST_CODE = 64 * KIB
_SUPER_PAGE, _SYSTEM_PAGE, _PARTITION_PAGE = 2 * MIB, 4 * KIB, 16 * KIB
_PROVEN_SUPER_PAGES = 3
_TABLE_SEGMENT, _TABLES = 64 * KIB, (64 * MIB, 128 * MIB, 256 * MIB, 512 * MIB)
_GUARD_BITMAP = 2 << 40
_GO_ARENAS, _GO_ARENA = Span(0xC000000000, 0xC000000000 + (1 << 40)), 4 * MIB

Pattern = Callable[[UnknownMemory], Iterator[FoundOwner]]


def reserved(low: int, high: int, alignment: int) -> Pattern:
    """A pattern: runs of private memory of [low, high) bytes, cut to multiples of `alignment` (bytes) on both sides."""

    def find(memory: UnknownMemory) -> Iterator[FoundOwner]:
        """The aligned parts of the runs."""
        for run in memory.runs:
            start, end = -(-run.start // alignment) * alignment, run.end // alignment * alignment
            if low <= run.size < high and end - start >= low:
                words = f"{size(end - start)} of address space reserved at a multiple of {size(alignment)}"
                yield FoundOwner(Span(start, end), words, Strength.FITS)

    return find


def allocations(low: int, high: int, alignment: int, strength: Strength = Strength.FITS) -> Pattern:
    """A pattern: private allocations of [low, high] bytes that start at multiples of `alignment` (bytes)."""

    def find(memory: UnknownMemory) -> Iterator[FoundOwner]:
        """The allocations of that size and place."""
        for one in memory.private:
            if low <= one.span.size <= high and not one.span.start % alignment:
                words = f"{size(one.span.size)} reserved at a multiple of {size(alignment)}"
                yield FoundOwner(one.span, words, strength)

    return find


def pointer_tables(memory: UnknownMemory) -> Iterator[FoundOwner]:
    """V8's tables of pointers: 64 to 512 MiB, first 64 KiB read-only, then 64 KiB read-write each, the rest reserved.

    The reservation is made of placeholders: each piece is an allocation (recorded: Electron on Windows 11 25H2).
    """
    table = memory.table
    pieces = [(one, int(table.protect[one.rows[0]])) for one in memory.private]
    for i, (first, protect) in enumerate(pieces):
        if first.span.size != _TABLE_SEGMENT or protect != _READ_ONLY or first.committed != _TABLE_SEGMENT:
            continue
        end = first.span.end
        for one, _ in pieces[i + 1 :]:
            if one.span.start != end or (one.committed and one.span.size != _TABLE_SEGMENT):
                break
            end = one.span.end
            if not one.committed:
                break
        length = end - first.span.start
        if length in _TABLES:
            yield FoundOwner(
                Span(first.span.start, end), f"a table of {size(length)} in segments of 64 kB", Strength.FITS
            )


def guard_bitmap(memory: UnknownMemory) -> Iterator[FoundOwner]:
    """The bitmap of Control Flow Guard: a mapping with 2 bits for each 16 bytes of address space, 2 TiB of 128 TiB."""
    for one in memory.mapped:
        if one.span.size == _GUARD_BITMAP:
            yield FoundOwner(one.span, f"{size(one.span.size)} mapped: a 64th of the address space", Strength.PROOF)


def multiples(unit: int, *, alignment: int, fewest: int) -> Pattern:
    """A pattern: private allocations of multiples of `unit` that start at multiples of `alignment` (both bytes).

    None where there are fewer than `fewest` of them.
    """

    def find(memory: UnknownMemory) -> Iterator[FoundOwner]:
        """The allocations, none where there are fewer."""
        spans = [one.span for one in memory.private if one.committed]
        found = [span for span in spans if not span.size % unit and not span.start % alignment]
        for span in found if len(found) >= fewest else ():
            yield FoundOwner(span, f"{size(span.size)}, a multiple of {size(unit)}", Strength.HINT)

    return find


def code_range(memory: UnknownMemory) -> Iterator[FoundOwner]:
    """Reservations of 64 MiB to 2 GiB with executable memory in them."""
    for one in memory.private:
        if one.executable and 64 * MIB <= one.span.size <= 2 * GIB:
            words = f"{size(one.span.size)} reserved with {size(one.executable)} of executable memory"
            yield FoundOwner(one.span, words, Strength.FITS)


def executable(memory: UnknownMemory) -> Iterator[FoundOwner]:
    """Private allocations with at least 64 KiB of executable memory; less is a trampoline of a hook."""
    for one in memory.private:
        if one.executable >= _SMALLEST_CODE:
            yield FoundOwner(one.span, f"{size(one.executable)} of private executable memory", Strength.HINT)


def go_arenas(memory: UnknownMemory) -> Iterator[FoundOwner]:
    """Multiples of 4 MiB from 0xc000000000 on; of a 32-bit program anywhere (Go: malloc.go, arena hints)."""
    for one in memory.private:
        start, length = one.span.start, one.span.size
        if start % _GO_ARENA or length % _GO_ARENA:
            continue
        if memory.pointer_bytes == 4:
            yield FoundOwner(one.span, "a multiple of 4 MiB", Strength.HINT)
        elif start in _GO_ARENAS:
            yield FoundOwner(one.span, "an arena in the addresses from 0xc000000000 on", Strength.FITS)


def super_pages(memory: UnknownMemory) -> Iterator[FoundOwner]:
    """PartitionAlloc: at a multiple of 2 MiB a page without access, one or two with metadata, then none again.

    The rest of the first 16 KiB and the last 16 KiB have no access (partition_page.h); the reservation begins at a
    multiple of 2 MiB itself. Touching super pages are one piece. A reservation of 4 to 64 GiB around them is their
    pool. Versions of 2025 keep the metadata elsewhere (recorded: Electron on Windows 11 25H2).
    """
    pages = list(_super_pages(memory))
    if not pages:
        return
    strength = Strength.PROOF if len(pages) >= _PROVEN_SUPER_PAGES else Strength.FITS
    words = f"{plural(len(pages), 'super page')} of 2 MiB with guard and metadata pages"
    in_pools = [run for run in memory.runs if 4 * GIB <= run.size <= 64 * GIB and _holds(run, pages)]
    spans = [span for page in pages for run in memory.runs if (span := page & run) is not None]
    yield from (FoundOwner(run, words, strength) for run in in_pools)
    yield from (FoundOwner(span, words, strength) for span in merged(spans))


def _holds(run: Span, pages: list[Span]) -> bool:
    return any(page.start in run for page in pages)


def _super_pages(memory: UnknownMemory) -> Iterator[Span]:
    table = memory.table
    offset = table.start % np.uint64(_SUPER_PAGE)
    is_private = (table.type == Kind.MEM_PRIVATE) & (table.claim < 0)
    is_data = is_private & (table.state == State.MEM_COMMIT) & (table.protect == _READ_WRITE)
    is_data &= (offset == _SYSTEM_PAGE) & (table.size <= np.uint64(2 * _SYSTEM_PAGE))
    is_closed = is_private & ((table.state == State.MEM_RESERVE) | (table.protect == _NO_ACCESS))
    for i in np.flatnonzero(is_data).tolist():
        page = int(table.start[i]) - _SYSTEM_PAGE
        if not 0 < i < len(table) - 1 or not is_closed[i - 1] or not is_closed[i + 1]:
            continue
        before, behind = int(table.start[i - 1]), int(table.end[i + 1])
        touches = table.end[i - 1] == table.start[i] and table.end[i] == table.start[i + 1]
        is_head = touches and before <= page and behind >= page + _PARTITION_PAGE
        if is_head and not table.allocation_base[i] % np.uint64(_SUPER_PAGE) and _is_closed(memory, page + _SUPER_PAGE):
            yield Span(page, page + _SUPER_PAGE)


def _is_closed(memory: UnknownMemory, end: int) -> bool:
    """True where the last 16 KiB below an address have no access."""
    table = memory.table
    i = table.index_at(end - 1)
    if i is None or int(table.start[i]) > end - _PARTITION_PAGE:
        return False
    return bool(table.state[i] == State.MEM_RESERVE or table.protect[i] == _NO_ACCESS)


def stacks(memory: UnknownMemory) -> Iterator[FoundOwner]:
    """Reserved memory, one run of guard pages, and committed memory to the end of the allocation: a stack.

    Those of the threads in the dump are claimed. What is left are fibers, threads that the dump does not list, and the
    stacks of another processor's half of the process.
    """
    for one in memory.private:
        if _is_stack(memory, one):
            yield FoundOwner(one.span, "reserved, a guard page, then committed to its end", Strength.PROOF)


def _is_stack(memory: UnknownMemory, one: UnknownAllocation) -> bool:
    table, (low, high) = memory.table, one.rows
    if high - low < 3:
        return False
    state, protect = table.state[low:high], table.protect[low:high]
    guards = np.flatnonzero((state == State.MEM_COMMIT) & (protect & _GUARD != 0))
    if len(guards) != 1 or not 0 < guards[0] < high - low - 1:
        return False
    at = int(guards[0])
    is_reserved = bool((state[:at] == State.MEM_RESERVE).all())
    is_open = bool(((state[at + 1 :] == State.MEM_COMMIT) & (protect[at + 1 :] == _READ_WRITE)).all())
    return is_reserved and is_open


def write_combined(memory: UnknownMemory) -> Iterator[FoundOwner]:
    """Committed memory that the processor writes past its caches: for a device."""
    for one in (*memory.private, *memory.mapped):
        if (memory.table.protect[slice(*one.rows)] & _WRITE_COMBINE).any():
            yield FoundOwner(one.span, "write-combined memory", Strength.FITS)
